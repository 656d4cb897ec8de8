"""LoRA folders of PEFT over a base are checkpoints: what PEFT makes of them, lazily, in every method."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.errors import CheckpointError, RecipeError
from merging.running.applying import apply
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from merging.storage.low_rank import LowRank
from merging.storage.pool import ModelPool
from merging.storage.result import read_recipe
from tests.conftest import Merge

GOLDEN = Path(__file__).parent / "adapters"
ADAPTERS = sorted(path.name for path in (GOLDEN / "adapters").iterdir())
NAMES_OF_FILES = {  # names in memory → names in files, as transformers 5 gives them
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
}


def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def change(folder: Path, **values: Any) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(said(folder) | values))


def base_of(folder: Path) -> Path:
    return GOLDEN / "bases" / str(said(folder)["base_model_name_or_path"])


def opened(name: str) -> Checkpoint:
    folder = GOLDEN / "adapters" / name
    return Checkpoint(folder, base=Checkpoint(base_of(folder)))


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., list[Path]]:
    """Copies adapters, and the first one's base beside them as ``base``."""

    def copy(*names: str) -> list[Path]:
        shutil.copytree(base_of(GOLDEN / "adapters" / names[0]), tmp_path / "base")
        for name in names:
            shutil.copytree(GOLDEN / "adapters" / name, tmp_path / name)
            (tmp_path / name / "merged.golden").unlink()
            change(tmp_path / name, base_model_name_or_path="base")
        return [tmp_path / name for name in names]

    return copy


def same(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found.double(), wanted.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_is_what_peft_makes_of_it(name: str) -> None:
    """``merge_and_unload`` of the version in made.json, tensor by tensor."""
    checkpoint = opened(name)
    folder = GOLDEN / "adapters" / name
    wanted = load_file(base_of(folder) / "model.safetensors") | load_file(folder / "merged.golden")
    found = checkpoint.load()
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not same(found[key], wanted[key])] == []
    assert [key for key in wanted if found[key].dtype != wanted[key].dtype] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_is_what_the_installed_peft_makes_of_it(tmp_path: Path) -> None:
    """The same, with adapters that are made now."""
    pytest.importorskip("peft", reason="peft is in the extra dev-full")
    from benchmarks import adapters

    adapters.main(tmp_path)
    for name, (base, _) in adapters.ADAPTERS.items():
        folder = tmp_path / "adapters" / name
        found = Checkpoint(folder, base=Checkpoint(tmp_path / "bases" / base)).load()
        for key, tensor in load_file(folder / "merged.golden").items():
            assert same(found[key], tensor), (name, key)


@pytest.mark.parametrize("name", ["patterns", "rooted", "dora", "transposed-dora"])
def test_it_is_base_and_product_in_float64(name: str) -> None:
    """The formulas of the papers, written down again; every update within 1e-6, most of them to the last bit."""
    folder = GOLDEN / "adapters" / name
    config, own = said(folder), load_file(folder / "adapter_model.safetensors")
    base, checkpoint = load_file(base_of(folder) / "model.safetensors"), opened(name)
    seen = 0
    for key, b in own.items():
        if not key.endswith("lora_B.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        a = own[key.replace("lora_B", "lora_A")].double()
        rank, alpha = len(a), config["lora_alpha"]
        if name == "patterns" and module == "vit.layers.0.attention.v_proj":
            alpha = 9
        scale = alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank
        update = scale * (b.double().flatten(1) @ a.flatten(1))
        stored = module
        for memory, file in NAMES_OF_FILES.items():
            stored = stored.replace(memory, file)
        shape, weight = base[f"{stored}.weight"].shape, base[f"{stored}.weight"].double().flatten(1)
        weight = (weight.T if config["fan_in_fan_out"] else weight) + update
        if config["use_dora"]:
            lengths = own[key.replace("lora_B.weight", "lora_magnitude_vector")].double().flatten()
            weight = weight * (lengths / weight.norm(dim=1))[:, None]
        weight = weight.T if config["fan_in_fan_out"] else weight
        found = checkpoint.read(f"{stored}.weight").double()
        assert found.shape == shape
        assert (found.flatten(1) - weight).abs().max() <= 1e-6 * weight.abs().max(), module
        assert (found.flatten(1) == weight.float().double()).double().mean() > 0.99
        seen += 1
    assert seen == {"patterns": 6, "rooted": 3, "dora": 3, "transposed-dora": 2}[name]


def test_a_product_has_its_bits_whatever_adds_it_up() -> None:
    generator = np.random.default_rng(0)
    left = (generator.normal(size=(40, 70)) * 10.0 ** generator.integers(-6, 6, size=(40, 70))).astype(np.float32)
    right = generator.normal(size=(70, 30)).astype(np.float32)
    product = LowRank.of(left, right)
    whole = product.rows(0, 40)
    order = generator.permutation(70)
    assert np.array_equal(LowRank.of(left[:, order], right[order]).rows(0, 40), whole)
    assert np.array_equal(np.concatenate([product.rows(k, k + 1) for k in range(40)]), whole)
    for i, j in [(0, 0), (7, 3), (39, 29)]:
        exact = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(left[i], right[:, j], strict=True))
        largest = float(np.abs(left[i]).max() * np.abs(right[:, j]).max())
        assert abs(float(exact - Fraction(float(whole[i, j])))) <= 70 * 2.0**-44 * largest
    assert not np.isfinite(LowRank.of(np.array([[np.nan]]), np.array([[1.0]])).rows(0, 1)).any()


