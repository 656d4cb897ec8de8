"""The evaluator: the one door through which every forward pass goes. Counted, journalled, cached."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import Stopped, StopReason, StrategyError
from merging.forward.blend import Blend
from merging.forward.calibration import Calibration
from merging.forward.device import on_device
from merging.forward.fisher import squared_gradients
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.passes import Contents, Passes
from merging.plugins.objective import Objective, WholeModelObjective, check_labels
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import CERTIFY, HELD_OUT, Split, Task
from merging.storage.content import content_hash
from merging.storage.journal import Journal
from merging.storage.raw import in_dtype
from merging.values.outcome import WORST, Decision, Meter, Outcome, top1
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

CACHE_MEMORY = 1 << 30
"""Bytes for activations of earlier passes, where nothing else is said."""
LOGITS_MEMORY = 1 << 30
"""Bytes for logits of whole splits, for models whose outputs are averaged."""


class Evaluator:
    """Scores recipes and trials on a task's splits.

    Args:
        live: the model whose weights are mixed in place.
        task: the data.
        objective: what is maximised.
        numerics: batch, threads and precision; part of every key.
        journal: where every evaluation is written, and read back on resume.
        limit: distinct held-out evaluations after which the run ends, or None.
        should_stop: asked between batches; True ends the run at once.
        cache_memory: bytes for activations of earlier passes, from which a pass goes on whose early weights are the
            same; 0: every pass is whole. The bits are the same either way.
        exact_savings: False makes every evaluation that is asked for a whole forward pass, answered from memory or
            not; for measuring what the savings save.
        progress: told how far the members of an ensemble are.
        measure_again: BatchNorm statistics of averages are measured on training data before they are scored.
    """

    def __init__(
        self,
        live: LiveModel,
        task: Task,
        objective: Objective | WholeModelObjective,
        numerics: Numerics,
        journal: Journal,
        *,
        limit: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        cache_memory: int = CACHE_MEMORY,
        exact_savings: bool = True,
        measure_again: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.live = live
        self.task = task
        self.objective = objective
        self.numerics = numerics
        self.journal = journal
        self.limit = limit
        self.should_stop = should_stop
        self.total = Meter()
        self.meter = Meter()
        self._asked: set[str] = set()
        self._cache: dict[str, Outcome] = {}
        self._logits: dict[str, Tensor] = {}
        self._exact_savings = exact_savings
        self._passes = Passes(live, task, numerics, cache_memory if exact_savings else 0, should_stop)
        self._passes.counts = isinstance(objective, Objective) and objective.takes == "numbers"
        self.calibration = Calibration(live, task, numerics, self._passes) if measure_again else None
        self._margins: Tensor | None = None  # of the best model so far, once a threshold test has asked for them
        self._highest = -math.inf
        self._measured_share = 0.0  # of a pass over the held-out data: what measuring statistics took last
        self._tests = False
        self._recording = False
        self._progress = progress or Silent()

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses labels that are none of the model's outputs, before anything is scored.

        Args:
            names: of the sets.

        Raises:
            TaskError: a set has such labels.
        """
        self._passes.feed(HELD_OUT)
        for name in names:
            self._passes.check_labels(name)

    def begin(self) -> Meter:
        """A fresh meter for one strategy; it counts what that strategy alone would have cost."""
        self.meter, self._asked = Meter(), set()
        return self.meter

    def evaluate(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of a merged model on a split.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
        """
        key = self._key(self._content(merged), split)
        if isinstance(merged, Ensemble):
            return self._through(key, split, lambda: self._together(merged, split))
        return self._through(
            key, split, lambda: self._measure(split, lambda: self._load(merged), self._contents(merged))
        )

    def record(self, merged: Merge, split: str = HELD_OUT) -> Outcome:
        """The outcome of record, which tables and verdicts are made of: in fp32, never compiled, with the terms kept.

        Journalled and cached, but no evaluation of a search: it counts towards no budget, and nothing is chosen by it
        but among merges that are ready. Where a search has seen the same it is not made again.

        Args:
            merged: the model.
            split: the set.

        Raises:
            Stopped: the run was interrupted.
        """
        what = self._content(merged)
        if self.of_record(split):
            if split != HELD_OUT:
                return self.evaluate(merged, split)
            known = self._cache.get(self._key(what, split))
            if known is not None:
                return known
        key = self._key(what, split, record=True)
        if key not in self._cache:
            if self.should_stop():
                raise Stopped(StopReason.INTERRUPTED)
            outcome = self.journal.replay(key, split)
            if outcome is None:
                with self._for_record():
                    outcome = self._recorded(merged, split)
            self.journal.write("evaluation", key=key, split=split, record=True, **outcome.to_json())
            self._cache[key] = outcome
        return self._cache[key]

    def of_record(self, split: str = HELD_OUT) -> bool:
        """Whether :meth:`evaluate` gives the outcome of record itself."""
        exact = self.exact or (split == CERTIFY and not self.numerics.compiled)
        return exact and (isinstance(self.objective, WholeModelObjective) or self.objective.counts_hits)

    @property
    def exact(self) -> bool:
        """Whether the passes of a search are made as those of record are: in fp32, and not compiled."""
        return self.numerics.dtype == "float32" and not self.numerics.compiled

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Lets the passes that follow come to their end, also where the run has been asked to stop."""
        before = self.should_stop, self._passes.should_stop
        self.should_stop = self._passes.should_stop = lambda: False
        try:
            yield
        finally:
            self.should_stop, self._passes.should_stop = before

    @contextlib.contextmanager
    def _for_record(self) -> Iterator[None]:
        self._recording = True
        try:
            with self.live.in_fp32(), self._passes.eagerly():
                yield
        finally:
            self._recording = False

    def _recorded(self, merged: Merge, split: str) -> Outcome:
        """A whole pass; within :meth:`_for_record`."""
        began = time.perf_counter()
        if isinstance(merged, Ensemble):
            mixed, passes = self._averaged(merged, lambda member: self._plain_logits(member, split))
            return self._of_logits(mixed, split, float(passes), time.perf_counter() - began)
        self._measured_share = 0.0
        self._load(merged)
        extra = self._measured_share
        outcome = self._scored(split, None)
        return replace(outcome, seconds=time.perf_counter() - began, passes=outcome.passes + extra)

    def _plain_logits(self, recipe: Recipe, split: str) -> Tensor:
        """Logits of a whole split as they are for the record; those of a search in fp32 are the same."""
        plain = self._key(self._content(recipe), split)
        if plain in self._logits and self.exact:
            return self._logits[plain].clone()
        self._load(recipe)
        whole = self.task.split(split)
        return torch.cat([whole.project(found).float().cpu() for found, _ in self._passes.plain(split)])

    def between(self, incumbent: Recipe, candidate: Recipe, mixing: str) -> Callable[[NDArray[np.float64]], Outcome]:
        """The function λ ↦ outcome of the trial mix; cached by the *active* factors, so inert moves cost nothing."""
        ends = [self._content(incumbent), self._content(candidate), mixing]
        if self.calibration is not None:
            ends.append(self.calibration.mark)
        active = list(self.live.partition.active)
        columns = self.live.columns

        def trial(factors: NDArray[np.float64]) -> Outcome:
            key = self._key([*ends, [float(value).hex() for value in factors[active]]], HELD_OUT)

            def mix() -> None:
                self.live.set_ends(incumbent, candidate)
                self.live.trial(factors, mixing)
                self._measure_statistics()

            def content(name: str) -> Any:
                column = columns[name]
                if name in self.statistics:  # they depend on everything
                    return key
                return [*ends, float(factors[column]).hex() if column in active else None]

            return self._through(key, HELD_OUT, lambda: self._measure(HELD_OUT, mix, content))

        return trial

    def exceeds(self, recipe: Recipe, threshold: float) -> Decision:
        """Whether the held-out score is above a threshold; stops once the rest cannot change the answer.

        Samples are visited by the margin that the best model so far had on them, smallest first, where that changes
        no logit (:meth:`Passes.hardest_first`); from the second test on, as the first one asks for margins to be kept.
        Never fills the cache of full outcomes. Exact for decomposable objectives with bounds; a full pass otherwise.
        """
        self._tests = True
        n = len(self.task.held_out)
        known = self._cache.get(self._key(self._content(recipe), HELD_OUT))
        objective = self.objective
        if known is not None or not isinstance(objective, Objective) or not objective.decomposable:
            return Decision((known or self.evaluate(recipe)).score > threshold, n)
        if objective.bounds is None or objective.asks:
            return Decision(self.evaluate(recipe).score > threshold, n)
        self._check_limits(HELD_OUT)
        self._measured_share = 0.0
        self._load(recipe)
        self._pay(self._measured_share)
        order = None if self._margins is None else self._passes.hardest_first(HELD_OUT, self._margins)
        parts: list[Tensor] = []
        seen = 0
        for outputs, labels in self._passes.plain(HELD_OUT, order):
            logits = self.task.held_out.project(outputs)
            parts.append(objective.terms(logits, labels).cpu())
            seen += len(labels)
            if seen < n:
                least, most = (objective.reduce(_padded(parts, n - seen, bound)) for bound in objective.bounds)
                if least > threshold or most <= threshold:
                    break
        self._pay(seen / n)
        score = objective.reduce(_padded(parts, n - seen, objective.bounds[0]))
        return Decision(score > threshold, seen)

    def logits(self, recipe: Recipe, split: str = HELD_OUT) -> Tensor:
        """Logits of a whole split, for its classes: float32 on the CPU, shape ``(N, classes)``.

        The latest are kept, as far as they fit into ``LOGITS_MEMORY``. The outcome that they mean is journalled and
        kept too, so that scoring the same model costs nothing more.
        """
        key = self._key(self._content(recipe), split)
        if key not in self._logits:
            self._check_limits(split)
            began, self._measured_share = time.perf_counter(), 0.0
            with self._precision(split):
                self._load(recipe)
                passes, whole = 1.0 + self._measured_share, self.task.split(split)
                logits = torch.cat([whole.project(found).float().cpu() for found, _ in self._passes.plain(split)])
            self._keep_logits(key, logits)
            if key in self._cache or isinstance(self.objective, WholeModelObjective):
                self._pay(passes if split == HELD_OUT else 0.0)
            else:
                self._through(key, split, lambda: self._of_logits(logits, split, passes, time.perf_counter() - began))
        return self._logits[key].clone()

    def score(self, logits: Tensor) -> float:
        """The objective of given logits of the held-out data; no model runs, and nothing is counted.

        Raises:
            StrategyError: the objective looks at the model itself.
        """
        return self._of_logits(logits, HELD_OUT, 0.0, 0.0).score

    def _keep_logits(self, key: str, logits: Tensor) -> None:
        self._logits[key] = logits
        while len(self._logits) > 1 and sum(kept.nbytes for kept in self._logits.values()) > LOGITS_MEMORY:
            del self._logits[next(iter(self._logits))]

    def _together(self, ensemble: Ensemble, split: str) -> Outcome:
        """The members' outputs, averaged; costs a pass for each member whose logits are not kept."""
        began, passes = time.perf_counter(), 0.0
        if split == HELD_OUT:
            self._progress.stage("outputs of the members", len(ensemble.members))

        def outputs(member: Recipe) -> Tensor:
            nonlocal passes
            passes += self._key(self._content(member), split) not in self._logits
            before = replace(self.total), replace(self.meter)
            part = self.logits(member, split)
            self.total.forward_equivalents, self.meter.forward_equivalents = (m.forward_equivalents for m in before)
            if split == HELD_OUT:
                self._progress.advance()
            return part

        mixed, _ = self._averaged(ensemble, outputs)
        return self._of_logits(mixed, split, passes, time.perf_counter() - began)

    @staticmethod
    def _averaged(ensemble: Ensemble, outputs: Callable[[Recipe], Tensor]) -> tuple[Tensor, int]:
        """The weighted mean of the members' outputs, one member in memory at a time, and how many there are."""
        total: Tensor | None = None
        for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
            part = outputs(member)
            part = part.softmax(1) if ensemble.average == "probabilities" else part
            part = part * (weight / sum(ensemble.weights))
            total = part if total is None else total.add_(part)
        if total is None:
            raise StrategyError("an ensemble has no members")
        return total.log() if ensemble.average == "probabilities" else total, len(ensemble.members)

    def _of_logits(self, logits: Tensor, split: str, passes: float, seconds: float) -> Outcome:
        """What logits of a whole split mean."""
        if isinstance(self.objective, WholeModelObjective):
            raise StrategyError(f"objective '{self.objective.name}' looks at whole models, not at logits")
        check_labels(self.objective, self.task, (split,))
        whole = self.task.split(split)
        labels = whole.labels.cpu()
        terms = self.objective.terms(logits, labels)
        correct = np.packbits(top1(logits, labels).numpy()) if _are_classes(whole, logits) else None
        nan = int(_blank(logits).sum())
        return Outcome(
            score=self._reduced(terms, split),
            samples=len(labels),
            correct=correct,
            seconds=seconds,
            passes=passes,
            nan=nan,
            terms=self._kept(terms),
        )

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels)."""
        labels = self._passes.feed(split).labels
        order = on_device(torch.from_numpy(generator.permutation(len(labels))), labels.device)
        yield from self._passes.batches(split, order, size)

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Cross-entropy on a batch and its derivative by each coefficient.

        ``∂loss/∂coefficients[i, c] = Σ_{t in c} ⟨∂loss/∂θ_t, θ_{i,t}⟩``: one backward pass through the merged model,
        then inner products with the ingredients.

        Args:
            recipe: ``r`` rows, ``m`` components.
            batch: as :meth:`batches` yields them.

        Returns:
            The loss, and float64 of shape ``(r, m)``.
        """
        self._check_limits(HELD_OUT)
        self._check_classes()
        inputs, labels = batch
        module = self.open(recipe)
        loss = torch.nn.functional.cross_entropy(self.task.held_out.project(module(inputs)), labels)
        loss.backward()
        slopes = np.zeros(recipe.coefficients.shape)
        done: set[int] = set()  # tied names are one parameter, whose slope counts once
        for column, component in enumerate(recipe.partition.components):
            for name in component.tensors:
                parameter = self.live.parameters.get(name)
                if parameter is None or parameter.grad is None or id(parameter) in done:
                    continue
                done.add(id(parameter))
                slope = parameter.grad.cpu().double()
                for row, ingredient in enumerate(recipe.ingredients):
                    slopes[row, column] += float((slope * self.live.pool.read(ingredient, name)).sum())
        self.live.module.zero_grad(set_to_none=True)
        self._pay(3.0 * len(labels) / len(self.task.held_out))
        return float(loss.detach()), slopes

    def _check_classes(self) -> None:
        """Refuses a gradient of the cross-entropy where there are no classes.

        Raises:
            StrategyError: the labels are numbers.
        """
        if not self.task.held_out.categorical:
            raise StrategyError(
                "gradients are those of the cross-entropy, and the held-out labels are numbers, not classes; take a "
                "strategy that scores or averages alone, such as greedy, manifoldmix or uniform"
            )

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """Rows that are mixed with coefficients to be learned; every gradient is counted."""
        self._check_classes()

        def count(samples: int) -> None:
            self._check_limits(HELD_OUT)
            self._pay(3.0 * samples / len(self.task.held_out))

        return Blend(
            self.live, rows, batch_norm=bool(self.statistics), project=self.task.held_out.project, on_gradient=count
        )

    def labels(self, split: str = HELD_OUT) -> Tensor:
        """A split's labels, int64 on the CPU."""
        return self.task.split(split).labels.cpu()

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, generator: np.random.Generator, *, sampled: bool
    ) -> dict[str, Tensor]:
        """Mean squared per-sample gradients of the log-likelihood (:func:`merging.forward.fisher.squared_gradients`).

        Args:
            recipe: the model.
            split: the data.
            samples: how many of them, drawn at random; all where there are fewer.
            generator: draws samples and labels.
            sampled: labels come from the model's predictions; otherwise the data's.

        Returns:
            Name → float64 of the parameter's shape, on the CPU.
        """
        self._check_classes()
        feed = self._passes.feed(split)
        chosen = generator.permutation(len(feed.labels))[:samples]
        order = on_device(torch.from_numpy(chosen), feed.labels.device)
        draws = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        with self.live.in_fp32():
            module, total = self.open(recipe), dict[str, Tensor]()
            for inputs, labels in self._passes.batches(split, order):
                self._check_limits(split)

                def label(logits: Tensor, own: Tensor = labels) -> Tensor:
                    if not sampled:
                        return own
                    drawn = torch.multinomial(logits.softmax(1).cpu(), 1, generator=draws)[:, 0]
                    return on_device(drawn, logits.device)

                project = self.task.split(split).project
                for name, found in squared_gradients(module, [inputs], label, self.live.parameters, project).items():
                    total[name] = total[name].add_(found) if name in total else found
        self._pay(4.0 * len(chosen) / len(self.task.held_out))
        by_tensor = {id(self.live.parameters[name]): name for name in total}  # tied names have one gradient
        tied = {n: by_tensor[id(p)] for n, p in self.live.parameters.items() if id(p) in by_tensor}
        return {name: total[source] / len(chosen) for name, source in tied.items()}

    def open(self, recipe: Recipe) -> torch.nn.Module:
        """The module with a recipe's weights, open to autograd until the next evaluation."""
        self.live.load(recipe)
        self.live.open_to_autograd()
        return self.live.module

    def _averages(self, merged: Recipe | Weights) -> bool:
        """Whether its BatchNorm statistics are averages of several models' and are to be measured anew."""
        if not self.statistics or self.statistics <= merged.measured:
            return False
        return isinstance(merged, Weights) or len(merged.names) > 1

    def _load(self, merged: Recipe | Weights) -> None:
        """Puts a merge into the module, its statistics measured where they are averages."""
        self.live.load(merged)
        if self._averages(merged):
            self._measure_statistics()

    @property
    def statistics(self) -> frozenset[str]:
        """Names of the BatchNorm statistics that are measured again for averages."""
        return self.calibration.statistics if self.calibration is not None else frozenset()

    def _mark(self) -> str:
        return self.calibration.mark if self.calibration is not None else ""

    def _measure_statistics(self) -> None:
        if self.calibration is not None and self.calibration.statistics:
            self._measured_share = self.calibration.measure()

    def recalibrated(self, merged: Merge) -> Merge:
        """The same merge with its BatchNorm statistics measured, as overrides; itself where there is nothing to do."""
        if isinstance(merged, Ensemble):
            members = tuple(self.recalibrated(member) for member in merged.members)
            return Ensemble(members, merged.weights, merged.average)  # type: ignore[arg-type]
        if not self._averages(merged):
            return merged
        self._measured_share = 0.0
        with self.live.in_fp32():
            self._load(merged)
            self._pay(self._measured_share)
            state = self.live.module.state_dict()
            found = {n: state[n].detach().cpu().clone().contiguous() for n in sorted(self.statistics)}
        found = {name: in_dtype(t, self.live.pool.tensors[name][1]) for name, t in found.items()}
        if isinstance(merged, Recipe):
            return replace(merged, overrides={**merged.overrides, **found})
        tensors = {**merged.tensors, **found}
        return replace(merged, tensors=tensors, hash=content_hash(tensors), measured=frozenset(found))

    def identity(self, merged: Merge) -> str:
        """The same for merges that give the same logits, whatever the partition, the data and the numerics."""
        return blake3(json.dumps(self._content(merged)).encode()).hexdigest()[:32]

    def _content(self, merged: Merge) -> list[Any]:
        """What decides a merged model's logits, as JSON-ready values."""
        if isinstance(merged, Ensemble):
            pairs = zip(merged.members, merged.weights, strict=True)
            return ["ensemble", merged.average, [[self._content(member), weight.hex()] for member, weight in pairs]]
        if isinstance(merged, Weights):
            return ["weights", merged.hash, *([self._mark()] if self._averages(merged) else [])]
        # Integer tensors come from the first ingredient, whatever its coefficients are.
        what = [merged.key(), merged.ingredients[0].hash if self.live.has_integers else None]
        return [*what, self._mark()] if self._averages(merged) else what

    def _key(self, what: list[Any], split: str, *, record: bool = False) -> str:
        numerics = self.numerics.to_json() | ({"dtype": "float32"} if split == CERTIFY or record else {})
        mark = ["of record"] if record else []
        if record:
            numerics["compiled"] = False
        rules = json.dumps([self.objective.name, self.objective.options(), numerics, *mark], sort_keys=True)
        data = json.dumps([what, self.task.split(split).fingerprint, rules])
        return blake3(data.encode()).hexdigest()[:32]

    def _contents(self, merged: Recipe | Weights) -> Contents:
        """What decides a single tensor of a merged model: its column of coefficients."""
        if isinstance(merged, Weights):
            return lambda name: self._content(merged)
        columns = [[(i.hash, c.hex()) for i, c in merged.terms(k)] for k in range(len(merged.partition))]
        where = {name: k for k, component in enumerate(merged.partition.components) for name in component.tensors}
        first, special = merged.ingredients[0].hash, {*merged.overrides, *self.statistics}
        return lambda name: [columns[where[name]], first, self._content(merged) if name in special else None]

    def _through(self, key: str, split: str, measure: Callable[[], Outcome]) -> Outcome:
        """The door: cache, then journal, then a forward pass."""
        counts = split == HELD_OUT
        outcome = self._cache.get(key)
        if outcome is not None and not self._exact_savings:
            outcome = measure()
            self.total.forward_equivalents += outcome.passes if counts else 0.0
        if outcome is None or key not in self._cache:
            self._check_limits(split)
            outcome = self.journal.replay(key, split) or measure()
            self.journal.write("evaluation", key=key, split=split, **outcome.to_json())
            self._cache[key] = outcome
            if counts:
                self.total.evaluations += 1
                self.total.seconds += outcome.seconds
                self.total.forward_equivalents += outcome.passes
        elif counts:
            self.total.cached += 1
        if counts and key in self._asked:
            self.meter.cached += 1
        elif counts:
            self._asked.add(key)
            self.meter.evaluations += 1
            self.meter.seconds += outcome.seconds
            self.meter.forward_equivalents += outcome.passes
        return outcome

    def _check_limits(self, split: str) -> None:
        if self.should_stop():
            raise Stopped(StopReason.INTERRUPTED)
        if split == HELD_OUT and self.limit is not None and self.total.evaluations >= self.limit:
            raise Stopped(StopReason.LIMIT, limit=self.limit)

    def _pay(self, passes: float) -> None:
        self.total.forward_equivalents += passes
        self.meter.forward_equivalents += passes

    def _measure(self, split: str, mix: Callable[[], None], content: Contents) -> Outcome:
        """A forward pass; in fp32 where it certifies, whatever precision the search runs in."""
        with self._precision(split):
            began, self._measured_share = time.perf_counter(), 0.0
            mix()
            extra = self._measured_share
            outcome = self._scored(split, content)
            return replace(outcome, seconds=time.perf_counter() - began, passes=outcome.passes + extra)

    def _precision(self, split: str) -> contextlib.AbstractContextManager[None]:
        return self.live.in_fp32() if split == CERTIFY else contextlib.nullcontext()

    def _scored(self, split: str, content: Contents | None) -> Outcome:
        if isinstance(self.objective, WholeModelObjective):
            score = self._score(self.objective.measure(self.live.module, _View(self, split)))
            return Outcome(score=score, samples=len(self.task.split(split)), correct=None)
        check_labels(self.objective, self.task, (split,))
        terms, hits, margins, blank = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        whole = self.task.split(split)
        for outputs, labels in self._passes.forward(split, content):
            logits = whole.project(outputs)
            terms.append(self.objective.terms(logits, labels).cpu())
            blank.append(_blank(logits).sum())
            if not _are_classes(whole, logits):
                continue
            hits.append(top1(logits, labels).cpu())
            if self._tests and split == HELD_OUT and not self._recording:
                margins.append(margin(logits, labels))
        joined = torch.cat(terms)
        score = self._reduced(joined, split)
        if margins and score > self._highest:
            self._highest, self._margins = score, torch.cat(margins)
        correct = np.packbits(torch.cat(hits).numpy()) if hits else None
        nan = sum(int(count) for count in blank)  # read from the device once the pass has been made
        return Outcome(
            score=score,
            samples=len(whole),
            correct=correct,
            passes=self._passes.share,
            nan=nan,
            terms=self._kept(joined),
        )

    def _reduced(self, terms: Tensor, split: str) -> float:
        """The score of a whole split's terms."""
        whole, objective = self.task.split(split), self.objective
        if isinstance(objective, WholeModelObjective):
            raise StrategyError(f"objective '{objective.name}' looks at whole models, not at logits")
        return self._score(objective.score(terms, whole.labels.cpu(), whole.groups))

    def _kept(self, terms: Tensor) -> NDArray[Any] | None:
        """Terms of an outcome of record that hits do not say already."""
        if not self._recording or (isinstance(self.objective, Objective) and self.objective.counts_hits):
            return None
        terms = terms.detach().cpu()
        found: NDArray[Any] = (terms.float() if terms.dtype in (torch.bfloat16, torch.float16) else terms).numpy()
        return found

    def _score(self, value: Any) -> float:
        """An objective's score; NaN and infinity are the worst, so that a search walks away from them."""
        try:
            score = float(value)
        except (TypeError, ValueError):
            raise StrategyError(f"objective '{self.objective.name}' returned {value!r}, not a number") from None
        return score if np.isfinite(score) else WORST


class _View:
    """A split as a whole-model objective sees it."""

    def __init__(self, evaluator: Evaluator, split: str) -> None:
        self._evaluator, self._split = evaluator, split

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._evaluator._passes.batches(self._split)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far a sample's own logit is above the highest other one, shape ``(N,)``; negative: wrong."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return (own[:, 0] - others.amax(1)).float()


def _blank(logits: Tensor) -> Tensor:
    """Samples with a NaN among their logits, bool ``(N,)``."""
    return logits.isnan().flatten(1).any(dim=1) if logits.ndim > 1 else logits.isnan()


def _are_classes(split: Split, logits: Tensor) -> bool:
    """Whether a sample can be right or wrong: its label is a class, and the model has an output for each."""
    return split.categorical and logits.ndim == 2 and logits.shape[1] > 1


def _padded(parts: list[Tensor], rest: int, value: float) -> Tensor:
    known = torch.cat(parts)
    return torch.cat([known.double(), torch.full((rest, *known.shape[1:]), value, dtype=torch.float64)])
