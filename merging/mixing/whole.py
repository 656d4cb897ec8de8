"""Computed tensors that are written in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from merging.mixing.output import Output, Piece, check_fits
from merging.storage.dtypes import is_floating
from merging.storage.raw import bytes_of, in_dtype, largest

if TYPE_CHECKING:
    from torch import Tensor


def write_whole(piece: Piece, made: Tensor, strategy: str, output: Output) -> None:
    """Writes a tensor in the dtype that is wanted.

    Raises:
        ResultError: a value is NaN or infinite, or beyond what the dtype holds.
    """
    wanted = output.tensors[piece.name]
    raw = bytes_of(in_dtype(made, wanted[1]))
    if is_floating(wanted[1]) and not _within(made, largest(wanted[1])):
        values = made.double().reshape(-1).numpy()
        check_fits(piece, values, raw, wanted, f"choose other options for '{strategy}'")
    output.write(piece, raw)


def _within(tensor: Tensor, limit: float) -> bool:
    """Whether no element is NaN, or beyond a limit."""
    if not tensor.numel():
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # no extrema of fp8
    low, high = wide.aminmax()
    return -limit <= float(low) and float(high) <= limit
