"""NumPy's arrays and numbers in a pickle: plain ones are what they were, and no byte of a file becomes a pointer."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.unpickling import load

numpy_core: Any = np._core if hasattr(np, "_core") else np.core  # type: ignore[attr-defined]
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(endianness="?"),
    hnp.byte_string_dtypes(),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


class Says:
    """A pickle that calls a function, and then gives what came of it a state."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.told = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.told


OBJECT = Says(np.dtype, "O", False, True)
RECORD = Says(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0))
"""A dtype whose eight bytes are a pointer, and which says that it has none."""
NUMBER = Says(np.dtype, "f8", False, True, state=(3, "<", None, ("a",), {"a": (OBJECT, 0)}, 8, 8, 0))
POINTER = Says(numpy_core.multiarray.scalar, RECORD, b"A" * 8)


def filled(*state: Any) -> Says:
    return Says(numpy_core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, *state))


def saved(path: Path, what: Any) -> Path:
    torch.save({"w": torch.ones(2), "x": what}, path)
    return path


@settings(max_examples=12)
@given(
    array=hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)), columns=st.booleans()
)
@example(array=np.array("", "U0"), columns=False)
@example(array=np.array(["2026-11-28"], "M8[D]"), columns=False)
def test_plain_arrays_and_numbers_are_what_they_were(array: Any, columns: bool, tmp_path: Path) -> None:
    array = np.asfortranarray(array) if columns else array
    right = [array, *array.ravel()[:1]]
    found, right = load(saved(tmp_path / "x.pt", right))["x"], pickle.loads(pickle.dumps(right))  # noqa: S301 (our own)
    for one, other in zip(found, right, strict=True):
        assert isinstance(one, type(other))
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
        assert one.flags.f_contiguous == other.flags.f_contiguous


@pytest.mark.parametrize(
    "what",
    [
        OBJECT,
        RECORD,
        NUMBER,
        POINTER,
        Says(list, POINTER),  # which followed the pointer as the file was opened
        Says(frozenset, (POINTER,)),
        filled((2,), RECORD, False, b"A" * 16),
        filled((2,), np.dtype("f8"), False, b"A" * 15),
        filled((-2,), np.dtype("f8"), False, b""),
        filled((1 << 40,), np.dtype("f8"), False, b"A" * 8),
        filled((2,), np.dtype("f8"), False, [POINTER, POINTER]),
        filled((1,), np.dtype("U3"), False, b"A" * 11),
        Says(numpy_core.multiarray.scalar, np.dtype("f8"), b"A" * 7),
        np.zeros(2, [("a", "f8"), ("b", "O")]),
        np.array([object], dtype=object),
    ],
)
def test_no_byte_of_a_file_becomes_a_pointer(what: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"values of NumPy that are no plain|wants to run code") as said:
        Checkpoint(saved(tmp_path / "x.pt", what))
    assert len(str(said.value)) < 300 + len(str(tmp_path))


def test_an_array_made_by_its_class_is_empty(tmp_path: Path) -> None:
    """``ndarray((1 << 40,), 'f8')`` takes eight terabytes, where somebody looks at them."""
    found = load(saved(tmp_path / "x.pt", Says(np.ndarray, (1 << 40,), "f8")))["x"]
    assert found.size == 0


def test_a_pickle_before_the_pickle_hides_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path / "good.pt", 1)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    asks = b"\x80\x02}X\x01\x00\x00\x00xcbuiltins\nbytearray\nJ\x00\x00\x00\x10\x85Rs."
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("good/other_data.pkl", b"")
        for name, content in members.items():
            archive.writestr(name, asks if name.endswith("/data.pkl") else content)
    with pytest.raises(CheckpointError, match="holds a bytearray"):
        Checkpoint(tmp_path / "bad.pt")
