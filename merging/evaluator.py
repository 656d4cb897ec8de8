"""The evaluator: the one door through which every forward pass goes. Counted, journalled, cached."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor

from merging.errors import Stopped, StrategyError
from merging.interfaces import Objective, WholeModelObjective
from merging.journal import Journal
from merging.live import LiveModel
from merging.numerics import Numerics
from merging.objectives.accuracy import top1
from merging.outcome import Decision, Meter, Outcome
from merging.passes import Contents, Passes
from merging.recipe import Recipe, Weights
from merging.task import CERTIFY, HELD_OUT, Task

CACHE_MEMORY = 1 << 30
"""Bytes for activations of earlier passes, where nothing else is said."""
WORST = -1e300
"""The score of what cannot be scored; finite, so that means and JSON can hold it."""


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
        self._exact_savings = exact_savings
        self._passes = Passes(live, task, numerics, cache_memory if exact_savings else 0, should_stop)
        self._margins: Tensor | None = None  # of the best model so far, once a threshold test has asked for them
        self._highest = -math.inf
        self._tests = False

    def begin(self) -> Meter:
        """A fresh meter for one strategy; it counts what that strategy alone would have cost."""
        self.meter, self._asked = Meter(), set()
        return self.meter

    def evaluate(self, recipe: Recipe | Weights, split: str = HELD_OUT) -> Outcome:
        """The outcome of a merged model on a split.

        Raises:
            Stopped: the run was interrupted or has used up its evaluations.
        """
        key = self._key(self._content(recipe), split)
        return self._through(key, split, lambda: self.live.load(recipe), self._contents(recipe))

    def between(self, incumbent: Recipe, candidate: Recipe, mixing: str) -> Callable[[NDArray[np.float64]], Outcome]:
        """The function λ ↦ outcome of the trial mix; cached by the *active* factors, so inert moves cost nothing."""
        ends = [self._content(incumbent), self._content(candidate), mixing]
        active = list(self.live.partition.active)
        columns = self.live.columns

        def trial(factors: NDArray[np.float64]) -> Outcome:
            key = self._key([*ends, [float(value).hex() for value in factors[active]]], HELD_OUT)

            def mix() -> None:
                self.live.set_ends(incumbent, candidate)
                self.live.trial(factors, mixing)

            def content(name: str) -> Any:
                column = columns[name]
                return [*ends, float(factors[column]).hex() if column in active else None]

            return self._through(key, HELD_OUT, mix, content)

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
        if objective.bounds is None:
            return Decision(self.evaluate(recipe).score > threshold, n)
        self._check_limits(HELD_OUT)
        self.live.load(recipe)
        order = None if self._margins is None else self._passes.hardest_first(HELD_OUT, self._margins)
        parts: list[Tensor] = []
        seen = 0
        for logits, labels in self._passes.plain(HELD_OUT, order):
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
        """Logits of a whole split, float32 on the CPU, shape ``(N, classes)``."""
        self._check_limits(split)
        self.live.load(recipe)
        parts = [logits.float().cpu() for logits, _ in self._passes.plain(split)]
        if split == HELD_OUT:
            self._pay(1.0)
        return torch.cat(parts)

    def batches(self, split: str, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels)."""
        labels = self._passes.feed(split).labels
        yield from self._passes.batches(split, torch.from_numpy(generator.permutation(len(labels))).to(labels.device))

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
        inputs, labels = batch
        module = self.open(recipe)
        loss = torch.nn.functional.cross_entropy(module(inputs), labels)
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

    def open(self, recipe: Recipe) -> torch.nn.Module:
        """The module with a recipe's weights, open to autograd until the next evaluation."""
        self.live.load(recipe)
        self.live.module.zero_grad(set_to_none=True)
        return self.live.module

    def _content(self, merged: Recipe | Weights) -> list[Any]:
        """What decides a merged model's logits, as JSON-ready values."""
        if isinstance(merged, Weights):
            return ["weights", merged.hash]
        # Integer tensors come from the first ingredient, whatever its coefficients are.
        return [merged.key(), merged.ingredients[0].hash if self.live.has_integers else None]

    def _key(self, what: list[Any], split: str) -> str:
        numerics = self.numerics.to_json() | ({"dtype": "float32"} if split == CERTIFY else {})
        rules = json.dumps([self.objective.name, self.objective.options(), numerics], sort_keys=True)
        data = json.dumps([what, self.task.split(split).fingerprint, rules])
        return blake3(data.encode()).hexdigest()[:32]

    def _contents(self, merged: Recipe | Weights) -> Contents:
        """What decides a single tensor of a merged model: its column of coefficients."""
        if isinstance(merged, Weights):
            return lambda name: merged.hash
        columns = [[(i.hash, c.hex()) for i, c in merged.terms(k)] for k in range(len(merged.partition))]
        where = {name: k for k, component in enumerate(merged.partition.components) for name in component.tensors}
        first, special = merged.ingredients[0].hash, merged.overrides
        return lambda name: [columns[where[name]], first, self._content(merged) if name in special else None]

    def _through(self, key: str, split: str, mix: Callable[[], None], content: Contents) -> Outcome:
        """The door: cache, then journal, then a forward pass."""
        counts = split == HELD_OUT
        outcome = self._cache.get(key)
        if outcome is not None and not self._exact_savings:
            outcome = self._measure(split, mix, content)
            self.total.forward_equivalents += outcome.passes if counts else 0.0
        if outcome is None or key not in self._cache:
            self._check_limits(split)
            outcome = self.journal.replay(key, split) or self._measure(split, mix, content)
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
            raise Stopped("interrupted")
        if split == HELD_OUT and self.limit is not None and self.total.evaluations >= self.limit:
            raise Stopped(f"--max-evaluations {self.limit} reached")

    def _pay(self, passes: float) -> None:
        self.total.forward_equivalents += passes
        self.meter.forward_equivalents += passes

    def _measure(self, split: str, mix: Callable[[], None], content: Contents) -> Outcome:
        """A forward pass; in fp32 where it certifies, whatever precision the search runs in."""
        with self.live.in_fp32() if split == CERTIFY else contextlib.nullcontext():
            began = time.perf_counter()
            mix()
            outcome = self._scored(split, content)
            return replace(outcome, seconds=time.perf_counter() - began)

    def _scored(self, split: str, content: Contents) -> Outcome:
        if isinstance(self.objective, WholeModelObjective):
            score = self._score(self.objective.measure(self.live.module, _View(self, split)))
            return Outcome(score, len(self.task.split(split)), None)
        terms, hits, margins = list[Tensor](), list[Tensor](), list[Tensor]()
        for logits, labels in self._passes.forward(split, content):
            terms.append(self.objective.terms(logits, labels).cpu())
            hits.append(top1(logits, labels).cpu())
            if self._tests and split == HELD_OUT:
                margins.append(margin(logits, labels))
        score = self._score(self.objective.reduce(torch.cat(terms)))
        if margins and score > self._highest:
            self._highest, self._margins = score, torch.cat(margins)
        correct = np.packbits(torch.cat(hits).numpy())
        return Outcome(score, len(self.task.split(split)), correct, passes=self._passes.share)

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


def _padded(parts: list[Tensor], rest: int, value: float) -> Tensor:
    known = torch.cat(parts)
    return torch.cat([known.double(), torch.full((rest,), value, dtype=torch.float64)])
