"""What several tests of models need."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pixels import photographs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small photographs."""
    return photographs(tmp_path_factory.mktemp("photographs"), (64, 64))
