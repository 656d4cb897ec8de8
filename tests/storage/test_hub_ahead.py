"""Models of the Hub before they are fetched, runs that go on with them, and results that are pushed from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

import merging
from merging.errors import MergingError
from merging.storage.hub import fetching
from merging.storage.sources import place_of
from merging.testing import tiny_pool, tiny_task
from tests.conftest import Merge
from tests.hub_server import GRANTED, Hub, serving

CONFIG = json.dumps({"model_type": "bert"}).encode()


def _weights(seed: int, rows: int = 3) -> bytes:
    drawn = torch.Generator().manual_seed(seed)
    return save({"a.weight": torch.randn(rows, 4, generator=drawn), "a.bias": torch.randn(4, generator=drawn)})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub for this process, with an empty cache."""
    with serving(Hub()) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", GRANTED)
        for name in ("_folders", "_pinned"):
            monkeypatch.setattr(fetching, name, {})
        yield hub


def test_a_look_ahead_fetches_headers_alone(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: Merge
) -> None:
    monkeypatch.setattr("merging.storage.hub.ahead.SMALL", 1000)
    large = {"config.json": CONFIG}
    commits = [
        here.model(f"ours/{name}", {"model.safetensors": _weights(seed, rows), **large})
        for seed, (name, rows) in enumerate({"one": 90_000, "two": 90_000, "three": 80_000}.items())
    ]
    (tmp_path / "own.safetensors").write_bytes(_weights(4, 90_000))
    found = merging.check(["ours/one", "ours/two", str(tmp_path / "own.safetensors")], "uniform")
    assert (found.errors, found.cost, [model.parameters for model in found.models]) == ((), None, [360_004] * 3)
    said = f"2.9 MB of 2 models are not on this machine yet (ours/one@{commits[0][:7]} 1.4 MB"
    assert found.warnings[0].startswith(said)
    ran = merge("run", "ours/one", "ours/two", "--strategy", "uniform", "--dry-run", "--json")
    size = len(_weights(1, 90_000))
    assert json.loads(ran.out)["fetch"][1] == {"model": f"hf-hub:ours/two@{commits[1]}", "bytes": size}
    ran = merge("run", "ours/one", "ours/three", "--strategy", "uniform", "--dry-run")
    assert (ran.code, "tensor 'a.weight' is [80000, 4] in ours/three" in ran.err) == (2, True), ran.err
    ran = merge("check", "ours/one", "ours/three", "--strategy", "uniform")
    assert (ran.code, "tensor 'a.weight'" in ran.err) == (2, True)
    assert not (tmp_path / "cache").exists()
    assert all(wanted == "bytes=0-100000" for wanted in here.ranges)
    monkeypatch.setattr("merging.storage.hub.ahead.SMALL", 1 << 30)
    assert not merging.check(["ours/one", "ours/two"], "uniform").errors, "small ones are fetched, and looked at"


def test_a_branch_that_is_the_commit_still_goes_on(here: Hub, merge: Merge) -> None:
    names = [f"ours/{number}@main" for number in (1, 2)]
    for number, name in enumerate(names):
        here.model(name.partition("@")[0], {"model.safetensors": _weights(number), "config.json": CONFIG})
    ran = merge("run", *names, "--strategy", "uniform", "--output", "out")
    assert ran.code == 0, ran.err
    again = ("run", "--resume", "out", "--models", *names)
    assert merge(*again).code == 0
    here.model("ours/2", {"model.safetensors": _weights(7), "config.json": CONFIG})
    ran = merge(*again)
    assert (ran.code, "cannot be resumed: --models was" in ran.err) == (2, True), ran.err
    made = merging.push("out", "ours/soup")
    assert (made.url, made.removed) == (f"{here.url}/ours/soup", ())
    assert "recipe.json" in here.repositories["ours/soup"].commits[made.commit]
    with pytest.raises(MergingError, match="holds a model already"):
        merging.push(merging.load_run("out"), "ours/soup")
    with pytest.raises(MergingError, match="run is 3; it is a result"):
        merging.push(3, "ours/soup")  # type: ignore[arg-type]


@pytest.mark.slow
def test_records_of_pools_and_benchmarks_name_commits(here: Hub, tmp_path: Path) -> None:
    tiny_pool(tmp_path / "made", models=2)
    names = ("base", "model_0", "model_1")
    ids = {}
    for name in names:
        file = (tmp_path / "made" / f"{name}.safetensors").read_bytes()
        ids[name] = f"hf-hub:ours/{name}@" + here.model(f"ours/{name}", {"model.safetensors": file})
    sweep = merging.Sweep.of({"epochs": 1})
    merging.finetune(tiny_task, tmp_path / "pool", sweep, models=1, base="ours/base", jobs=1)
    assert json.loads((tmp_path / "pool/finetune.json").read_text())["base_of_hub"] == ids["base"]
    pool = merging.ModelPool.open(["ours/model_0", "ours/model_1"], "ours/base")
    merging.benchmark(pool, ["uniform"], task=tiny_task(), output=tmp_path / "bench")
    assert json.loads((tmp_path / "bench/benchmark.json").read_text())["header"]["hub"] == ids


def test_open_clips_weights_are_files_of_the_hub(here: Hub, tmp_path: Path, merge: Merge) -> None:
    """The repository has another library's file, too, which is not meant; the commit and the file are pinned."""
    other = {"model.safetensors": b"x", "open_clip_pytorch_model.bin": b"x"}
    commit = here.model("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", {**other, "open_clip_model.safetensors": _weights(1)})
    several = here.model("ours/several", {"model_0.safetensors": _weights(2), "model_1.safetensors": _weights(3)})
    typed = ("open_clip:ViT-B-32/laion2b_s34b_b79k", "hf-hub:ours/several#model_1.safetensors")
    ran = merge("run", *typed, "--strategy", "uniform", "--output", "out")
    assert ran.code == 0, ran.err
    files = [
        f"hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K@{commit}#open_clip_model.safetensors",
        f"hf-hub:ours/several@{several}#model_1.safetensors",
    ]
    rows = json.loads(Path("out/recipe.json").read_text())["ingredients"]
    assert [row["file"] for row in rows] == files
    assert [row["name"] for row in rows] == ["CLIP-ViT-B-32-laion2B-s34B-b79K", "several"]
    assert merge("apply", "out/recipe.json", "--output", "again.safetensors").code == 0
    assert merge("run", "--resume", "out", "--models", *typed).code == 0
    for text, said in {
        "open_clip:ViT-B-32/laion2b_s34b_b79": "did you mean 'laion2b_s34b_b79k'?",
        "open_clip:ViT-B-3/openai": "did you mean 'ViT-B-32'?",
        "hf-hub:ours/several": "holds 2 checkpoints (model_0.safetensors, model_1.safetensors) and no index; name one",
        "hf-hub:ours/several#model_2.safetensors": "there is no such file; did you mean 'model_1.safetensors'?",
    }.items():
        with pytest.raises(MergingError) as raised:
            place_of(text)
        assert said in str(raised.value)
        assert len(str(raised.value)) < 300
