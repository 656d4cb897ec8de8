"""How a command ends when its terminal, its streams, its plug-ins or its parent do something else than expected."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from merging.cli.asking.signals import stop_on_signal
from merging.cli.showing import streams
from merging.errors import reason_of
from tests.conftest import ENVIRONMENT, TASK, Merge

COMMAND = [sys.executable, "-m", "merging"]


class News:
    """Takes what is said."""

    def print(self, *said: object, **how: object) -> None:
        """Drops it."""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_one_ends(first: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signal(News()) as should_stop:
        assert not should_stop()
        signal.raise_signal(first)
        assert should_stop()
        signal.raise_signal(signal.SIGHUP)  # of the kernel, after the shell's: no second thought
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before
    with stop_on_signal(News()), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(first)  # nothing was begun


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal(News()) as should_stop:
            assert not should_stop()
            signal.raise_signal(signal.SIGHUP)
            assert not should_stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def started(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    return subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, stdout=nowhere, stderr=nowhere)


def until(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_closed_terminal_saves_the_best_so_far(tiny: list[str], tmp_path: Path) -> None:
    journal = tmp_path / "out" / "events.jsonl"
    with started([*tiny, "--budget", "3000", "--output", "out"], tmp_path) as run:
        until(lambda: journal.exists() and b'"decision"' in journal.read_bytes())
        run.send_signal(signal.SIGHUP)
        run.send_signal(signal.SIGHUP)
        assert run.wait(60) == 130
    assert json.loads((tmp_path / "out" / "report.json").read_bytes())["status"] == "interrupted"
    assert (tmp_path / "out" / "model.safetensors").is_file()


ENCODINGS = [
    {"LC_ALL": "en_US.ISO-8859-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "latin-1"},
]
SINKS = [
    "",
    "2>&-",
    ">&-",
    ">&- 2>&-",
    "2>/dev/full",
    ">/dev/full",
    ">/dev/full 2>/dev/full",
    "<&- >&- 2>&-",
    "| head -c 1",
]


def shell(line: str, folder: Path, more: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    clean = {
        key: value
        for key, value in ENVIRONMENT.items()
        if not key.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO"))
    }
    return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, env=clean | more, capture_output=True)


@pytest.mark.slow
@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from(ENCODINGS), st.sampled_from(SINKS))
def test_no_stream_and_no_locale_decides_a_run(
    pool_folder: Path, tmp_path: Path, more: dict[str, str], sink: str
) -> None:
    folder = tmp_path / f"run-{time.monotonic_ns()}"
    folder.mkdir()
    command = f"{sys.executable} -m merging run --models {pool_folder} --strategy uniform"
    done = shell(f"{command} --output 'größe …' {sink}", folder, more)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    (out,) = folder.iterdir()
    assert os.fsencode(out.name) == "größe …".encode()
    assert json.loads((out / "report.json").read_bytes())["status"] == "finished"
    assert load_file(out / "model.safetensors")


@pytest.mark.slow
def test_a_result_that_was_printed_nowhere_is_said(tmp_path: Path) -> None:
    for arguments in ("list", "list --json", "describe ties"):
        done = shell(f"{sys.executable} -m merging {arguments} >/dev/full", tmp_path, {})
        assert done.returncode == 1
        assert b"standard output: No space left" in done.stderr
        assert shell(f"{sys.executable} -m merging {arguments} | head -c 5", tmp_path, {}).returncode == 0
    done = shell(f"{sys.executable} -m merging list --json", tmp_path, {"PYTHONIOENCODING": "ascii"})
    assert "strategy" in json.loads(done.stdout), "JSON's own escapes, where the encoding lacks a character"


@pytest.mark.slow
def test_the_number_of_a_closed_stream_goes_to_no_file(tmp_path: Path) -> None:
    program = (
        "from merging.cli.showing import streams; streams.prepare(); f = open('model', 'w'); import os\n"
        "os.write(2, b'noise of a library'); os.write(1, b'noise'); f.write(str(f.fileno()))"
    )
    done = shell(f'{sys.executable} -c "{program}" <&- >&- 2>&-', tmp_path, {})
    assert done.returncode == 0
    assert int((tmp_path / "model").read_text("utf-8")) > 2


def test_streams_of_a_test_stay_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    streams.prepare()
    assert sys.stdout is before
    assert streams.lost() is None


PLUGIN = """
import os, sys
{at_import}
from dataclasses import dataclass
from merging import MixStrategy, Objective
from merging.plugins.registry import objectives, strategies
@strategies.register("leaves{number}")
@dataclass(frozen=True, kw_only=True)
class Leaves(MixStrategy):
    '''Ends in the middle.'''
    summary = "ends in the middle"
    needs = frozenset({{"objective"}})
    def mix(self, problem):
        ranked = problem.rank()
        {in_mix}
        return problem.mean([ranked[0][0]])
