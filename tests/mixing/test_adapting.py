"""Merges written as adapters: what is read back is the merge, exactly or but for what is said to be lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import merging
from merging.errors import OptionError
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from tests.conftest import Merge

GOLDEN = Path(__file__).parents[1] / "storage/adapters"
LINEAR = {
    "vit": ["plain", "patterns", "rooted", "biases"],
    "llama": ["embedding", "saved"],
    "convolutions": ["convolutions", "convolutions-bias"],
}
OTHERS = {"vit": ["plain", "dora"], "gpt2": ["transposed", "transposed-dora"], "convolutions": ["convolutions-dora"]}


def written(base: str, names: list[str], strategy: str, folder: Path, **keywords: Any) -> merging.Result:
    pool = [GOLDEN / "adapters" / name for name in names]
    keywords = {"base": GOLDEN / "bases" / base, "written_as": "adapter"} | keywords
    return merging.merge(pool, strategy, output=folder, **keywords)


def read(folder: Path, base: str) -> dict[str, torch.Tensor]:
    return Checkpoint(folder, base=Checkpoint(GOLDEN / "bases" / base)).load()


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def note(result: merging.Result) -> str:
    (found,) = [each for each in result.report.notes if each.startswith("written as an adapter")]
    return found


@pytest.mark.parametrize("base", LINEAR)
def test_a_linear_merge_of_adapters_is_exact(base: str, tmp_path: Path) -> None:
    """The factors one beside the other, of the sum of the ranks; nothing is decomposed."""
    result = written(base, LINEAR[base], "uniform", tmp_path / "out")
    assert furthest(read(tmp_path / "out", base), result.state_dict()) <= 1e-6
    assert "exact: nothing of the merge is left out" in note(result)
    assert result.report.content_hash == Checkpoint(tmp_path / "out", base=Checkpoint(GOLDEN / "bases" / base)).hash
    assert not (tmp_path / "out/model.safetensors").exists()
    assert not (tmp_path / "out/config.json").exists()


def test_its_rank_is_the_sum_of_the_ranks(tmp_path: Path) -> None:
    written("llama", ["embedding", "saved"], "uniform", tmp_path / "out")
    state = load_file(tmp_path / "out/adapter_model.safetensors")
    assert state["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (3, 16)
    assert state["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"].shape == (16, 2)
    written("vit", ["plain", "patterns"], "uniform", tmp_path / "two")
    state = load_file(tmp_path / "two/adapter_model.safetensors")
    assert state["base_model.model.vit.layers.1.attention.q_proj.lora_A.weight"].shape == (2 + 4, 16)


@pytest.mark.parametrize("base", OTHERS)
@pytest.mark.parametrize("strategy", ["ties", "task-arithmetic"])
def test_other_merges_lose_what_is_said(base: str, strategy: str, tmp_path: Path) -> None:
    """The energy that is lost is the squared distance of the two, as a share of the updates'."""
    result = written(base, OTHERS[base], strategy, tmp_path / "out", rank=2)
    full, found = result.state_dict(), read(tmp_path / "out", base)
    before = load_file(GOLDEN / "bases" / base / "model.safetensors")
    keys = load_file(tmp_path / "out/adapter_model.safetensors")
    lora = [name for name in full if not torch.equal(full[name], before[name]) and full[name].ndim > 1]
    lora = [name for name in lora if not any(key.endswith(name) for key in keys)]
    lost = sum(float((full[name].double() - found[name].double()).square().sum()) for name in lora)
    whole = sum(float((full[name].double() - before[name].double()).square().sum()) for name in lora)
    said = re.search(r"leaves out ([\d.e-]+) % of the updates' energy", note(result))
    assert said is not None
    assert float(said[1]) == pytest.approx(100 * lost / whole, rel=0.06)  # two digits are said
    for name in lora:
        left = torch.linalg.svdvals((full[name].double() - before[name].double()).flatten(1))[2:].square().sum()
        assert float((full[name].double() - found[name].double()).square().sum()) <= 1.001 * float(left) + 1e-9
    large = written(base, OTHERS[base], strategy, tmp_path / "large", rank=64)
    assert furthest(read(tmp_path / "large", base), large.state_dict()) <= 1e-6


