"""The suite itself: data, packages, a browser: what is said to be there, and is not, is a failure and not a skip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("environment", "ended"),
    [
        ({"MERGING_TEST_DATA": "nowhere"}, "3 skipped, 1 error"),
        ({"MERGING_DEV_FULL": "1", "MERGING_BROWSER": "nowhere"}, "2 skipped, 2 errors"),
        ({}, "4 skipped"),
    ],
)
def test_what_is_said_to_be_there_is_not_skipped(environment: dict[str, str], ended: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_data.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='MERGING_TEST_DATA does not name the folder')\n"
        "def test_one(): pass\n"
        "@pytest.mark.skipif(True, reason='no GPU')\n"
        "def test_two(): pass\n"
        "@pytest.mark.skipif(True, reason='pyright is not installed (extra dev-full)')\n"
        "def test_three(): pass\n"
        "@pytest.mark.skipif(True, reason='MERGING_BROWSER names no file')\n"
        "def test_four(): pass\n"
    )
    nothing = {
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        "MERGING_TEST_DATA": "",
        "MERGING_DEV_FULL": "",
        "MERGING_BROWSER": "",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
            tmp_path,
        ],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **nothing, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("asked", "ended"), [(["-m", "gpu"], "2 skipped, 1 deselected"), ([], "2 passed, 1 skipped")])
def test_what_needs_a_gpu_is_skipped_by_name(asked: list[str], ended: str, tmp_path: Path) -> None:
    """What only must pass there too runs everywhere else, unless it was asked for on a GPU."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import device, pytest_runtest_setup\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: must pass on a CUDA device too\n")
    (tmp_path / "test_device.py").write_text(
        "import pytest, torch\n"
        "def test_anywhere(device): assert torch.ones(1, device=device).is_cuda\n"
        "@pytest.mark.gpu\n"
        "def test_here_and_there(): pass\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-ra",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
            *asked,
            tmp_path,
        ],
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended in done.stdout, done.stdout + done.stderr
    assert "there is no CUDA device (make test-gpu on a machine that has one)" in done.stdout
