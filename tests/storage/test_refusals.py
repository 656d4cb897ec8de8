"""What the system or somebody's code refuses is one line of known words, wherever it is said."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.errors import FolderError, raised, reason_of, refused
from merging.storage.atomic import refusals
from merging.storage.folder import check_parent, check_place
from merging.storage.lock import Lock

NUMBERS = sorted(errno.errorcode)


@given(st.sampled_from([ValueError, KeyError, RuntimeError, OSError]), st.text(max_size=80))
def test_what_was_raised_is_one_line_that_begins_with_its_kind(kind: type[Exception], words: str) -> None:
    error = kind(words)
    for said in (raised(error), raised(error, whole=True)):
        assert said.startswith(kind.__name__)
        assert said.isprintable() or not words.isprintable()
        assert "\n" not in said
    if words.isprintable() and words.strip() == words and "  " not in words and words and kind is not KeyError:
        assert raised(error) == raised(error, whole=True) == f"{kind.__name__}: {words}"


@pytest.mark.parametrize("number", NUMBERS)
def test_every_refusal_of_the_system_has_its_words(number: int) -> None:
    words = os.strerror(number)
    with pytest.raises(FolderError) as said, refusals("cannot write to out", "; go away"):
        raise OSError(number, words, "out/file")
    assert str(said.value) == f"cannot write to out: {words}; go away"
    assert said.value.__cause__ is None
    assert words in reason_of(OSError(number, words))


@given(st.text(min_size=1, max_size=20))
def test_a_refusal_without_a_number_is_said_in_its_own_words(words: str) -> None:
    assert "None" not in refused(OSError(words)) or "None" in words


def test_errors_of_our_own_are_said_as_they_are() -> None:
    with pytest.raises(FolderError, match=r"^another run$"), refusals("cannot write"):
        raise FolderError("another run")
    with pytest.raises(KeyError), refusals("cannot write"):
        raise KeyError("a")


@given(parts=st.lists(st.sampled_from(["a", "b", "file", ".", "b c"]), min_size=1, max_size=4))
def test_a_place_for_results(parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a").mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    place = tmp_path.joinpath(*parts)
    names = [part for part in parts if part != "."]
    if names and names[0] == "file":
        with pytest.raises(FolderError, match=r"is a file; name a folder|cannot write to .*file; choose another"):
            check_place(place)
    else:
        check_place(place)
    if place.parent.is_dir():
        check_parent(place, "--plot x.png")
    else:
        with pytest.raises(FolderError, match=rf"^--plot x\.png: there is no folder {re.escape(str(place.parent))}$"):
            check_parent(place, "--plot x.png")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_lock_below_a_file_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=rf"^cannot write to {re.escape(str(tmp_path))}/file: Not a directory$"):
        Lock(tmp_path / "file")
