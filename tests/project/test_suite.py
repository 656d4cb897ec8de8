"""The suite itself: test data that are named and not there are a failure, not a skip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("named", "ended"), [("nowhere", "1 skipped, 1 error"), ("", "2 skipped")])
def test_lost_data_fail(named: str, ended: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_data.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='MERGING_TEST_DATA does not name the folder')\n"
        "def test_one(): pass\n"
        "@pytest.mark.skipif(True, reason='no GPU')\n"
        "def test_two(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", tmp_path,
         tmp_path],
        cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "MERGING_TEST_DATA": named}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended in done.stdout, done.stdout + done.stderr
