"""A task: the model that checkpoints go into, and the data that scores it. Values only; data/ reads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import TaskError
from merging.moved import by_position
from merging.plugins.arrays import samples, targets
from merging.plugins.sequences import Sequences
from merging.plugins.user_code import called, file_of, kind_of, running
from merging.storage.dtypes import dtype_name
from merging.storage.raw import bytes_of
from merging.values import verdict
from merging.values.shown import Sheet, Shown, grid, named
from merging.values.strata import by_class
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.storage.pool import ModelPool

HELD_OUT = "held-out"
UNLABELLED = "unlabelled"
CERTIFY = "certify"
"""The part of the held-out data that selects nothing and accepts or refuses the result."""


@by_position
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Split(Shown):
    """Samples and their labels, ``N`` of each, as they are kept in memory.

    Attributes:
        inputs: the samples, first dimension N; images that were decoded once are uint8, ``(N, H, W, 3)``; those of a
            language model are :class:`~merging.plugins.sequences.Sequences`.
        labels: int64, shape ``(N,)``, where they are classes; numbers to be met may be floating-point, and vectors.
        fingerprint: content hash; part of every cache key.
        classes: numbers of the model's outputs that stand for each of the set's classes; None where the set's classes
            are the model's. A test set may cover some of the classes, or a class of it may be several of the model's.
        groups: group of each sample, int64, shape ``(N,)``, counting ``group_names``; None where the data name none.
        group_names: names of the groups, sorted.
    """

    inputs: Tensor | Sequences
    labels: Tensor
    fingerprint: str
    classes: tuple[tuple[int, ...], ...] | None = None
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        inputs: Tensor | NDArray[Any] | Sequence[Any] | Sequences,
        labels: Tensor | NDArray[Any] | Sequence[Any],
        classes: Sequence[Sequence[int]] | None = None,
        groups: Sequence[object] | None = None,
    ) -> Split:
        """Makes a split of tensors, arrays or lists, and its fingerprint; leave them as they are from then on.

        Args:
            inputs: the samples, a row for each. Pictures are uint8, ``(N, H, W, 3)``, where the task's ``prepare``
                takes them so. Arrays of float64 become float32, tensors stay as they are.
            labels: classes, as integers of any kind; of arrays and lists also truth values and one-hot rows. Anything
                else is numbers to be met, as are truth values and several columns of a tensor, which stays as it is.
            classes: outputs of the model that stand for each of the set's classes, where these are not the model's.
            groups: a name for each sample, where they are in groups.

        Raises:
            TaskError: no samples, inputs and labels of different length, samples of different shapes, what is no
                number, or a label that is none of the classes.
        """
        import torch
        from blake3 import blake3

        inputs = inputs.checked() if isinstance(inputs, Sequences) else samples(inputs)
        labels = labels if isinstance(labels, torch.Tensor) else targets(labels)
        if len(inputs) == 0:
            raise TaskError("a split is empty; it needs at least one sample")
        if len(inputs) != len(labels):
            raise TaskError(f"{len(inputs)} samples but {len(labels)} labels")
        if isinstance(inputs, Sequences):
            digest = blake3(max_threads=blake3.AUTO)
            inputs.digest_into(digest)
        else:
            digest = blake3(f"{inputs.dtype}{tuple(inputs.shape)}".encode(), max_threads=blake3.AUTO)
            digest.update(bytes_of(inputs).data)
        digest.update(bytes_of(labels).data)
        made = cls(inputs=inputs, labels=labels, fingerprint=digest.hexdigest())
        return made.with_classes(classes).with_groups(groups)

    @classmethod
    def joined(cls, parts: Mapping[str, Split]) -> Split:
        """Several sets as one, each a group of that name; of sequences the shortest come first.

        Labels stay as they are where all sets are of one kind. Documents beside questions have float32 ``(N, 2)``: the
        right choice, −1 of a document; and the number of scored tokens, 0 of a question.

        Args:
            parts: name → set.

        Raises:
            TaskError: samples of several kinds or shapes, or a set with groups or classes of its own.
        """
        import torch

        first, splits = next(iter(parts)), list(parts.values())
        for name, split in parts.items():
            if split.groups is not None or split.classes is not None:
                raise TaskError(f"'{name}' has groups or classes of its own, and cannot be a part of a set")
            ours, theirs = split.inputs, splits[0].inputs
            alike = isinstance(ours, Sequences) == isinstance(theirs, Sequences) and ours.dtype == theirs.dtype
            if not alike or (not isinstance(ours, Sequences) and ours.shape[1:] != theirs.shape[1:]):
                raise TaskError(f"'{first}' and '{name}' hold samples of several kinds; parts of a set are of one")
        names = [name for name, split in parts.items() for _ in range(len(split))]
        labels = [split.labels for split in splits]
        if len({(each.dtype, each.shape[1:]) for each in labels}) > 1:
            if not all(split.counts_tokens or split.categorical for split in splits):
                raise TaskError("the parts of a set have labels of several kinds")
            labels = [_of_both_kinds(split) for split in splits]
        whole = torch.cat(labels)
        if not isinstance(splits[0].inputs, Sequences):
            return cls.of(torch.cat([split.tensor for split in splits]), whole, groups=names)
        rows = Sequences.joined([split.sequences for split in splits])
        order = np.argsort(rows.lengths, kind="stable")
        return cls.of(rows[order], whole[torch.from_numpy(order)], groups=[names[place] for place in order])

    def with_groups(self, groups: Sequence[object] | None) -> Split:
        """The same samples, each in a group: whatever names it, such as a background or a hospital.

        Args:
            groups: a name for each sample (text or a number); None: there are none.

        Raises:
            TaskError: not one for each sample.
        """
        if groups is None:
            return self
        import torch
        from blake3 import blake3

        if not isinstance(groups, Iterable) or isinstance(groups, str | bytes | type):
            raise TaskError(f"groups are {kind_of(groups)}; they are a list with a name for each sample")
        named = [str(value) for value in (groups.tolist() if hasattr(groups, "tolist") else groups)]
        if len(named) != len(self.labels):
            raise TaskError(f"{len(self.labels)} samples but {len(named)} groups; each sample is in one")
        names = tuple(sorted(set(named)))
        place = {name: number for number, name in enumerate(names)}
        numbers = torch.tensor([place[name] for name in named])
        mark = blake3(f"{self.fingerprint}{names}{numbers.tolist()}".encode()).hexdigest()
        return replace(self, groups=numbers, group_names=names, fingerprint=mark)

    def with_classes(self, classes: Sequence[Sequence[int]] | None) -> Split:
        """The same samples, their labels counting these classes.

        Raises:
            TaskError: a class without outputs, or a label that is none of them.
        """
        if classes is None:
            return self
        from blake3 import blake3

        try:
            groups = tuple(tuple(int(output) for output in group) for group in classes)
        except (TypeError, ValueError):
            raise TaskError(
                f"classes of a split are {kind_of(classes)}; they are a list of the outputs of each class, such as "
                "[[0], [1, 2]]"
            ) from None
        if not groups or not all(groups) or min(map(min, groups)) < 0:
            raise TaskError("each class of a set needs at least one output of the model, numbered from 0")
        if int(self.labels.max()) >= len(groups) or int(self.labels.min()) < 0:
            raise TaskError(f"label {int(self.labels.max())} of a set is none of its {len(groups)} classes")
        return replace(self, classes=groups, fingerprint=blake3(f"{self.fingerprint}{groups}".encode()).hexdigest())

    def part(self, index: Tensor) -> Split:
        """Some of the samples, with all that is known of them."""
        groups = None if self.groups is None else [self.group_names[number] for number in self.groups[index]]
        return Split.of(self.inputs[index], self.labels[index], self.classes, groups)

    def project(self, logits: Tensor) -> Tensor:
        """Logits of the model ``(N, outputs)`` → of the set's classes: the largest of each class's outputs.

        Raises:
            TaskError: the model has fewer outputs than the classes name.
        """
        if self.classes is None:
            return logits
        import torch

        if max(map(max, self.classes)) >= logits.shape[1]:
            raise TaskError(f"the set's classes name output {max(map(max, self.classes))} of {logits.shape[1]}")
        width = max(map(len, self.classes))
        table = [[*group, *[group[0]] * (width - len(group))] for group in self.classes]
        return logits[:, torch.tensor(table, device=logits.device)].amax(2)

    @property
    def tensor(self) -> Tensor:
        """The inputs, where every sample is of one shape.

        Raises:
            TaskError: they are sequences, of many lengths.
        """
        if isinstance(self.inputs, Sequences):
            raise TaskError("these samples are rows of tokens of many lengths; this takes samples of one shape")
        return self.inputs

    @property
    def sequences(self) -> Sequences:
        """The inputs, where they are rows of tokens.

        Raises:
            TaskError: every sample is of one shape.
        """
        if not isinstance(self.inputs, Sequences):
            raise TaskError("these samples are of one shape; this takes rows of tokens")
        return self.inputs

    @property
    def counts_tokens(self) -> bool:
        """Whether samples are documents: labels count scored tokens, outputs are log-likelihoods, ``(N, 1)``."""
        return isinstance(self.inputs, Sequences) and self.labels.ndim == 1 and self.labels.is_floating_point()

    def cuts(self, batch: int) -> list[int]:
        """Says where batches begin, and the number of samples.

        Args:
            batch: tokens a batch where the samples are sequences, padding and all; samples a batch elsewhere.
        """
        if isinstance(self.inputs, Sequences):
            return self.inputs.cuts(batch)
        return [*range(0, len(self), batch), len(self)]

    @property
    def categorical(self) -> bool:
        """Whether the labels are classes: one integer a sample. Others are numbers, and nothing is right or wrong."""
        kind = self.labels.dtype
        whole = not (kind.is_floating_point or kind.is_complex) and dtype_name(self.labels) != "bool"
        return self.labels.ndim == 1 and whole

    def _sheet(self) -> Sheet:
        one = " × ".join(map(str, self.inputs.shape[1:])) or "scalar"
        kind = (
            f"inputs {one} {dtype_name(self.inputs)}"
            if not isinstance(self.inputs, Sequences)
            else (f"{self.inputs.numel():,} tokens in {plural(self.inputs.rows, 'row', ',')}, the longest {one}")
        )
        facts = [plural(len(self), "sample", ","), kind]
        facts.append(f"labels {dtype_name(self.labels)}{'' if self.categorical else ', numbers'}")
        facts += [f"{len(self.classes)} classes of its own"] if self.classes is not None else []
        facts += [named(self.group_names, "group")] if self.groups is not None else []
        return Sheet(name="Split", facts=tuple(facts))

    def __len__(self) -> int:
        return len(self.labels)


def _of_both_kinds(split: Split) -> Tensor:
    """Labels of documents or questions, float32 ``(N, 2)``: the right choice or −1, scored tokens or 0."""
    import torch

    labels = split.labels.float()
    other = torch.full_like(labels, -1.0 if split.counts_tokens else 0.0)
    return torch.stack([other, labels] if split.counts_tokens else [labels, other], dim=1)


def identity(batch: Tensor) -> Tensor:
    """Returns the batch unchanged: the ``prepare`` of a task whose inputs are kept as the model takes them."""
    return batch


@by_position
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Task(Shown):
    """A model and the data that score it.

    Attributes:
        name: name of the task in reports.
        build: makes the module, for a pool (whose shapes may say the number of classes) or of nothing; weights are
            replaced.
        held_out: the data by which models and factors are selected; never a test set.
        tests: name → split; the first is in distribution, the others may be ``shifts``.
        shifts: the names in ``tests`` whose scores are averaged as "shifted".
        prepare: turns a batch of ``inputs`` into what the model takes, on the device.
        train: samples for methods that learn, where given.
        unlabelled: samples without labels (all −1), where given: BatchNorm statistics are measured on them where there
            is no training data, and strategies that need no labels may use them.
        pool: opens the task's own pool of checkpoints, where it ships one.
        fresh: makes the module with a head for a number of classes, for checkpoints that have none.
        certify: the part of the held-out data that accepts the result (see :meth:`certified`).
        classes: names of the model's outputs, in order; none: nobody named them.
    """

    name: str
    build: Callable[..., nn.Module]
    held_out: Split
    tests: Mapping[str, Split] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    prepare: Callable[[Tensor], Tensor] = identity
    train: Split | None = None
    pool: Callable[[], ModelPool] | None = None
    certify: Split | None = None
    fresh: Callable[[int], nn.Module] | None = None
    unlabelled: Split | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.build):
            raise TaskError(f"build of a task is {kind_of(self.build)}; it is a function that makes the module")
        object.__setattr__(self, "build", _for_a_pool(self.build))
        if not isinstance(self.tests, Mapping):
            raise TaskError(f"tests of a task are names and their splits, not {kind_of(self.tests)}")
        more = {"train": self.train, UNLABELLED: self.unlabelled, CERTIFY: self.certify}
        given = {name: split for name, split in more.items() if split is not None}
        for name, split in {HELD_OUT: self.held_out, **given, **self.tests}.items():
            if not isinstance(split, Split):
                raise TaskError(
                    f"{name} of a task is {kind_of(split)}, not a Split; make it with Split.of(inputs, labels)"
                )
        for name in self.tests:
            if name in (HELD_OUT, "train", UNLABELLED, CERTIFY):
                raise TaskError(f"a test set cannot be called '{name}': that is the name of another part")
            if name == verdict.Role.AVERAGE or name.endswith(f"({verdict.ACCURACY})"):
                raise TaskError(f"a test set cannot be called '{name}': tables have a column of that name already")
        for name in self.shifts:
            if name not in self.tests:
                raise TaskError(f"shifted set '{name}' is not among the tests: {', '.join(self.tests)}")

    def _sheet(self) -> Sheet:
        more = {"train": self.train, UNLABELLED: self.unlabelled, CERTIFY: self.certify}
        there = {name: split for name, split in more.items() if split is not None}
        sets = {HELD_OUT: self.held_out, **self.tests, **there}
        roles = dict.fromkeys(self.tests, "test") | dict.fromkeys(self.shifts, "test, shifted")
        sizes = [f"{name} {len(split):,}" for name, split in sets.items()]
        known = len(self.classes) or (len(self.held_out.labels.unique()) if self.held_out.categorical else 0)
        count = "" if not known else "1 class" if known == 1 else f"{known:,} classes"
        rows = [[name, len(split), roles.get(name, "")] for name, split in sets.items()]
        classes = (f"classes: {some(self.classes, 20)}",) if self.classes else ()
        return Sheet(
            name="Task",
            facts=(self.name, count, some(sizes, 6)),
            grids=(grid(("set", "samples", ""), rows),),
            notes=classes,
        )

    @property
    def calibrates(self) -> str | None:
        """The split on which statistics of activations are measured: training data, else unlabelled; None: neither."""
        return "train" if self.train is not None else UNLABELLED if self.unlabelled is not None else None

    @property
    def training(self) -> Split:
        """The training data of the task, ``train``.

        Raises:
            TaskError: there is none.
        """
        if self.train is None:
            raise TaskError(f"task '{self.name}' has no training data; give it some (train)")
        return self.train

    def split(self, name: str) -> Split:
        """A split by name: ``held-out``, ``train``, ``unlabelled``, or a test set's.

        Raises:
            TaskError: the task has no such split.
        """
        if name == HELD_OUT:
            return self.held_out
        found = {"train": self.train, UNLABELLED: self.unlabelled, CERTIFY: self.certify}.get(name) or self.tests.get(
            name
        )
        if found is None:
            raise TaskError(f"task '{self.name}' has no split '{name}'; it has {', '.join([HELD_OUT, *self.tests])}")
        return found

    def certified(self, share: float, seed: int) -> Task:
        """The same task with the held-out data in two: one part selects, the other, ``certify``, accepts.

        Samples are drawn at random within each class, so that both parts have the classes in the same proportion
        (to within one sample). Their order is kept.

        Args:
            share: share of the held-out samples that accept, between 0 and 1.
            seed: seed of the draw.

        Raises:
            TaskError: a part would be empty.
        """
        import torch

        labels = self.held_out.labels.cpu().numpy()
        mixed = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
        ordered = by_class(labels, mixed)[0] if labels.ndim == 1 else mixed
        steps = np.floor(np.arange(len(labels) + 1) * share)
        accepts = np.sort(ordered[np.diff(steps) > 0])
        selects = np.setdiff1d(np.arange(len(labels)), accepts)
        if not (len(accepts) and len(selects)):
            raise TaskError(f"`certify_split` {share:g} leaves one part of the {len(labels)} held-out samples empty")
        parts = [self.held_out.part(index) for index in (torch.from_numpy(selects), torch.from_numpy(accepts))]
        return replace(self, held_out=parts[0], certify=parts[1])


def _for_a_pool(build: Callable[..., nn.Module]) -> Callable[[ModelPool], nn.Module]:
    """A function that takes a pool, of one that may take nothing."""
    try:
        takes = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # of C
        return build
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = any(
        each.kind is inspect.Parameter.VAR_POSITIONAL
        or (each.kind in by_place and (each.default is inspect.Parameter.empty or each.name == "pool"))
        for each in takes
    )
    if wanted:
        return build

    @functools.wraps(build, updated=())
    def of_nothing(pool: ModelPool) -> nn.Module:
        del pool
        return build()

    del of_nothing.__wrapped__  # else its signature is the other's
    return of_nothing


def built(task: Task, pool: ModelPool) -> nn.Module:
    """The module that a task builds for a pool.

    Raises:
        PluginError: it fails; one line with the task's name, the error, its file and line.
        TaskError: it returns something else.
    """
    from torch import nn

    return called(f"build of task '{task.name}'", task.build, nn.Module, "an nn.Module", pool)


def fresh(task: Task, classes: int) -> nn.Module | None:
    """The module with a head for a number of classes; None where the task makes none.

    Raises:
        PluginError: it fails; one line with the task's name, the error, its file and line.
        TaskError: it returns something else.
    """
    from torch import nn

    if task.fresh is None:
        return None
    return called(f"fresh of task '{task.name}'", task.fresh, nn.Module, "an nn.Module", classes)


def own_pool(task: Task) -> ModelPool | None:
    """The pool that a task ships; None where it ships none.

    Raises:
        PluginError: it fails; one line with the task's name, the error, its file and line.
        TaskError: it returns something else.
    """
    from merging.storage.pool import ModelPool

    if task.pool is None:
        return None
    return called(f"pool of task '{task.name}'", task.pool, ModelPool, "a ModelPool")


def prepared(task: Task, batch: Tensor) -> Tensor:
    """Turns samples as they are stored into what the model takes, by the task's ``prepare``: a row for each sample.

    Raises:
        TaskError: it fails (one line with the task's name, the error, its file and line), or returns something else.
    """
    import torch

    with running(f"prepare of task '{task.name}'", task.prepare, error=TaskError):
        inputs = task.prepare(batch)
    if not isinstance(inputs, torch.Tensor) or inputs.ndim == 0 or len(inputs) != len(batch):
        raise TaskError(
            f"prepare of task '{task.name}' returned {kind_of(inputs)}, not a tensor with a row for each of "
            f"{len(batch)} samples{file_of(task.prepare)}"
        )
    return inputs