_PRODUCT = """
import hashlib, numpy, merging.storage.low_rank
draw = numpy.random.default_rng(0).normal
left, right = draw(size=(700, 64)).astype("float32"), draw(size=(64, 900)).astype("float32")
print(hashlib.sha256(merging.storage.low_rank.LowRank.of(left, right).rows(0, 700)).hexdigest())
"""


def test_processors_and_threads_do_not_decide_bits() -> None:
    """OpenBLAS can be told to compute as other processors do; a plain product has other bits then."""
    found = set()
    for told in ({}, {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "2"}):
        ran = subprocess.run(
            [sys.executable, "-c", _PRODUCT], env=os.environ | told, capture_output=True, encoding="utf-8", check=True
        )
        found.add(ran.stdout)
    assert len(found) == 1


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    """Over a base in bfloat16: base + s·B·A in float64, rounded to bfloat16; no other error is added."""
    folder = GOLDEN / "adapters/transposed"
    base = {name: x.bfloat16() for name, x in load_file(base_of(folder) / "model.safetensors").items()}
    save_file(base, tmp_path / "base.safetensors")
    checkpoint = Checkpoint(folder, base=Checkpoint(tmp_path / "base.safetensors"))
    own = checkpoint.adapted
    assert own is not None
    for name in own.changes:
        factors = own.factors(name)
        assert factors is not None
        exact = base[name].double() + torch.from_numpy(factors[0] @ factors[1])
        assert checkpoint.read(name).dtype == torch.bfloat16
        assert torch.equal(checkpoint.read(name), exact.bfloat16())


