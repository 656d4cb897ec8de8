"""What is left of a Ray ends when the program has ended that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from merging.evaluation.workers import guard

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")


def test_what_is_left_ends(tmp_path: Path) -> None:
    folder, other = tmp_path / "ray-1", tmp_path / "ray-2"
    for made in (folder, other):
        (made / "session").mkdir(parents=True)
    wait = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)",
    ]
    marks = [{guard.MARK: str(folder)}, {guard.MARK: str(folder)}, {guard.MARK: str(other)}, {}]
    left = [subprocess.Popen(wait, env={**os.environ, **mark}, stdout=subprocess.PIPE) for mark in marks]
    watching = subprocess.Popen([sys.executable, str(guard.__file__), str(folder)], stdin=subprocess.PIPE)
    try:
        for each in left:
            assert each.stdout
            each.stdout.readline()
        assert sorted(guard.left_of(str(folder))) == sorted(each.pid for each in left[:2])
        assert watching.poll() is None
        watching.communicate()  # as the end of whoever started it does
        assert [each.wait(5) if n < 2 else each.poll() for n, each in enumerate(left)] == [-9, -9, None, None]
        assert (folder.exists(), other.exists()) == (False, True)
    finally:
        for each in [*left, watching]:
            each.kill()
            each.communicate()
