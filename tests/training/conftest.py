"""What several tests of training need."""

from __future__ import annotations

from pathlib import Path

import pytest

from merging.testing import tiny_pool


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What the tiny models were fine-tuned from."""
    tiny_pool(tmp_path / "start", models=1)
    return tmp_path / "start" / "base.safetensors"
