"""Registered tasks: what they take is read off the function, checked, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import merging
from merging.errors import MergingError, OptionError, TaskError
from merging.plugins.functions import parameters_of
from merging.plugins.options import UNSET
from merging.plugins.registry import tasks
from merging.plugins.task import Task
from merging.tasks.catalogue import load_task, named_task
from merging.tasks.described import described_task
from merging.testing import tiny_task
from tests.conftest import Merge

if TYPE_CHECKING:
    from merging.plugins.progress import Progress


def sized(count: int, share: float = 0.5, data: str | Path | None = None, progress: Progress | None = None) -> Any:
    """A task of so many samples.

    Args:
        count: how many there are; a description that does
            not fit in a line.
        share: of what, ``nobody`` knows.
        data: a file.
        progress: told how far it is.
    """
    assert progress is not None
    assert isinstance(count, int)
    return tiny_task() if share > 0 else None


@pytest.fixture
def registered() -> None:
    tasks.register("sized")(sized)


@pytest.mark.usefixtures("registered")
def test_options_are_read_off_the_function() -> None:
    found = {option.name: option for option in parameters_of(sized)}
    assert list(found) == ["count", "share", "data"]
    assert (found["count"].default, found["share"].default) == (UNSET, 0.5)
    assert found["count"].spec.help == "how many there are; a description that does not fit in a line"
    assert found["share"].spec.help == "of what, nobody knows"
    assert (found["count"].type, found["data"].type) == (int, str | Path | None)
    assert tasks["sized"].summary == "A task of so many samples"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, TaskError, "needs count"),
        ({"count": "many"}, OptionError, "'count' of 'sized' is 'many'"),
        ({"count": 3, "share": [1]}, OptionError, "'share'"),
        ({"count": 3, "sharp": 1}, TaskError, "'sharp' means nothing to the task 'sized'"),
        ({"count": 3, "name": "x"}, TaskError, "'name' means nothing"),
        ({"count": 3, "progress": 1}, TaskError, "'progress' means nothing"),
        ({"count": 3, "share": 0.0}, TaskError, "returned None"),
    ],
)
def test_what_is_given_is_checked(given: dict[str, Any], error: type[MergingError], said: str) -> None:
    with pytest.raises(error, match=said) as refused:
        named_task("sized", given, merging.Silent())
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("registered")
def test_a_table_hands_options_over() -> None:
    assert described_task({"name": "sized", "options": {"count": "4"}}, merging.Silent()).name == "blobs"
    with pytest.raises(TaskError, match="give its name"):
        described_task({"model": "timm:test_resnet", "held_out": "x", "options": {"count": 4}})


def test_a_task_that_fails_is_named() -> None:
    @tasks.register("failing")
    def failing() -> merging.Task:
        """Fails."""
        raise KeyError("lost")

    with pytest.raises(MergingError, match="'failing' failed: KeyError: 'lost'"):
        load_task("failing")


def test_describe_shows_a_task(merge: Merge) -> None:
    Path("mine.py").write_text(
        "import merging\nfrom merging.plugins.registry import tasks\n\n\n@tasks.register('shown', limits='none')\n"
        "def shown(count: int, share: float = 0.5):\n"
        '    """A task to be shown.\n\n    Args:\n        count: how many.\n        share: of all.\n    """\n'
    )
    ran = merge("describe", "shown", "--plugin", "mine.py")
    assert ran.code == 0, ran.err
    for word in ("A task to be shown", "[task] of a merge.toml", "how many", "of all (default 0.5)"):
        assert word in ran.out


@pytest.mark.parametrize("given", [{"held_out": None}, {"tests": [1]}, {"tests": {"one": 3}}, {"train": (1, 2)}])
def test_parts_of_a_task_are_splits(given: dict[str, Any]) -> None:
    known = tiny_task()
    parts = {"name": "mine", "build": known.build, "held_out": known.held_out, **given}
    with pytest.raises(TaskError, match=r"of a task (is|are) "):
        Task(**parts)
