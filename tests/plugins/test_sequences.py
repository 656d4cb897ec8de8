"""Rows of tokens as the inputs of a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.errors import TaskError
from merging.plugins.sequences import HEADER, Sequences
from merging.plugins.task import Split


def made(**changes: object) -> Sequences:
    """A document of one row, one of two, and a question with two choices."""
    arrays: dict[str, object] = {
        "tokens": np.array([1, ~2, ~3, 4, ~5, 5, ~6, ~7, ~8, 1, 1, ~2, 1, ~4, ~4], dtype=np.int32),
        "starts": np.array([0, 3, 5, 9, 12, 15]),
        "weights": np.array([1, 1, 1, 0.5, 0.25], dtype=np.float32),
        "slots": np.array([0, 0, 0, 0, 1], dtype=np.int16),
        "samples": np.array([0, 1, 3, 5]),
        "outputs": 2,
        "padding": 9,
    }
    return Sequences(**(arrays | changes))  # type: ignore[arg-type]


def test_a_batch_holds_samples_slots_weights_and_padded_rows() -> None:
    batch = made().collated()
    assert batch.dtype == torch.int32
    assert batch[:, 0].tolist() == [0, 1, 1, 2, 2]
    assert batch[:, 1].tolist() == [0, 0, 0, 0, 1]
    assert batch[:, 2].view(torch.float32).tolist() == [1, 1, 1, 0.5, 0.25]
    assert set(batch[:, 3].tolist()) == {2}
    assert batch[1, HEADER:].tolist() == [4, ~5, 9, 9]
    assert batch[2, HEADER:].tolist() == [5, ~6, ~7, ~8]


@pytest.mark.parametrize(
    ("index", "same"), [(slice(1, 3), [1, 2]), (-1, [2]), (torch.tensor([2, 0]), [2, 0]), (torch.tensor([-2]), [1])]
)
def test_some_samples_are_a_batch_of_their_own(index: object, same: list[int]) -> None:
    whole, part = made(), made()[index]  # type: ignore[index]
    assert part.lengths.tolist() == whole.lengths[same].tolist()
    assert part.scored.tolist() == whole.scored[same].tolist()
    rows = torch.cat([torch.nonzero(whole.collated()[:, 0] == number)[:, 0] for number in same])
    width = part.collated().shape[1]
    assert part.collated()[:, 1:].equal(whole.collated()[rows, 1:width])


def test_a_copied_part_has_the_fingerprint_of_a_view() -> None:
    labels = torch.from_numpy(made().scored.astype(np.float32))
    view, copied = made()[1:], made()[np.array([1, 2])]
    assert Split.of(view, labels[1:]).fingerprint == Split.of(copied, labels[1:]).fingerprint
    assert Split.of(view, labels[1:]).fingerprint != Split.of(made()[:2], labels[:2]).fingerprint


def test_batches_hold_so_many_tokens_and_whole_samples() -> None:
    assert made().cuts(1) == [0, 1, 2, 3]
    assert made().cuts(12) == [0, 2, 3]  # three rows of four
    assert made().cuts(20) == [0, 3]
    split = Split.of(made(), torch.from_numpy(made().scored.astype(np.float32)))
    assert split.cuts(12) == [0, 2, 3]
    assert split.counts_tokens
    assert not split.categorical
    with pytest.raises(TaskError, match="of many lengths"):
        _ = split.tensor


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": np.array([0, 1, 1, 5])}, "without a row"),
        ({"starts": np.array([0, 1, 5, 9, 12, 15])}, "first token of a row is scored"),
        ({"starts": np.array([0, 3, 3, 9, 12, 15])}, "one token at least"),
        ({"outputs": 1}, "adds to output 1 of 1"),
        ({"weights": np.ones(4, dtype=np.float32)}, "do not fit together"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        made(**changes).checked()