@objectives.register("gone{number}")
@dataclass(frozen=True, kw_only=True)
class Gone(Objective):
    '''Ends while scoring.'''
    summary = "ends while scoring"
    def terms(self, logits, labels):
        {in_terms}
        return (logits.argmax(1) == labels).double()
    def reduce(self, terms):
        return terms.mean().item()
"""
numbers = iter(range(1000))
ENDS = ["sys.exit(0)", "sys.exit()", "raise SystemExit", "quit()", "sys.exit('bye')", "exit(0)"]


def plugin(folder: Path, **code: str) -> tuple[Path, int]:
    number = next(numbers)
    file = folder / f"leaves_{number}.py"
    file.write_text(PLUGIN.format(number=number, **{"at_import": "", "in_mix": "", "in_terms": "", **code}), "utf-8")
    return file, number


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])
@given(
    st.sampled_from(ENDS), st.sampled_from(["at_import", "in_mix", "in_terms"]), st.sampled_from(["run", "benchmark"])
)
def test_a_plugin_that_exits_is_an_error(
    merge: Merge, pool_folder: Path, tmp_path: Path, code: str, place: str, command: str
) -> None:
    file, number = plugin(tmp_path, **{place: code})
    out = tmp_path / f"out-{number}"
    which = ["--strategy"] if command == "run" else ["--strategies"]
    arguments = ["--models", pool_folder / "model_*.safetensors", "--task", TASK, "--output", out, "--plugin", file]
    with contextlib.suppress(OSError):  # quit() closes standard input first
        ran = merge(command, *arguments, *which, f"leaves{number}", "--objective", f"gone{number}")
        if command == "benchmark" and place == "in_mix":  # one method of several: a row says why
            assert f"{file.name}:" in ran.err
            assert "called sys.exit" in ran.err
            return
        assert ran.code not in (0, 130)
        assert [line for line in ran.err.splitlines() if line.startswith("error:")][-1].count(file.name) >= 1
        assert not (out / "report.json").exists()


def test_a_task_or_a_model_that_exits_is_an_error(merge: Merge, pool_folder: Path) -> None:
    Path("leaver.py").write_text("import sys\ndef task(): sys.exit(0)\n", encoding="utf-8")
    Path("leaving.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    for arguments in (
        ["run", "--models", pool_folder, "--task", "python:leaver:task"],
        ["run", "--models", pool_folder, "--task", "python:leaving:task"],
        ["inspect", "--model", "python:leaver:task"],
    ):
        ran = merge(*arguments)
        assert ran.code == 1
        assert "called sys.exit(0)" in ran.err
        assert "leav" in ran.err


@pytest.mark.parametrize("place", ["at_import", "in_mix", "in_terms"])
def test_a_plugin_that_goes_elsewhere_does_not_move_the_result(
    merge: Merge, pool_folder: Path, tmp_path: Path, place: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file, number = plugin(tmp_path, **{place: f"os.chdir({str(elsewhere)!r})"})
    models = ["--models", os.path.relpath(pool_folder), "--task", TASK]
    ran = merge(
        "run",
        *models,
        "--plugin",
        file.name,
        "--strategy",
        f"leaves{number}",
        "--objective",
        f"gone{number}",
        "--output",
        "here",
    )
    assert ran.code == 0, ran.err
    assert (tmp_path / "here" / "model.safetensors").is_file()
    assert not list(elsewhere.iterdir())
    assert Path.cwd() == tmp_path
    ran = merge(
        "benchmark",
        *models,
        "--plugin",
        file.name,
        "--strategies",
        f"leaves{number}",
        "--objective",
        f"gone{number}",
        "--output",
        "benched",
    )
    assert ran.code == 0, ran.err
    assert (tmp_path / "benched" / "benchmark.html").is_file()
    os.chdir(tmp_path)
    assert not list(elsewhere.iterdir())


def test_messages_name_what_failed() -> None:
    assert reason_of(OSError(28, "No space left on device", "/x/y")) == "/x/y: No space left on device; free some space"
    assert "ulimit -n" in reason_of(OSError(24, "Too many open files", "a.pt"))
    assert "a.pt" in reason_of(OSError(24, "Too many open files", "a.pt"))
    assert "memory" in reason_of(MemoryError())
    assert "space" not in reason_of(FileNotFoundError(2, "No such file or directory", "gone.pt"))
