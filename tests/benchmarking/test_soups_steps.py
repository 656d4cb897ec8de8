"""A step keeps what was measured: records are not written over, and the time of attempts that were killed counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.soups.__main__ import main
from benchmarks.soups.design import PACS, planned
from tests.benchmarking.pools_of_bits import pool

NAME = planned()[0]


def step(tmp_path: Path) -> Result:
    return CliRunner().invoke(main, ["step", NAME, "--output", str(tmp_path / "w"), "--records", str(tmp_path / "r")])


def test_a_record_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    file = replace(pool(NAME, planned()), protocol=PACS.protocol_hash()).write(tmp_path / "r")
    before = file.read_bytes()
    ran = step(tmp_path)
    assert ran.exit_code == 0
    assert f"{NAME}: there already" in ran.output
    assert file.read_bytes() == before
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("said", ["was made under protocol ffffffffffff, and", "is no record; remove it"])
def test_a_record_of_another_protocol_or_of_none_is_not_written_over(tmp_path: Path, said: str) -> None:
    file = replace(pool(NAME, planned()), protocol="f" * 64).write(tmp_path / "r")
    if "no record" in said:
        file.write_bytes(file.read_bytes()[:1000])
    before = file.read_bytes()
    ran = step(tmp_path)
    assert ran.exit_code == 2
    assert said in ran.output
    assert "Traceback" not in ran.output
    assert file.read_bytes() == before
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_seconds_of_an_attempt_that_was_killed_count(tmp_path: Path) -> None:
    """The step itself is killed while its command runs; the next attempt goes on from what it had kept."""
    program = (
        "import sys; from pathlib import Path; from benchmarks.soups import steps; steps.KEPT = 0.1; "
        "steps.sys.executable = sys.argv[2]; steps._timed(Path(sys.argv[1]), 'training', [])"
    )
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    file = tmp_path / "seconds.json"
    running = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(slow)], start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (file.is_file() and json.loads(file.read_text())["training"] >= 0.3):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = json.loads(file.read_text())["training"]
    assert kept >= 0.3
    slow.write_text("#!/bin/sh\nexit 3\n")
    again = subprocess.run([sys.executable, "-c", program, str(tmp_path), str(slow)], check=False)
    assert again.returncode == 3, "the command's own exit code"
    assert json.loads(file.read_text())["training"] >= kept
