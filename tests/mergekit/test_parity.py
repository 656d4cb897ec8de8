"""`merge run config.yml` against mergekit's results of the same files (``python -m benchmarks.parity_files``)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.parity_files import CONFIGURATIONS
from tests.conftest import Merge

NAMES = sorted(file.stem for file in CONFIGURATIONS.glob("*.yml"))
VARYING = (
    "breadcrumbs-ties-each-its-own",
    "nuslerp",
    "sce-by-depth",
    "slerp-by-depth-and-name",
    "slerp-from-the-second",
    "ties-each-its-own",
    "ties-lambda-by-depth",
)
"""Configurations with a number that varies, and is one here."""


def test_every_configuration_has_a_result(golden: dict[str, Tensor]) -> None:
    assert {name.partition("/")[0] for name in golden} >= set(NAMES)


@pytest.mark.parametrize("name", VARYING)
def test_what_varies_and_is_one_number_here_is_refused(
    name: str, merge: Merge, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    ran = merge("convert", str(CONFIGURATIONS / f"{name}.yml"))
    assert (ran.code, ran.out) == (2, "")
    assert re.search(r"line \d+: .*parameters\.\w+ varies with .*is one value here", ran.err)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in VARYING])
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