def test_full_models_become_an_adapter_of_their_base(tmp_path: Path) -> None:
    """Matrices as updates, norms and heads whole, biases as they are."""
    before = load_file(GOLDEN / "bases/vit/model.safetensors")
    torch.manual_seed(0)
    for number in range(2):
        tuned = {name: x + 0.1 * torch.randn_like(x) if "embeddings" not in name else x for name, x in before.items()}
        save_file(tuned, tmp_path / f"model_{number}.safetensors")
    pool = [tmp_path / "model_0.safetensors", tmp_path / "model_1.safetensors"]
    with pytest.raises(OptionError, match="'model_0' is no plain LoRA, so the merge has no rank of its own"):
        merging.merge(pool, "uniform", base=GOLDEN / "bases/vit", written_as="adapter", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    how: dict[str, Any] = {"base": GOLDEN / "bases/vit", "written_as": "adapter"}
    result = merging.merge(pool, "uniform", output=tmp_path / "out", rank=24, **how)
    assert furthest(read(tmp_path / "out", "vit"), result.state_dict()) <= 1e-6
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert "vit.layers.0.attention.q_proj" in config["target_modules"]  # as transformers calls it in memory
    assert "vit.layernorm" in config["modules_to_save"]
    assert config["bias"] == "all"
    assert config["base_model_name_or_path"] == str(GOLDEN / "bases/vit")


def test_a_head_that_the_base_does_not_have(tmp_path: Path) -> None:
    """A trained head over a backbone without one: it is the adapters' own, in models and in adapters."""
    shutil.copytree(GOLDEN / "bases/vit", tmp_path / "backbone")
    state = load_file(tmp_path / "backbone/model.safetensors")
    body = {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}
    save_file(body, tmp_path / "backbone/model.safetensors")
    for number in range(2):
        shutil.copytree(GOLDEN / "adapters/plain", tmp_path / f"a{number}")
        config = json.loads((tmp_path / f"a{number}/adapter_config.json").read_text())
        config |= {"base_model_name_or_path": "backbone", "lora_alpha": 1 + number}
        (tmp_path / f"a{number}/adapter_config.json").write_text(json.dumps(config))
    pool = [tmp_path / "a0", tmp_path / "a1"]
    result = merging.merge(pool, "uniform", written_as="adapter", output=tmp_path / "out")
    found = Checkpoint(tmp_path / "out", base=Checkpoint(tmp_path / "backbone")).load()
    assert furthest(found, result.state_dict()) <= 1e-6
    assert found.keys() == state.keys()
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["modules_to_save"] == ["classifier"]


def test_what_no_adapter_can_hold_is_refused(tmp_path: Path) -> None:
    """Before any work, and nothing is written."""
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="give it with `base`"):
        merging.merge([GOLDEN / "bases/vit"] * 1, "weighted", written_as="adapter", output=out)
    with pytest.raises(OptionError, match="the strategy is not linear, so the merge has no rank of its own"):
        written("vit", ["plain", "patterns"], "ties", out)
    with pytest.raises(OptionError, match="`rank` is that of an adapter"):
        written("vit", ["plain", "patterns"], "uniform", out, written_as="model", rank=2)
    with pytest.raises(OptionError, match="one file of safetensors"):
        written("vit", ["plain", "patterns"], "uniform", out, format="pt")
    with pytest.raises(OptionError, match="is written to a folder: give `output`"):
        merging.merge(
            [GOLDEN / "adapters/plain", GOLDEN / "adapters/patterns"],
            "uniform",
            base=GOLDEN / "bases/vit",
            written_as="adapter",
        )
    before = load_file(GOLDEN / "bases/convolutions/model.safetensors") | {"scale": torch.ones(1)}
    save_file(before, tmp_path / "base.safetensors")
    for number in range(2):
        save_file(before | {"scale": torch.ones(1) + number}, tmp_path / f"m{number}.safetensors")
    pool = ModelPool([tmp_path / "m0.safetensors", tmp_path / "m1.safetensors"], tmp_path / "base.safetensors")
    with pytest.raises(OptionError, match="'scale' changes and is no part of a module"):
        merging.merge(pool, "uniform", written_as="adapter", rank=2, output=out)
    assert not out.exists()


def test_the_command_line_and_apply(tmp_path: Path, merge: Merge) -> None:
    shutil.copytree(GOLDEN / "bases/vit", "base")
    for name in ("plain", "patterns"):
        shutil.copytree(GOLDEN / "adapters" / name, name)
        config = json.loads(Path(name, "adapter_config.json").read_text()) | {"base_model_name_or_path": "org/vit"}
        Path(name, "adapter_config.json").write_text(json.dumps(config))
    ran = merge(
        "run", "plain", "patterns", "--base", "base", "--strategy", "uniform", "--as", "adapter", "--output", "out"
    )
    assert ran.code == 0, ran.err
    assert "written as an adapter of rank" in ran.out
    assert json.loads(Path("out/adapter_config.json").read_text())["base_model_name_or_path"] == "org/vit"
    assert "PeftModel.from_pretrained" in Path("out/README.md").read_text()
    assert "merge apply out/recipe.json --output adapter --as adapter" in ran.out
    ran = merge("apply", "out/recipe.json", "--output", "adapter", "--as", "adapter")
    assert ran.code == 0, ran.err
    assert Path("adapter/adapter_model.safetensors").read_bytes() == Path("out/adapter_model.safetensors").read_bytes()
    ran = merge("apply", "out", "--as", "adapter", "--rank", "2", "--output", "small")
    assert ran.code == 0, ran.err
    assert "it leaves out" in ran.err
    assert all(
        len(x) == 2
        for key, x in load_file("small/adapter_model.safetensors").items()
        if "lora_A" in key and "fc1" not in key and "v_proj" not in key
    )
    ran = merge("apply", "out", "--as", "adapter", "--output", "small.safetensors")
    assert (ran.code, ran.err.count("error: --as adapter writes a folder")) == (2, 1)
    ran = merge("inspect", "out", "small", "--base", "base")  # an adapter that was written is a model again
    assert ran.code == 0, ran.err
    ran = merge("run", "plain", "patterns", "--base", "base", "--strategy", "ties", "--as", "adapter", "--output", "no")
    assert (ran.code, "give the adapter's --rank" in ran.err) == (2, True)
    assert not Path("no").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_peft_loads_it(tmp_path: Path) -> None:
    """What PEFT makes of it is what is read here."""
    pytest.importorskip("peft", reason="peft is in the extra dev-full")
    from benchmarks import adapters

    for base, names in [*LINEAR.items(), *OTHERS.items()]:
        for strategy, rank in (("ties", 2), ("ties", 32)):
            folder = tmp_path / f"{base}-{names[-1]}-{rank}"
            written(base, names, strategy, folder, rank=rank)
            found = read(folder, base)
            theirs = load_file(GOLDEN / "bases" / base / "model.safetensors")
            theirs |= adapters.merged(base, GOLDEN / "bases", folder, tmp_path / "scratch")
            assert furthest(found, {name: theirs[name] for name in found}) <= 1e-6 * 4
