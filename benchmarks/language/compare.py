"""Every method over the pools, by ``merge benchmark``: what docs/results/protocol-language.md fixes, as values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from merging.storage import atomic

PROTOCOL = Path(__file__).parents[2] / "docs" / "results" / "protocol-language.md"
DOMAINS = ("manuals", "essays")
SHIFT = "jargon"
METHODS = (
    "best,uniform,greedy,manifoldmix,learned,affine,wise-ft,wise-ft-searched=wise-ft,task-arithmetic,"
    "task-arithmetic-searched=task-arithmetic,ties,ties-searched=ties,dare-ties,dare-linear,model-stock"
)
OPTIONS = (
    "wise-ft-searched.alpha=search",
    "task-arithmetic-searched.scale=search",
    "ties-searched.scale=search",
    "manifoldmix.tau=0.97",
    *(f"{name}.{key}" for name in ("learned", "affine") for key in ("steps=140", "batch=32")),
)
"""τ is one of ratios of scores; a likelihood that is 3 % worse is promising, as accuracy is in the paper."""
EVOLVED = "best,manifoldmix,task-arithmetic-searched=task-arithmetic"
"""Methods whose searches are made again by CMA-ES (Optuna's)."""
EVOLVED_OPTIONS = ("task-arithmetic-searched.scale=search", "manifoldmix.tau=0.97", "optimizer.sampler=cmaes")
BUDGET = 30
MOST = 160
"""Evaluations of a method at the most, so that a study of sixteen models is done in a step."""


SEARCHES = ("bench", "evolved")
"""Begin the folders' names: of all methods, and of those whose searches CMA-ES makes again."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One pool and what it is scored on.

    Attributes:
        name: of its folder.
        domains: whose models are in the pool, and whose texts are held out.
        objective: what is maximised.
        asked: whether the sets are the questions.
        methods: what is compared.
    """

    name: str
    domains: tuple[str, ...]
    objective: str = "nll"
    asked: bool = False
    methods: str = METHODS


STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        Study(name="manuals", domains=("manuals",)),
        Study(name="essays", domains=("essays",)),
        Study(name="both", domains=DOMAINS, objective="0.5*manuals:nll + 0.5*essays:nll"),
        Study(
            name="questions",
            domains=("manuals",),
            objective="accuracy",
            asked=True,
            methods="best,uniform,greedy,wise-ft-searched=wise-ft",
        ),
    )
}


def run(
    output: Path,
    names: Iterable[str] = tuple(STUDIES),
    threads: int | None = None,
    searches: Iterable[str] = SEARCHES,
) -> None:
    """Makes the benchmarks that are not finished; each goes on where it was interrupted.

    Args:
        output: folder of corpora and models.
        names: the studies.
        threads: of the passes; None: what the program takes.
        searches: of :data:`SEARCHES`, so that each can be a step of its own.
    """
    for study in (STUDIES[name] for name in names):
        task = output / f"{study.name}.toml"
        atomic.write(task, _task(output.absolute(), study))
        shared = ["benchmark", "--task", str(task), "--objective", study.objective, "--base", str(output / "base")]
        shared += _each("--models", (f"{output / domain}/model_*" for domain in study.domains))
        shared += ["--partitioner", "block", "--budget", str(BUDGET), "--max-evaluations", str(MOST), "--seed", "0"]
        shared += [] if threads is None else ["--threads", str(threads)]
        if "bench" in searches:
            _compared(output / f"bench_{study.name}", shared, study.methods, OPTIONS)
        if "evolved" in searches and not study.asked:
            by_evolution = [*shared, "--optimizer", "optuna"]
            _compared(output / f"evolved_{study.name}", by_evolution, EVOLVED, EVOLVED_OPTIONS)


def _compared(folder: Path, shared: list[str], methods: str, options: Iterable[str]) -> None:
    names = {method.partition("=")[0] for method in methods.split(",")} | {"optimizer"}
    chosen = [option for option in options if option.partition(".")[0] in names]
    _merge(*shared, "--strategies", methods, *_each("-o", chosen), "--output", str(folder))


def _task(output: Path, study: Study) -> str:
    base = output / "base"
    corpora, kind = output / "corpus", "_questions" if study.asked else ""

    def sets(part: str) -> str:
        files = {name: json.dumps(str(corpora / f"{name}_{part}{kind}.jsonl")) for name in study.domains}
        if len(files) == 1:
            return next(iter(files.values()))
        return f"{{ {', '.join(f'{name} = {file}' for name, file in files.items())} }}"

    return (
        f"[task]\nmodel = {json.dumps(f'transformers:{base}')}\n"
        f"held_out = {sets('held_out')}\ntest = {sets('test')}\n"
        f"[task.shifts]\n{SHIFT} = {json.dumps(str(corpora / f'{SHIFT}_test{kind}.jsonl'))}\n"
    )


def _each(flag: str, values: Iterable[str]) -> list[str]:
    """The flag before each value."""
    return [word for value in values for word in (flag, value)]


def _merge(*words: str) -> None:
    """Runs a command of ``merge``.

    Raises:
        SystemExit: it failed, with its exit code.
    """
    done = subprocess.run([sys.executable, "-m", "merging", *words], check=False)  # noqa: S603 (our own)
    if done.returncode:
        raise SystemExit(done.returncode)
