"""Processes that train do not outlive the one that started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merging.testing import tiny_pool
from tests.conftest import ENVIRONMENT, TASK

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")]


def session_of(number: str) -> int | None:
    try:
        state, _, _, session = Path(f"/proc/{number}/stat").read_text("utf-8").rpartition(")")[2].split()[:4]
    except OSError:  # it ended meanwhile
        return None
    return None if state == "Z" else int(session)


def alive(session: int) -> set[int]:
    """Processes of a session, but for those that only wait to be buried."""
    return {
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and session_of(path.name) == session
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGHUP, 130)])
def test_workers_end_with_the_first_process(tmp_path: Path, number: signal.Signals, code: int) -> None:
    tiny_pool(tmp_path / "start", models=1)
    command = [
        "finetune",
        "--base",
        "start/base.safetensors",
        "--task",
        TASK,
        "--jobs",
        "2",
        "--models",
        "2",
        "--set",
        "epochs=100000",
        "--output",
        "pool",
    ]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-m", "merging", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    ) as parent:
        try:
            end = time.monotonic() + 90
            while len(alive(parent.pid)) < 4:  # two workers, and what counts their resources
                assert time.monotonic() < end
                assert parent.poll() is None
                time.sleep(0.05)
            time.sleep(2)  # they have begun to train
            assert len(alive(parent.pid)) >= 4
            if number == signal.SIGHUP:
                os.killpg(parent.pid, number)  # as a terminal does that is closed
            else:
                parent.kill()
            assert parent.wait(30) == code
            end = time.monotonic() + 20
            while alive(parent.pid):
                assert time.monotonic() < end, "they train on, for nobody"
                time.sleep(0.05)
        finally:
            for left in alive(parent.pid):
                os.kill(left, signal.SIGKILL)
