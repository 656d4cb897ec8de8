"""Partitions: disjoint, covering, with ties, frozen and inert marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.errors import PartitionError
from merging.values.partition import Component, Partition

TENSORS = ("a.weight", "a.bias", "b.weight", "b.bias", "c")
PARTITION = Partition.of_groups({"a": TENSORS[:2], "b": TENSORS[2:4], "c": TENSORS[4:]})


def test_overlap_empty_and_repeated_names_are_refused() -> None:
    with pytest.raises(PartitionError, match="'x' is in two components, 'p' and 'q'"):
        Partition((Component("p", ("x",)), Component("q", ("x",))))
    with pytest.raises(PartitionError, match="'p' has no tensors"):
        Partition((Component("p", ()),))
    with pytest.raises(PartitionError, match="two components are called 'p'"):
        Partition((Component("p", ("x",)), Component("p", ("y",))))


def test_of_groups_leaves_empty_groups_out() -> None:
    assert Partition.of_groups({"a": ["x"], "b": []}).names == ("a",)


def test_check_covers_names_what_is_missing_and_what_is_unknown() -> None:
    PARTITION.check_covers(TENSORS)
    with pytest.raises(PartitionError, match="no component covers 'd'"):
        PARTITION.check_covers([*TENSORS, "d"])
    with pytest.raises(PartitionError, match="do not have: 'c'"):
        PARTITION.check_covers(TENSORS[:4])


def test_ties_move_to_the_first_member() -> None:
    tied = PARTITION.with_ties([("a.weight", "c")])
    assert tied.names == ("a", "b")
    assert tied.components[0].tensors == ("a.weight", "a.bias", "c")
    assert "'a'" in tied.notes[0]
    assert PARTITION.with_ties([]) is PARTITION
    tied.check_covers(TENSORS)


def test_frozen_by_component_by_tensor_and_in_part() -> None:
    assert PARTITION.with_frozen([]) is PARTITION
    whole = PARTITION.with_frozen(["^a$"])
    assert [c.frozen for c in whole.components] == [True, False, False]
    part = PARTITION.with_frozen([r"b\.bias"])
    assert part.names == ("a", "b", "b (frozen)", "c")
    assert part.components[2].tensors == ("b.bias",)
    assert [c.frozen for c in part.components] == [False, False, True, False]
    assert part.active == (0, 1, 3)
    part.check_covers(TENSORS)


def test_bad_freeze_patterns_are_refused() -> None:
    with pytest.raises(PartitionError, match="'nothing' matches no component"):
        PARTITION.with_frozen(["a", "nothing"])
    with pytest.raises(PartitionError, match="not a regular expression"):
        PARTITION.with_frozen(["("])


def test_marks_need_every_tensor() -> None:
    marked = PARTITION.with_marks(untouched={"a.weight", "c"}, equal={"b.weight", "b.bias"})
    assert [c.inert for c in marked.components] == [False, False, True]
    assert [c.constant for c in marked.components] == [False, True, False]
    assert marked.active == (0,)


@given(st.permutations(TENSORS), st.lists(st.integers(0, 4), min_size=5, max_size=5), st.data())
def test_freezing_and_tying_keep_the_cover(order: list[str], owners: list[int], data: st.DataObject) -> None:
    groups: dict[str, list[str]] = {}
    for tensor, owner in zip(order, owners, strict=True):
        groups.setdefault(f"g{owner}", []).append(tensor)
    partition = Partition.of_groups(groups)
    tied = data.draw(st.lists(st.sampled_from(order), min_size=2, unique=True))
    frozen = data.draw(st.sampled_from(order))
    result = partition.with_ties([tuple(tied)]).with_frozen([f"^{frozen}$".replace(".", r"\.")])
    result.check_covers(TENSORS)
    assert {c.frozen for c in result.components if frozen in c.tensors} == {True}
