"""Optuna's samplers (Akiba et al. 2019): TPE, CMA-ES, Gaussian processes; with a storage that a dashboard can watch."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from merging.errors import OptionError
from merging.plugins.optimizer import Optimizer, Search
from merging.plugins.options import option
from merging.plugins.registry import optimizers
from merging.values.outcome import Solution


@optimizers.register("optuna")
@dataclass(frozen=True)
class Optuna(Optimizer):
    """A search by Optuna's sampler: asks the start first, then what it proposes, until the budget is spent.

    With a storage, every search of a run is a study of its own, ``STUDY-1``, ``STUDY-2``, …: the next free number. A
    resumed run asks the same points again and therefore begins new studies. Watch them with
    ``optuna-dashboard sqlite:///study.db``.
    """

    summary: ClassVar[str] = "Optuna's TPE, CMA-ES or Gaussian process, watched by optuna-dashboard if you like"
    paper: ClassVar[str] = "Akiba et al. 2019, https://arxiv.org/abs/1907.10902"
    formula: ClassVar[str] = (
        "tpe: x_t = argmax l(x)/g(x), the densities of the better and the other points; cmaes: x_t ~ N(m, σ²C), "
        "adapted by rank; gp: x_t = argmax expected improvement of a Gaussian process"
    )
    limits: ClassVar[str] = (
        "All three begin with random points and pay off late; gp fits a model for every point, which takes longer than "
        "a small model's evaluation."
    )

    sampler: str = option("tpe", "who proposes the points", choices=("tpe", "cmaes", "gp"))
    storage: str | None = option(None, "where studies are kept: a file, or a URL such as sqlite:///study.db")
    study: str = option("merging", "name of the studies in the storage; a number follows")

    def maximize(self, search: Search) -> Solution:
        """Asks and tells one point at a time."""
        import optuna

        names = [f"x{number:0{len(str(search.dimension))}}" for number in range(search.dimension)]
        bounds = zip(names, search.lower, search.upper, strict=True)
        space: dict[str, Any] = {n: optuna.distributions.FloatDistribution(float(a), float(b)) for n, a, b in bounds}
        with _quiet(), self._study(int(search.generator.integers(2**32))) as study:
            study.enqueue_trial(dict(zip(names, map(float, search.start), strict=True)))
            for _ in range(search.budget):
                trial = study.ask(space)
                try:
                    score = search.evaluate(np.array([trial.params[name] for name in names]))
                except BaseException:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    raise
                study.tell(trial, score)
        return search.solution("budget spent")

    @contextlib.contextmanager
    def _study(self, seed: int) -> Iterator[Any]:
        """A new study; a database that it is kept in is closed at the end."""
        import optuna

        makers: dict[str, Any] = {
            "tpe": functools.partial(optuna.samplers.TPESampler, multivariate=True),
            "cmaes": optuna.samplers.CmaEsSampler,
            "gp": optuna.samplers.GPSampler,
        }
        sampler = makers[self.sampler](seed=seed)
        if self.storage is None:
            yield optuna.create_study(direction="maximize", sampler=sampler)
            return
        url = self.storage if "://" in self.storage else f"sqlite:///{self.storage}"
        try:
            storage = optuna.storages.RDBStorage(url)
            taken = set(optuna.get_all_study_names(storage))
            number = next(n for n in range(1, len(taken) + 2) if f"{self.study}-{n}" not in taken)
            name = f"{self.study}-{number}"
            study = optuna.create_study(study_name=name, storage=storage, direction="maximize", sampler=sampler)
        except Exception as error:  # every database driver has errors of its own
            reason = str(error).splitlines()[0]
            raise OptionError(f"option 'storage' of 'optuna': cannot use {self.storage} ({reason})") from None
        try:
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No line a trial, and no warnings of features that are marked as experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
