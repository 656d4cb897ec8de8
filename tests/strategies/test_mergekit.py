"""Our merges against mergekit's outputs, which ``python -m benchmarks.parity`` wrote beside its version and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import merging
from benchmarks.parity import CASES, DTYPES, SMALL, WIDE, Case, distribution, write_inputs
from merging.plugins.discovery import load_installed
from merging.plugins.registry import strategies

HERE = Path(__file__).parent / "mergekit"
TIED = {"breadcrumbs": 4, "ties, sum, l1": 14}
"""Entries of a tensor in bfloat16, at the most, that depend on which of equal magnitudes at the cut are kept.

mergekit takes those that its sort puts first, `ties` all of them, `breadcrumbs` the earlier; with l1 the tensor's scale
follows.
"""
DRAWN = [name for name, case in CASES.items() if case.drawn]


def merged(case: Case, folder: Path, seed: int = 0) -> dict[str, Tensor]:
    load_installed()
    base = folder / f"{case.base or 'base'}.safetensors" if "base" in strategies[case.strategy].needs else None
    wants_base = base or (folder / "base.safetensors" if case.options.get("of") == "changes" else None)
    paths = [folder / f"model_{k}.safetensors" for k in range(case.models)]
    return dict(merging.merge(paths, strategies[case.strategy](**case.ours()), base=wants_base, seed=seed).state_dict())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(HERE / "outputs.safetensors")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in CASES if name not in DRAWN])
def test_the_same_as_mergekit(name: str, dtype: str, tmp_path: Path, golden: dict[str, Tensor]) -> None:
    write_inputs(tmp_path / "inputs", SMALL, dtype)
    found = merged(CASES[name], tmp_path / "inputs")
    limit = 2e-6 if dtype == "float32" else 2**-8  # mergekit sums in float32; one unit of bfloat16 where it rounds
    for key in SMALL:
        wanted = golden[f"{dtype}/{name}/{key}"]
        assert found[key].dtype == wanted.dtype
        apart = (found[key].double() - wanted.double()).abs()
        far = int((apart > limit * wanted.double().abs().clamp(min=1.0)).sum())
        assert far <= (TIED.get(name, 0) if dtype == "bfloat16" else 0), (key, far, float(apart.max()))


@pytest.mark.parametrize("name", DRAWN)
def test_distributed_as_mergekit(name: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = json.loads((HERE / "mergekit.json").read_text(encoding="utf-8"))["drawn"][name]
    write_inputs(tmp_path / "inputs", WIDE, "float32")
    first = merged(CASES[name], tmp_path / "inputs")["wide"]
    ours = distribution(first, tmp_path / "inputs", CASES[name])
    assert ours["kept"] == pytest.approx(facts["kept"], abs=0.015)  # four standard errors of 32768 draws
    assert ours["kept_by_rank"] == pytest.approx(facts["kept_by_rank"], abs=0.05)
    assert ours["slope"] == pytest.approx(facts["slope"], rel=0.05)
    assert ours["rest"] == pytest.approx(facts["rest"], rel=0.08)
    assert torch.equal(merged(CASES[name], tmp_path / "inputs")["wide"], first)
    assert not torch.equal(merged(CASES[name], tmp_path / "inputs", seed=1)["wide"], first)


def test_the_golden_files_say_how_they_were_made() -> None:
    facts = json.loads((HERE / "mergekit.json").read_text(encoding="utf-8"))
    assert facts["versions"]["mergekit"]
    assert facts["command"].startswith("mergekit-pytorch ")
    assert set(facts["configs"]) == set(CASES)