@pytest.mark.parametrize("name", ["dora", "transposed-dora", "saved", "biases", "convolutions", "tokens"])
def test_any_bytes_of_it_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.storage.adapted.BLOCK", 50)  # a few rows at a time
    checkpoint = opened(name)
    assert checkpoint.adapted is not None
    for key in checkpoint.adapted.changes:
        whole = checkpoint.read(key).contiguous().view(torch.uint8).numpy().reshape(-1)
        for begin, end in [(0, len(whole)), (4, len(whole)), (len(whole) // 8 * 4, len(whole)), (8, 12)]:
            part = np.empty(max(end - begin, 0), np.uint8)
            checkpoint.read_bytes(key, begin, part.data)
            assert np.array_equal(part, whole[begin:end]), (key, begin, end)


def test_its_hash_is_that_of_the_full_model(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    (folder,) = copied("dora")
    checkpoint = Checkpoint(folder)
    assert checkpoint.hash == content_hash(checkpoint.load())
    assert checkpoint.hash != Checkpoint(tmp_path / "base").hash
    change(folder, lora_alpha=9)
    assert Checkpoint(folder).hash != checkpoint.hash
    with pytest.raises(CheckpointError, match="has changed since"):
        checkpoint.check_unchanged()


@pytest.mark.parametrize(
    "file", ["plain/adapter_model.safetensors", "plain/adapter_config.json", "base/model.safetensors"]
)
def test_a_remembered_hash_is_of_all_its_files(
    file: str, copied: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = copied("plain")
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MERGING_REMEMBER", "1")
    monkeypatch.setattr("merging.storage.file_hashes.SETTLED", 0)
    first = Checkpoint(folder).hash
    place = tmp_path / file
    if place.suffix == ".json":
        change(folder, lora_alpha=7)
    else:
        save_file({name: tensor + 1 for name, tensor in load_file(place).items()}, place)
    assert Checkpoint(folder).hash != first


def test_pools_of_unequal_rank_merge_and_are_rebuilt(
    copied: Callable[..., list[Path]], tmp_path: Path, merge: Merge
) -> None:
    """Rank 2 and ranks 1 to 4, with and without a trained head; a recipe reopens them over their base."""
    folders = copied("plain", "patterns", "rooted")
    for strategy in ("uniform", "task-arithmetic", "ties"):
        ran = merge("run", *folders, "--base", tmp_path / "base", "--strategy", strategy, "--output", strategy)
        assert ran.code == 0, ran.err
    assert "LoRA adapter of rank 1 to 4 over" in " ".join(ran.out.split())
    pool = ModelPool(folders, tmp_path / "base")
    mean = sum(checkpoint.load()["classifier.weight"].double() for checkpoint in pool.checkpoints) / 3
    assert torch.equal(load_file("uniform/model.safetensors")["classifier.weight"], mean.float())
    recipe = read_recipe(Path("uniform"))
    assert {row.base for row in recipe.ingredients} == {str(tmp_path / "base")}
    again = merge("apply", "uniform", "--output", "again.safetensors")
    assert again.code == 0, again.err
    assert Checkpoint(tmp_path / "again.safetensors").hash == Checkpoint(tmp_path / "uniform").hash
    assert (tmp_path / "uniform/config.json").read_text() == (tmp_path / "base/config.json").read_text()
    shutil.move(tmp_path / "base", tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match=r"the base of adapter '\w+' is no longer at"):
        apply(recipe, output=tmp_path / "gone.safetensors")
    given = ModelPool(folders, tmp_path / "elsewhere")
    assert (
        apply(recipe, models=given, output=tmp_path / "other.safetensors").hash == Checkpoint("again.safetensors").hash
    )


def test_the_looking_commands_say_that_it_is_an_adapter(copied: Callable[..., list[Path]], merge: Merge) -> None:
    folders = copied("plain", "dora")
    ran = merge("inspect", *folders)
    assert ran.code == 0, ran.err
    assert "LoRA adapter of rank 2 over" in " ".join(ran.out.split())
    assert "DoRA adapter of rank 3 over" in " ".join(ran.out.split())
    ran = merge("check", *folders, "--base", "base", "--strategy", "uniform")
    assert ran.code == 0, ran.err
    assert "linear probe" not in ran.out + ran.err
    assert "LoRA, rank 2" in ran.out
    assert "DoRA, rank 3" in ran.out
    assert "DoRA, rank 3" in repr(Checkpoint(folders[1]))


def test_a_base_in_memory(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    (folder,) = copied("transposed")
    pool = ModelPool([folder], load_file(tmp_path / "base/model.safetensors"))
    assert pool.checkpoints[0].hash == Checkpoint(folder).hash
    assert pool.base is not None
    assert pool.base.in_memory


def test_the_file_of_an_adapter_is_the_adapter(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    copied("plain", "patterns")
    pool = ModelPool([tmp_path / "p*/adapter_model.safetensors"])
    assert pool.names == ("patterns/adapter_model", "plain/adapter_model")
    assert all(checkpoint.adapted is not None for checkpoint in pool.checkpoints)


def test_tied_tensors_stay_one(tmp_path: Path) -> None:
    """A .pt file can say that two names are one tensor; what is added to one is in the other, as in the model."""
    state = load_file(GOLDEN / "bases/gpt2/model.safetensors")
    torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, tmp_path / "base.pt")
    adapter = Checkpoint(GOLDEN / "adapters/transposed-dora", base=Checkpoint(tmp_path / "base.pt"))
    assert adapter.ties == Checkpoint(tmp_path / "base.pt").ties != ()
    assert torch.equal(adapter.read("lm_head.weight"), adapter.read("transformer.wte.weight"))
    assert not torch.equal(adapter.read("lm_head.weight"), state["transformer.wte.weight"])


def refused(folder: Path, base: Path | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder, base=None if base is None else Checkpoint(base))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"peft_type": "IA3"}, "is an adapter of IA3, and only those of LoRA"),
        ({"peft_type": "LOKR"}, "is an adapter of LOKR"),
        ({"peft_type": "PROMPT_TUNING"}, "is an adapter of PROMPT_TUNING"),
        ({"peft_type": "X\x1b[31m"}, "is an adapter of X\\x1b[31m"),
        ({"peft_type": None}, "no kind that it says"),
        ({"init_lora_weights": "pissa_niter_4"}, "began as pissa_niter_4, which changes its base's weights"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "repeats layers"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"trainable_token_indices": [1]}, "says that it trains single tokens, and holds none"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"r": 3}, "has rank 2, and adapter_config.json says 3"),
        ({"rank_pattern": {"(": 3}}, "not the configuration of an adapter"),
        ({"lora_alpha": "much"}, "not the configuration of an adapter"),
        ({"use_dora": True}, "has no lora_magnitude_vector"),
        ({"modules_to_save": None, "base_model_name_or_path": "google/vit"}, "no file or folder here"),
        ({"base_model_name_or_path": None}, "does not say of which model; give the model"),
    ],
)
def test_what_it_cannot_be(values: dict[str, Any], words: str, copied: Callable[..., list[Path]]) -> None:
    (folder,) = copied("plain")
    change(folder, **values)
    assert words in refused(folder)


