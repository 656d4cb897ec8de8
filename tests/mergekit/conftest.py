"""A small Llama in four versions, as transformers saves it, and what mergekit makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.parity_files import write_models

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "outputs.safetensors")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Tensor]) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shapes = {name.partition("/")[2]: tuple(tensor.shape) for name, tensor in golden.items()}
    write_models(folder, GOLDEN / "config.json", shapes)
    return folder
