"""The contract that every form of data keeps, on a small file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from merging.testing import DataFormContract

sys.path.append(str(Path(__file__).parent))
from torch_file import TorchFile


class TestTorchFile(DataFormContract):
    @pytest.fixture
    def plugin(self) -> TorchFile:
        return TorchFile()

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        images = torch.arange(9 * 8 * 8 * 3).reshape(9, 8, 8, 3).to(torch.uint8)
        values = {"images": images, "labels": torch.arange(9) % 3, "classes": ["cat", "dog", "owl"]}
        torch.save(values, tmp_path / "set.pt")
        return str(tmp_path / "set.pt")