@pytest.mark.parametrize("at", [[3, 0, 40, 17], [3, 0, -1, 17], [3, 0, 3, 17], [3, 0], ["3", 0, 39, 17], 4])
def test_tokens_that_the_base_does_not_have(at: Any, copied: Callable[..., list[Path]]) -> None:
    (folder,) = copied("tokens")
    change(folder, trainable_token_indices=at)
    assert re.search("trains . tokens of 'model.embed_tokens.weight'|are no numbers of tokens", refused(folder))


def changed(folder: Path, make: Callable[[str, Tensor], dict[str, Tensor]]) -> None:
    found = load_file(folder / "adapter_model.safetensors")
    made = [make(key, tensor) for key, tensor in found.items()]
    save_file({key: tensor for each in made for key, tensor in each.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda key, x: {key.replace("layers.1.", "layers.9."): x}, "layers.9.attention.q_proj', which its base"),
        (lambda key, x: {} if "lora_A" in key else {key: x}, "has no lora_A; save the adapter again"),
        (lambda key, x: {key: x[..., :12].clone() if "lora_A" in key else x}, "was trained on another model"),
        (lambda key, x: {key.replace("lora_A", "lora_E"): x}, "is no part of a LoRA that is known"),
        (lambda key, x: {key.replace("lora_A.weight", "lora_A.dogs.weight"): x}, "under a name of its own"),
        (lambda key, x: {key.replace("classifier", "crown"): x}, "brings 'crown."),
    ],
)
def test_what_does_not_fit_the_base(
    make: Callable[[str, Tensor], dict[str, Tensor]], words: str, copied: Callable[..., list[Path]]
) -> None:
    (folder,) = copied("plain")
    changed(folder, make)
    assert words in refused(folder)


def test_another_base_is_refused(copied: Callable[..., list[Path]], tmp_path: Path, merge: Merge) -> None:
    """By its content where the recorded one is there, and by names and shapes where it is not."""
    (folder,) = copied("plain")
    other = load_file(tmp_path / "base/model.safetensors")
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    assert refused(folder, GOLDEN / "bases/gpt2").count("is another model; give the model") == 1
    save_file({name: tensor + 1 for name, tensor in other.items()}, tmp_path / "other/model.safetensors")
    ran = merge("run", folder, "--base", "other", "--strategy", "uniform", "--output", "out")
    assert (ran.code, ran.err.count("error:")) == (2, 1)
    assert "was trained on" in ran.err
    assert "--base" in ran.err
    assert not Path("out").exists()
    change(folder, base_model_name_or_path="org/elsewhere")
    assert "which its base" in refused(folder, GOLDEN / "bases/gpt2")
    Checkpoint(folder, base=Checkpoint(tmp_path / "other"))


def test_adapters_that_name_one_another_are_refused(copied: Callable[..., list[Path]]) -> None:
    one, other = copied("plain", "patterns")
    change(one, base_model_name_or_path=str(other))
    change(other, base_model_name_or_path=str(one))
    assert "an adapter itself; give the model" in refused(one)


def test_a_quantised_base_is_refused(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    (folder,) = copied("transposed")
    state = load_file(tmp_path / "base/model.safetensors")
    kept = {name: (tensor * 9).to(torch.int8) if tensor.ndim == 2 else tensor for name, tensor in state.items()}
    save_file(kept, tmp_path / "base/model.safetensors")
    assert "holds int8 numbers (quantised)" in refused(folder)


def test_infinite_values_are_refused_where_they_are_hashed(copied: Callable[..., list[Path]]) -> None:
    (folder,) = copied("plain")
    changed(folder, lambda key, x: {key: x * math.inf if "lora_B" in key else x})
    with pytest.raises(CheckpointError, match="holds NaN or infinite values"):
        _ = Checkpoint(folder).hash
