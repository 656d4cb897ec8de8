"""A weighted sum of objectives, each over the whole set or over one named part of it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from merging.errors import OptionError, TaskError, unknown
from merging.plugins.naming import spelled
from merging.plugins.objective import Objective, terms_of
from merging.plugins.options import option
from merging.plugins.registry import objectives
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT
from merging.values.wording import some

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from merging.plugins.task import Split

FORM = "WEIGHT*[SET:]OBJECTIVE + …, such as 0.5*math:nll + 0.5*code:nll"
_PLUS = re.compile(r"(?<![\d.][eE])\+(?=\s*(?:[\d.]+(?:[eE][+-]?\d+)?|[^:+*]*)\s*\*)")


@dataclass(frozen=True)
class Term:
    """A term of a sum.

    Attributes:
        weight: what its score is multiplied by, above 0.
        part: the part of the set that it scores; empty: all samples.
        said: the objective with its options, as it is written.
        objective: what it scores them by.
    """

    weight: float
    part: str
    said: str
    objective: Objective

    @classmethod
    def of(cls, text: str) -> Term:
        """Reads ``WEIGHT*[SET:]OBJECTIVE``, with options of the objective behind a colon, ``nll:temperature=2``.

        Raises:
            OptionError: it is not written like that, or the objective has no terms, or needs parts of its own.
            UnknownNameError: there is no such objective; the nearest is named.
        """
        weight, star, rest = (each.strip() for each in text.partition("*"))
        if not star or not rest:
            raise OptionError(f"'{text.strip()}' is no term of a weighted sum; write {FORM}")
        try:
            value = float(weight)
        except ValueError:
            raise OptionError(f"weight '{weight}' of '{rest}' is no number; write {FORM}") from None
        if not 0 < value < math.inf:
            raise OptionError(f"weight {weight} of '{rest}' must be a finite number above 0: larger scores are better")
        part, colon, name = (each.strip() for each in rest.partition(":"))
        if not colon or "=" in name.partition(":")[0]:
            part, name = "", rest
        if set(name.partition(":")[0]) & set("*+"):
            raise OptionError(f"'{name}' is no objective of a weighted sum; write {FORM}")
        found: Any = spelled(objectives, name)
        if not isinstance(found, Objective) or isinstance(found, WeightedSum):
            why = "is a sum already" if isinstance(found, WeightedSum) else "looks at whole models"
            raise OptionError(f"objective '{found.name}' {why}; a weighted sum is made of others")
        if part and "groups" in found.asks:
            raise OptionError(f"objective '{found.name}' scores groups, and '{part}' is one of them; leave {part}: out")
        return cls(value, part, name, found)

    def __str__(self) -> str:
        return f"{repr(self.weight).removesuffix('.0')}*{self.named}"

    @property
    def named(self) -> str:
        """The part and the objective, as they are written."""
        return f"{self.part}:{self.said}" if self.part else self.said

    def takes(self, kind: str) -> bool:
        """Whether its objective scores samples of a kind: ``classes``, ``tokens`` or ``numbers``."""
        return self.objective.takes == "any" or kind in self.objective.takes.split(" or ")

    def width(self, kind: str) -> tuple[int, torch.dtype]:
        """Says how many numbers its objective has for each sample of a kind, and of which dtype."""
        known: dict[str, tuple[int, torch.dtype]] = self.__dict__.setdefault("_widths", {})
        if kind not in known:
            import torch

            one = torch.zeros(1, dtype=torch.int64)
            labels = {"classes": one, "tokens": torch.ones(1), "numbers": torch.zeros(1, 2)}[kind]
            made = terms_of(self.objective, torch.zeros(1, 1 if kind == "tokens" else 2), labels)
            known[kind] = made.numel(), made.dtype
        return known[kind]


@objectives.register("weighted-sum")
@dataclass(frozen=True)
class WeightedSum(Objective):
    """A weighted sum of the scores of other objectives, each over all samples or over one named part of them.

    Parts are the names of a set's parts (``held_out = { math = "math.jsonl", code = "code.jsonl" }``), or groups that a
    column names. A set that lacks parts is scored by the terms of those it has; one that has none of them, such as a
    shifted set, by all terms that fit its samples, as if they named no part. The weights of these terms are then scaled
    so that they add up to what all weights do. What is written in place of a name is the sum: ``--objective
    "0.5*math:nll + 0.5*code:nll"``.
    """

    summary: ClassVar[str] = "weighted sum of objectives, each over a named part of the set"
    paper: ClassVar[str] = (
        "the linear scalarisation of several objectives: Miettinen 1999, Nonlinear Multiobjective Optimization, §3.1"
    )
    formula: ClassVar[str] = "score = Σ_t w_t · score_t(samples of part p_t), for weights w_t > 0"
    limits: ClassVar[str] = (
        "Scores of other units are added up as they are: a log-likelihood moves by tenths where an accuracy moves by "
        "thousandths, and weights have to make up for that. No sum of weights finds every trade-off between objectives."
    )
    decomposable: ClassVar[bool] = False

    sum: str = option("0.5*nll + 0.5*accuracy", f"the terms: {FORM}")

    def __post_init__(self) -> None:
        """The name of a sum is how it is written."""
        super().__post_init__()
        if not self.sum.strip():
            raise OptionError(f"a weighted sum has no term; write {FORM}")
        said = " + ".join(map(str, self.parts))
        object.__setattr__(self, "sum", said)  # the terms are the same ones
        object.__setattr__(self, "name", said)

    @functools.cached_property
    def parts(self) -> tuple[Term, ...]:
        """Its terms, in the order in which they are written."""
        return tuple(Term.of(text) for text in _PLUS.split(self.sum))

    @property
    def inside(self) -> tuple[Objective, ...]:
        """The objectives of its terms."""
        return tuple(term.objective for term in self.parts)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """All objectives' terms side by side, float64 ``(N, k)``; zero where a sample is not of their kind."""
        import torch

        columns = []
        for term, kind, width, _ in self._columns(labels):
            places, own = _of_kind(labels, kind)
            made = torch.zeros(len(labels), width, dtype=torch.float64, device=logits.device)
            if len(places):
                outputs = logits[places]
                found = terms_of(term.objective, outputs[:, :1] if kind == "tokens" else outputs, own)
                if found.numel() != made[places].numel():
                    raise OptionError(
                        f"objective '{term.said}' has other numbers of terms for other data; take it alone"
                    )
                made[places] = found.double().reshape(len(places), width)
            columns.append(made)
        return torch.cat(columns, dim=1)

    def reduce(self, terms: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
        """The sum, where parts have no names."""
        return self.score(terms, labels, groups)

    def score(self, terms: Tensor, labels: Tensor, groups: Tensor | None = None, names: Sequence[str] = ()) -> float:
        """Adds up the scores of the terms that a set has samples for.

        Args:
            terms: terms of some samples, on the CPU.
            labels: labels of the same samples, on the CPU.
            groups: parts of the same samples, where the data name any.
            names: names of these parts.

        Raises:
            TaskError: there are samples for none.
        """
        found = self.scores(terms, labels, groups, names)
        if not found:
            raise TaskError(f"objective '{self.name}' has no term for these samples")
        whole = math.fsum(term.weight for term in self.parts)
        there = math.fsum(term.weight for term, _, _ in found)
        scale = 1.0 if len(found) == len(self.parts) else whole / there
        return math.fsum(scale * term.weight * score for term, _, score in found)

    def scores(
        self, terms: Tensor, labels: Tensor, groups: Tensor | None = None, names: Sequence[str] = ()
    ) -> list[tuple[Term, str, float]]:
        """Gives the terms that a set has samples for, their kind and score; arguments are those of :meth:`score`."""
        found, start, here = list[tuple[Term, str, float]](), 0, self._here(names)
        for term, kind, width, dtype in self._columns(labels):
            own = terms[:, start : start + width]
            start += width
            places, theirs = _of_kind(labels, kind)
            if term.part in names and groups is not None:
                inside = groups[places] == names.index(term.part)
                places, theirs = places[inside], theirs[inside]
            if term in here and len(places):
                values = own[places].to(dtype)
                parts = None if groups is None else groups[places]
                score = term.objective.score(values[:, 0] if width == 1 else values, theirs, parts)
                found.append((term, kind, score))
        return found

    def details(self, terms: Tensor, split: Split) -> list[tuple[str, str, float]]:
        """Lists its terms' own scores of a set, each once, by the names they have there.

        A term whose part a set does not have scores all of it, and is called what it scores by alone.
        """
        found = dict[str, tuple[str, float]]()
        for term, kind, score in self.scores(terms, split.labels.cpu(), split.groups, split.group_names):
            named = term.named if term.part in split.group_names else term.said
            found[named] = term.objective.measure_on(tokens=kind == "tokens"), score
        return [(named, *rest) for named, rest in found.items()]

    def check(self, split: Split, name: str) -> None:
        """Refuses a set that its terms cannot score, and a held-out set that lacks one of their parts.

        Raises:
            TaskError: the samples are of another kind, or of two where a term names no part.
            UnknownNameError: a term names a part that the held-out set does not have; the nearest is named.
        """
        names = split.group_names
        for term in self.parts:
            if term.part and term.part not in names and name == HELD_OUT:
                if not names:
                    raise TaskError(
                        f"'{term}' scores the part '{term.part}' of {name}, which has no parts; name them, as in "
                        f'held_out = {{ {term.part} = "PATH", … }}'
                    )
                raise unknown(f"part of {name}:", term.part, names, error=TaskError)
        if isinstance(split.inputs, Sequences) and "numbers" in self._kinds(split.labels):
            raise TaskError(f"objective '{self.name}' scores numbers, but the samples of {name} are texts; take nll")
        fitting = list[Term]()
        for term in self._here(names):
            labels = split.labels
            if term.part in names and split.groups is not None:
                labels = labels[split.groups == names.index(term.part)]
            kinds = [kind for kind in self._kinds(labels) if len(_of_kind(labels, kind)[0])]
            fits = [kind for kind in kinds if term.takes(kind)]
            named = term.part in names
            if len(fits) > 1 or (len(kinds) > 1 and not named):
                raise TaskError(
                    f"'{term}' names no part of {name}, which has documents and questions; name one: {some(names, 5)}"
                )
            if not fits and (named or name == HELD_OUT):
                what = f"part '{term.part}' of {name}" if named else name
                raise TaskError(f"objective '{term.said}' does not score {_SAMPLES[kinds[0]]}, which {what} has")
            if fits and "groups" in term.objective.asks and split.groups is None:
                raise TaskError(f"objective '{term.said}' scores groups, and {name} names none")
            if fits:
                term.width(fits[0])  # which an option may refuse
                fitting.append(term)
        if not fitting:
            raise TaskError(f"no term of '{self.name}' scores the samples of {name}")

    def _here(self, names: Sequence[str]) -> list[Term]:
        """The terms of a set with such parts: all, where it has none of those that terms name."""
        if not {term.part for term in self.parts} & set(names):
            return list(self.parts)
        return [term for term in self.parts if not term.part or term.part in names]

    def _kinds(self, labels: Tensor) -> tuple[str, ...]:
        """The kinds that samples with such labels may be of."""
        if not labels.is_floating_point():
            return ("classes",)
        if all(each.takes in ("numbers", "any") for each in self.inside):
            return ("numbers",)
        return ("tokens",) if labels.ndim == 1 else ("classes", "tokens")

    def _columns(self, labels: Tensor) -> Iterator[tuple[Term, str, int, torch.dtype]]:
        """The terms as they stand side by side: each with a kind of samples, its width and its own dtype."""
        for term in self.parts:
            for kind in self._kinds(labels):
                if term.takes(kind):
                    yield term, kind, *term.width(kind)


_SAMPLES = {"classes": "classes", "tokens": "documents", "numbers": "numbers"}


def _of_kind(labels: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Places of the samples of a kind, and their labels.

    Args:
        labels: of one kind; or of two, ``(N, 2)``: the right choice or −1, the number of scored tokens or 0.
        kind: ``classes``, ``tokens`` or ``numbers``.
    """
    import torch

    if kind == "numbers" or labels.ndim == 1:
        return torch.arange(len(labels), device=labels.device), labels
    if kind == "classes":
        places = (labels[:, 0] >= 0).nonzero()[:, 0]
        return places, labels[places, 0].long()
    places = (labels[:, 0] < 0).nonzero()[:, 0]
    return places, labels[places, 1]
