"""Outcomes remembered between commands: a model that was scored once is known to whoever asks next.

What is kept is the whole :class:`~merging.values.outcome.Outcome` of single models, averages and merges that are ready;
never trials that a search makes in place, nor ensembles. Its key is all that decides it (:class:`Remembered`), and what
cannot be keyed with certainty is measured each time. Decisions, recipes and reports are the same with an empty cache,
a full one, and none.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from merging.errors import DAMAGED
from merging.evaluation.keys import Keys
from merging.evaluation.network import Network
from merging.evaluation.own_code import UnsureError
from merging.evaluation.surroundings import surroundings
from merging.forward.recalibration import SAMPLES
from merging.plugins.objective import Objective
from merging.plugins.sequences import Sequences
from merging.plugins.task import CERTIFY, Split
from merging.storage.content import content_hash
from merging.storage.file_hashes import how_told
from merging.storage.raw import bytes_of
from merging.storage.rows import UNREAD
from merging.storage.user_cache import SCORES, Shelf
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

if TYPE_CHECKING:
    from merging.evaluation.scorer import LiveScorer

VERSION = 1
"""Counts the ways of keeping an outcome; another number finds none of the older ones."""


@dataclass(frozen=True)
class Entry:
    """One evaluation, as it is kept.

    Attributes:
        decided: all that decides it, as text.
        found: the outcome that is known, as it was when it was measured; None: there is none.
        reached: names of the statistics that measuring it found to be reached by a pass; None: none were measured.
    """

    decided: str
    found: Outcome | None = None
    reached: frozenset[str] | None = None


class Remembered:
    """The outcomes that earlier commands have kept, for one door to its data.

    The key of an outcome holds: the content of the merge, tensor by tensor (whatever the partition); samples, labels,
    classes and groups, by content; the network and the preparation (:class:`Network`); the objective with its
    options, which must be one of ours; numerics, device, processor, versions and code (:func:`surroundings`); the
    layers whose statistics are measured again, and on which data.

    Args:
        keys: task, objective and numerics, and what is measured again.
        scorer: makes passes with the live model, which is asked what network it is.
    """

    def __init__(self, keys: Keys, scorer: LiveScorer) -> None:
        self.keys, self.scorer = keys, scorer
        self._shelf = Shelf(SCORES)
        self._network = Network(scorer.live, keys.task)
        self._sets: dict[str, str | None] = {}
        self._statistics = sorted(keys.statistics)
        self._ours = _is_ours(keys.objective)

    def of(self, merged: Merge, split: str, *, record: bool = False) -> Recall | None:
        """The memory of one evaluation; None where nothing may be remembered of it.

        Args:
            merged: the model.
            split: the set.
            record: the outcome of record is wanted, not that of a search.
        """
        entry = self._entry(merged, split, record=record)
        if entry is None or isinstance(merged, Ensemble):
            return None
        return Recall(self, entry, merged, split, record=record)

    def knows(self, merged: Merge, split: str, *, record: bool = False) -> bool:
        """Whether an outcome need not be measured."""
        return self.found(merged, split, record=record) is not None

    def found(self, merged: Merge, split: str, *, record: bool = False) -> Outcome | None:
        """The outcome as it was measured; None where it is not known."""
        entry = self._entry(merged, split, record=record)
        return entry.found if entry is not None else None

    def _entry(self, merged: Merge, split: str, *, record: bool) -> Entry | None:
        if not self._ours or isinstance(merged, Ensemble):
            return None
        try:
            return self._look(self._decided(self._content(merged), split, record=record), split)
        except Exception:  # whose model and data it is may raise anything: no score fails for want of a key
            return None

    def keep(self, entry: Entry, outcome: Outcome) -> None:
        """Keeps an outcome that was measured."""
        if entry.found is None and not outcome.failed:
            reached = sorted(self.keys.statistics) if self._statistics else None
            facts = {"decided": entry.decided, "outcome": outcome.to_json(), "reached": reached}
            self._shelf.put(_digest(entry.decided), json.dumps(facts, separators=(",", ":")).encode())

    def keep_written(self, merged: Merge, written: str, split: str) -> None:
        """Keeps a merge's outcome of record for the model that was written too, whose tensors are those that it is of.

        Args:
            merged: a recipe that is complete: no statistics are left to be measured.
            written: content hash of the model, in the dtypes of its ingredients.
            split: the set.
        """
        entry = self._entry(merged, split, record=True)
        if entry is not None and entry.found is not None and isinstance(merged, Recipe) and not self._measures(merged):
            with contextlib.suppress(Exception):
                decided = self._decided(["model", written], split, record=True)
                self.keep(replace(self._look(decided, split), reached=entry.reached), entry.found)

    def _measures(self, merged: Recipe | Weights) -> bool:
        return self.keys.calibration is not None and self.keys.averages(merged)

    def _look(self, decided: str, split: str) -> Entry:
        """What was kept, if it is an outcome for as many samples."""
        content = self._shelf.get(_digest(decided))
        if content is not None:
            try:
                facts = json.loads(content)
                outcome, reached = Outcome.from_json(facts["outcome"]), facts["reached"]
                if facts["decided"] == decided and self._fits(outcome, split):
                    return Entry(decided, outcome, None if reached is None else frozenset(reached))
            except DAMAGED:
                pass
        return Entry(decided)

    def _fits(self, outcome: Outcome, split: str) -> bool:
        samples = len(self.keys.task.split(split))
        bits = outcome.correct is None or len(outcome.correct) == -(-samples // 8)
        terms = outcome.terms is None or len(outcome.terms) == samples
        return outcome.samples == samples and bits and terms and bool(np.isfinite(outcome.score))

    def _decided(self, content: list[Any], split: str, *, record: bool) -> str:
        """All that decides an outcome, as text.

        Where an outcome of record is what a search sees (fp32, not compiled, no terms to keep), both are one.
        """
        numerics = self.keys.numerics
        exact = {"dtype": "float32"} if record or split == CERTIFY else {}
        made = numerics.to_json() | exact | ({"compiled": False} if record else {})
        objective = self.keys.objective
        terms = record and isinstance(objective, Objective) and not objective.counts_hits
        judged = [objective.name, type(objective).__qualname__, objective.options(), terms]
        where = [self._set(split), surroundings(numerics.device)]
        return json.dumps([VERSION, content, where, judged, made], sort_keys=True)

    def _content(self, merged: Recipe | Weights) -> list[Any]:
        """All that decides a merged model's weights, tensor by tensor, and what is measured of them."""
        measured: list[Any] = []
        calibration = self.keys.calibration
        if calibration is not None and self._measures(merged):
            measured = [[self._statistics, self._set(calibration.split), SAMPLES]]
        if isinstance(merged, Weights):
            return ["model", content_hash(merged.tensors), *measured]
        first = merged.ingredients[0].hash if self.scorer.live.has_integers else None
        columns = [[(i.hash, c.hex()) for i, c in merged.terms(k)] for k in range(len(merged.partition))]
        overrides = content_hash(merged.overrides) if merged.overrides else None
        if any(hash.startswith(UNREAD) or not hash for column in columns for hash, _ in column):
            raise UnsureError("an ingredient was not read yet")
        if all(column == columns[0] for column in columns[1:]):
            whole = columns[0]
            if overrides is None and len(whole) == 1 and whole[0][1] == (1.0).hex() and first in (None, whole[0][0]):
                return ["model", whole[0][0], *measured]
            return ["columns", whole, first, overrides, *measured]
        by_tensor = {
            name: column
            for component, column in zip(merged.partition.components, columns, strict=True)
            for name in component.tensors
        }
        return ["columns", sorted(by_tensor.items()), first, overrides, *measured]

    def _set(self, name: str) -> str:
        """A digest of a set and of the network that sees it.

        Raises:
            UnsureError: nobody can say which network it is.
        """
        if name not in self._sets:
            split = self.keys.task.split(name)
            network = self._network_of(split)
            self._sets[name] = None if network is None else f"{data_digest(split)} {network}"
        if (found := self._sets[name]) is None:
            raise UnsureError(name)
        return found

    def _network_of(self, split: Split) -> str | None:
        """The network's digest for a set, found once a command and not for each of many models; None: nobody knows."""
        things = (self.scorer.live.module, self.keys.task, split)
        known = how_told().networks
        key = json.dumps([*map(id, things), self.keys.numerics.to_json()])
        if key not in known:
            try:
                known[key] = things, self._network.digest(split)  # they are kept, so that no others get their ids
            except UnsureError:
                known[key] = things, None
        return known[key][1]


