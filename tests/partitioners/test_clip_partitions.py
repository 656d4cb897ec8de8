"""The published partitions on open_clip's real ViT-B/32, and a merge of three of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.forward.fitting import untouched
from merging.models.clip import TEXT_LEFTOVERS, ClipClassifier, clip_classifier
from merging.plugins.partitioner import Partitioner
from merging.values.partition import TensorInfo

CLASSES = 10
TEXT = ("positional_embedding", "text_projection", "logit_scale")
TOWER = ("class_embedding", "positional_embedding", "proj", "conv1", "ln_pre", "transformer", "ln_post")
LEFT = ("token_embedding.weight", "ln_final.weight", "ln_final.bias")
HEAD = ("classification_head.weight", "classification_head.bias")
BLOCKS = tuple(f"visual.transformer.resblocks.{number}" for number in range(12))
C15 = (*TEXT, *(f"visual.{part}" for part in TOWER), *LEFT, *HEAD)
PUBLISHED: dict[str, tuple[Partitioner, tuple[str, ...], tuple[str, ...]]] = {
    "clip-c8": (
        merging.ClipC8(),
        (*TEXT, "visual", "token_embedding", "ln_final", *HEAD),
        (*TEXT, "token_embedding", "ln_final"),
    ),
    "clip-c15": (merging.ClipC15(), C15, (*TEXT, *LEFT)),
    "clip-c26": (
        merging.ClipC26(),
        tuple(n for name in C15 for n in (BLOCKS if name == "visual.transformer" else (name,))),
        (*TEXT, *LEFT),
    ),
}


def info(module: nn.Module) -> dict[str, TensorInfo]:
    return {name: (tuple(t.shape), str(t.dtype)[6:]) for name, t in module.state_dict().items()}


@pytest.fixture(scope="module")
def classifier() -> ClipClassifier:
    config = open_clip.get_model_config("ViT-B-32")
    assert config is not None
    return clip_classifier(config, CLASSES).eval()


@pytest.fixture(scope="module")
def idle(classifier: ClipClassifier) -> frozenset[str]:
    return frozenset(untouched(classifier, torch.zeros(1, 3, 224, 224))[0])


def test_the_classifier_has_the_published_160_keys(classifier: ClipClassifier) -> None:
    names = list(classifier.state_dict())
    assert len(names) == 160
    assert not any(name.startswith("model.transformer.") for name in names)
    assert all(name.startswith("model.") or name in HEAD for name in names)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_components_and_inert_sets(classifier: ClipClassifier, idle: frozenset[str], name: str) -> None:
    partitioner, names, inert = PUBLISHED[name]
    assert partitioner.name == name
    partition = partitioner.split(info(classifier)).with_marks(untouched=idle)
    partition.check_covers(classifier.state_dict())
    assert partition.names == names
    assert len(partition) == int(name.removeprefix("clip-c"))
    assert tuple(c.name for c in partition.components if c.inert) == inert
    assert len(partition.active) == {"clip-c8": 3, "clip-c15": 9, "clip-c26": 20}[name]
    assert partition.notes == ()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_order_of_the_keys_is_not_the_order_of_the_components(classifier: ClipClassifier, name: str) -> None:
    partitioner, names, _ = PUBLISHED[name]
    assert partitioner.split(dict(reversed(info(classifier).items()))).names == names


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tower_without_the_text_leftovers_says_so(classifier: ClipClassifier, name: str) -> None:
    partitioner, names, inert = PUBLISHED[name]
    tower = {n: i for n, i in info(classifier).items() if n.removeprefix("model.").split(".")[0] not in TEXT_LEFTOVERS}
    partition = partitioner.split(tower)
    assert partition.names == tuple(n for n in names if n not in inert)
    assert "fewer components than published" in partition.notes[0]
    assert all(leftover in partition.notes[0] for leftover in TEXT_LEFTOVERS)


def test_other_models_are_refused_with_a_way_out() -> None:
    with pytest.raises(merging.MergingError, match=r"visual.*`partitioner=layer`"):
        merging.ClipC8().split({"fc1.weight": ((2, 2), "float32")})


def test_quickgelu_is_another_activation() -> None:
    """OpenAI's weights (and model-soups' 72 checkpoints) load strictly into either, and score wrongly in one."""
    found = {}
    for name in ("ViT-B-32", "ViT-B-32-quickgelu"):
        config = open_clip.get_model_config(name)
        assert config is not None
        with torch.device("meta"):
            module = open_clip.CLIP(
                **{k: config[k] for k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu") if k in config}
            )
        kinds = Counter(type(part).__name__ for part in module.visual.modules())
        found[name] = (kinds["QuickGELU"], kinds["GELU"]), set(module.state_dict())
    assert found["ViT-B-32"][0] == (0, 12)
    assert found["ViT-B-32-quickgelu"][0] == (12, 0)
    assert found["ViT-B-32"][1] == found["ViT-B-32-quickgelu"][1]


@pytest.mark.slow
def test_a_pool_of_three_vit_b_32_is_merged(classifier: ClipClassifier, tmp_path: Path) -> None:
    original = classifier.state_dict()
    for number in range(3):
        generator = np.random.default_rng(number)
        noise = torch.from_numpy(generator.standard_normal(1 << 20, dtype=np.float32)).mul_(0.02)
        state = {name: tensor + _repeated(noise, tensor) for name, tensor in original.items()}
        save_file(state, tmp_path / f"vit_{number}.safetensors")
    pool = merging.ModelPool.open([tmp_path])
    result = merging.merge(pool, merging.Uniform(), partitioner=merging.ClipC26(), output=tmp_path / "out")
    assert (result.report.components, result.report.ingredients) == (26, ("vit_0", "vit_1", "vit_2"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert list(result.state_dict()) == list(pool.tensors)
    assert set(merged) == set(original)
    files = [load_file(tmp_path / f"vit_{number}.safetensors") for number in range(3)]
    for name, tensor in merged.items():
        total = files[0][name].numpy() * np.float64(1 / 3)
        for file in files[1:]:
            total = total + file[name].numpy() * np.float64(1 / 3)
        wanted = np.asarray(total, dtype=np.float32)
        assert tensor.dtype == original[name].dtype
        assert np.array_equal(tensor.numpy().view(np.uint32), wanted.view(np.uint32)), name
    assert not torch.equal(merged["model.visual.proj"], files[0]["model.visual.proj"])
    classifier.load_state_dict(merged, strict=True)
    classifier.load_state_dict(original)
    assert result.report.component_names == PUBLISHED["clip-c26"][1]  # whatever order the files have


def _repeated(noise: Tensor, like: Tensor) -> Tensor:
    """Cheap noise of any shape: one block, repeated."""
    copies = -(-like.numel() // noise.numel())
    return noise.repeat(copies)[: like.numel()].reshape(like.shape) if like.ndim else noise[0]


OTHER_TOWERS = {
    "ViT-L-14": (24, "visual.transformer.resblocks.23"),
    "RN50": (16, "visual.layer4.2"),
    "ViT-B-16-SigLIP": (12, "visual.trunk.blocks.11"),
    "convnext_base": (36, "visual.trunk.stages.3.blocks.2"),
}


@pytest.mark.parametrize("name", OTHER_TOWERS)
def test_other_towers_have_the_same_hierarchy(name: str) -> None:
    """Depths, widths and towers that were not published: every block of its own in C26, the parts in C15."""
    blocks, last = OTHER_TOWERS[name]
    config = open_clip.get_model_config(name)
    assert config is not None
    with torch.device("meta"):
        module = clip_classifier(config, CLASSES).eval()
        idle, shape = untouched(module, torch.zeros(2, 3, 224, 224))
    assert tuple(shape) == (2, CLASSES)
    tensors = info(module)
    found = {p.name: p.split(tensors).with_marks(untouched=idle) for p in (merging.ClipC8(), merging.ClipC26())}
    active = [found["clip-c8"].names[i] for i in found["clip-c8"].active]
    assert active == ["visual", *HEAD]
    names = found["clip-c26"].names
    numbered = [n for n in names if re.search(r"resblocks|layer\d|blocks\.", n)]
    assert len(numbered) == blocks
    assert numbered[-1] == last
    numbers = [[int(part) for part in re.findall(r"\d+", n)] for n in numbered]
    assert numbers == sorted(numbers)
    assert name != "ViT-L-14" or len(names) == 26 + 12, "C26 with twice the blocks"
    coarse = merging.ClipC15().split(tensors)
    assert 5 < len(coarse) < len(names)


def test_text_towers_of_their_own_may_come_with_the_checkpoints() -> None:
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    assert config is not None
    with torch.device("meta"):
        alone = clip_classifier(config, CLASSES)
        names = {*alone.state_dict(), "model.logit_scale", "model.logit_bias"}
        assert set(clip_classifier(config, CLASSES, tensors=names).state_dict()) == names
        whole = clip_classifier(config, CLASSES, tensors={*names, "model.text.positional_embedding"})
    assert any(name.startswith("model.text.transformer.") for name in whole.state_dict())
