"""What a worker answers where somebody's code fails: an error in a line, and it stays at work."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from merging.errors import CheckpointError, MergingError
from merging.evaluation.workers.requests import Kind, Message, first_words
from merging.evaluation.workers.worker import Worker
from merging.plugins.user_code import ExitedError, PluginError, exited


def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> MergingError:
    """The error that comes back where a pass raises one; None: where it exits."""

    def failing(asked: Message) -> None:
        if error is None:
            sys.exit(3)
        raise error

    worker = Worker(first_words(tmp_path))
    monkeypatch.setattr(worker, "_done", failing)
    (message,) = worker.answers(pickle.dumps(Message(1, Kind.MEASURE, b"", ())))
    answer = pickle.loads(message)  # noqa: S301
    assert answer.state == "error"
    found: MergingError = pickle.loads(answer.body)  # noqa: S301
    return found


def test_code_that_exits_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered(tmp_path, monkeypatch, None)
    assert isinstance(found, ExitedError)
    assert f"{__file__}:" in str(found)
    assert "called sys.exit(3)" in str(found)


def test_an_error_says_where_it_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered(tmp_path, monkeypatch, ValueError("no\nscore"))
    assert isinstance(found, PluginError)
    assert str(found).startswith(f"a pass on a worker failed: ValueError: no (at {__file__}:")


def test_an_error_of_ours_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered(tmp_path, monkeypatch, CheckpointError("it has changed"))
    assert type(found) is CheckpointError
    assert str(found) == "it has changed"


def test_code_without_a_file_exits_in_a_whole_sentence() -> None:
    """Code of a script or a notebook has none in a worker."""
    assert exited(SystemExit(3)).startswith("code without a file called sys.exit(3)")