class Recall:
    """The memory of one evaluation (:class:`~merging.evaluation.ledger.Recalling`).

    Args:
        remembered: the memory of all.
        entry: what is kept of this one.
        merged: the model.
        split: the set.
        record: the outcome of record is wanted.
    """

    def __init__(
        self, remembered: Remembered, entry: Entry, merged: Recipe | Weights, split: str, *, record: bool
    ) -> None:
        self._remembered, self._entry = remembered, entry
        self._merged, self._split, self._record = merged, split, record

    def known(self) -> Outcome | None:
        """The outcome that is known, at the cost that its pass would have had now; None where it must be measured."""
        keys, scorer, found = self._remembered.keys, self._remembered.scorer, self._entry.found
        if found is None:
            return None
        measured = keys.calibration is not None and keys.averages(self._merged)
        passes = scorer.skipped(self._merged, self._split, record=self._record)
        if measured and keys.calibration is not None and self._entry.reached is not None:
            keys.calibration.statistics &= self._entry.reached
        return replace(found, passes=passes)

    def keep(self, outcome: Outcome) -> None:
        """Keeps the outcome that was measured."""
        self._remembered.keep(self._entry, outcome)


def data_digest(split: Split) -> str:
    """A digest of all that a set is: samples, labels, classes and groups, by content and not by what it says of itself.

    It is found once a command.
    """
    known = how_told().found
    if id(split) not in known:
        digest = blake3(max_threads=blake3.AUTO)
        if isinstance(split.inputs, Sequences):
            split.inputs.digest_into(digest)
        inputs = () if isinstance(split.inputs, Sequences) else (split.inputs,)
        for tensor in (*inputs, split.labels, *(() if split.groups is None else (split.groups,))):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode()).update(bytes_of(tensor).data)
        digest.update(json.dumps([split.classes, split.group_names]).encode())
        known[id(split)] = split, digest.hexdigest()  # the set is kept, so that no other gets its id
    return known[id(split)][1]


def _is_ours(objective: object) -> bool:
    """Whether an objective's code is this package's, which the key holds: what others' code reads, nobody knows."""
    inside = objective.inside if isinstance(objective, Objective) else ()
    return type(objective).__module__.startswith("merging.objectives.") and all(map(_is_ours, inside))


def _digest(decided: str) -> str:
    return blake3(decided.encode()).hexdigest()[:32]
