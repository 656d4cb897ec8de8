"""`merge run config.yml` against mergekit's results of the same files (``python -m benchmarks.parity_files``)."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.parity_files import CONFIGURATIONS
from tests.conftest import Merge

NAMES = sorted(file.stem for file in CONFIGURATIONS.glob("*.yml"))


def test_every_configuration_has_a_result(golden: dict[str, Tensor]) -> None:
    assert {name.partition("/")[0] for name in golden} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_as_mergekit(
    name: str, merge: Merge, models: Path, golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(models)
    ran = merge("run", str(CONFIGURATIONS / f"{name}.yml"), "--output", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    found = load_file(tmp_path / "out" / "model.safetensors")
    wanted = {key.partition("/")[2]: tensor for key, tensor in golden.items() if key.startswith(f"{name}/")}
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        limit = 2e-6 if str(tensor.dtype) == "torch.float32" else 2**-8
        apart = (found[key].double() - tensor.double()).abs()
        assert float((apart / tensor.double().abs().clamp(min=1.0)).max()) <= limit, key
