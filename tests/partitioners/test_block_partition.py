"""``block``: the repeated parts of real architectures, whatever they are called and however the file is sorted."""

from __future__ import annotations

import itertools
import re
import warnings

import open_clip
import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from merging.errors import PartitionError
from merging.forward.fitting import untouched
from merging.mixing.blocks import blocks
from merging.models.clip import clip_classifier
from merging.partitioners.block import Block, balanced
from merging.values.partition import Partition, TensorInfo


def meta(name: str) -> nn.Module:
    source, _, model = name.partition(":")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "timm":
            return timm.create_model(model).eval()
        if source == "torchvision":
            settings = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
            return torchvision.models.get_model(model, **settings).eval()
        config = open_clip.get_model_config(model)
        assert config is not None
        return clip_classifier(config, 10).eval()


def info(module: nn.Module) -> dict[str, TensorInfo]:
    return {name: (tuple(t.shape), str(t.dtype)[6:]) for name, t in module.state_dict().items()}


def hugging_face_vit(layers: int) -> dict[str, TensorInfo]:
    """Names of transformers' ViTForImageClassification."""
    parts = ["attention.attention.query", "attention.attention.key", "attention.output.dense", "intermediate.dense"]
    names = ["vit.embeddings.cls_token", "vit.embeddings.patch_embeddings.projection.weight"]
    names += [f"vit.encoder.layer.{n}.{part}.weight" for n in range(layers) for part in parts]
    names += [f"vit.encoder.layer.{n}.layernorm_before.weight" for n in range(layers)]
    shapes = {name: ((8,) if "norm" in name else (8, 8), "float32") for name in names}
    return shapes | {"vit.layernorm.weight": ((8,), "float32"), "classifier.weight": ((3, 8), "float32")}


BLOCKS = {
    "timm:resnet18": (8, r"layer[1-4]\.[01]"),
    "timm:vit_tiny_patch16_224": (12, r"blocks\.\d+"),
    "timm:convnext_tiny": (18, r"stages\.[0-3]\.blocks\.\d"),
    "timm:swin_tiny_patch4_window7_224": (12, r"layers\.[0-3]\.blocks\.\d"),
    "timm:efficientnet_b0": (16, r"blocks\.\d\.\d"),
    "timm:mixer_s32_224": (8, r"blocks\.\d"),
    "torchvision:resnet50": (16, r"layer[1-4]\.\d"),
    "torchvision:squeezenet1_1": (8, r"features\.\d+"),
    "torchvision:vit_b_16": (12, r"encoder\.layers\.encoder_layer_\d+"),
    "torchvision:densenet121": (58, r"features\.denseblock[1-4]\.denselayer\d+"),
    "torchvision:swin_t": (12, r"features\.[1357]\.\d"),
    "torchvision:efficientnet_b0": (16, r"features\.[1-7]\.\d"),
    "open_clip:ViT-B-32": (12, r"model\.visual\.transformer\.resblocks\.\d+"),
    "open_clip:RN50": (16, r"model\.visual\.layer[1-4]\.\d"),
    "open_clip:ViT-B-16-SigLIP": (12, r"model\.visual\.trunk\.blocks\.\d+"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_real_architectures(name: str) -> None:
    number, pattern = BLOCKS[name]
    module = meta(name)
    tensors = info(module)
    backwards = dict(sorted(tensors.items(), reverse=True))
    for partition in (Block().split(tensors, module), Block().split(tensors), Block().split(backwards)):
        partition.check_covers(tensors)
        assert (partition.names[0], partition.names[-1]) == ("stem", "head")
        blocks = partition.names[1:-1]
        assert len(blocks) == number
        assert all(re.fullmatch(pattern, block) for block in blocks)
        numbers = [[int(n) for n in re.findall(r"\d+", block)] for block in blocks]
        assert numbers == sorted(numbers), "in the network's order, however the file is sorted"
    head = Block().split(tensors).components[-1].tensors
    assert any(re.search(r"classif|head|fc", tensor) for tensor in head)


@pytest.mark.parametrize("count", [1, 2, 5, 14])
@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "open_clip:ViT-B-32"])
def test_count_gives_so_many_active_groups(name: str, count: int) -> None:
    module = meta(name)
    partition = Block(count=count).split(info(module), module)
    idle, _ = untouched(module, torch.zeros(2, 3, 224, 224, device="meta"))
    marked = partition.with_marks(untouched=idle)
    assert len(marked) == len(marked.active) == count


def test_transformers_naming() -> None:
    partition = Block().split(hugging_face_vit(12))
    assert partition.names == ("stem", *(f"vit.encoder.layer.{n}" for n in range(12)), "head")
    assert partition.components[0].tensors == (
        "vit.embeddings.cls_token",
        "vit.embeddings.patch_embeddings.projection.weight",
    )
    assert set(partition.components[-1].tensors) == {"vit.layernorm.weight", "classifier.weight"}


@pytest.mark.parametrize(
    ("names", "stem", "head"),
    [
        (["conv1", "bn1", "layer{}.0.conv1", "layer{}.0.conv2", "linear"], {"conv1", "bn1"}, {"linear"}),
        (
            ["conv_stem", "bn1", "blocks.{}.a", "blocks.{}.b", "conv_head", "bn2"],
            {"conv_stem", "bn1"},
            {"conv_head", "bn2"},
        ),
        (
            ["m.embed_tokens", "m.layers.{}.q", "m.layers.{}.k", "m.norm", "lm_head"],
            {"m.embed_tokens"},
            {"m.norm", "lm_head"},
        ),
        (["t.wte", "t.wpe", "t.h.{}.a", "t.h.{}.b", "t.ln_f", "score"], {"t.wte", "t.wpe"}, {"t.ln_f", "score"}),
        (
            ["v.pre_layrnorm", "v.layers.{}.a", "v.layers.{}.b", "v.post_layernorm"],
            {"v.pre_layrnorm"},
            {"v.post_layernorm"},
        ),
        (["visual.conv1", "visual.bn2", "visual.l{}.a", "visual.l{}.b", "fc"], {"visual.conv1", "visual.bn2"}, {"fc"}),
    ],
    ids=["cifar_resnet", "efficientnet", "llama", "gpt2", "clip_vision", "clip_resnet"],
)
def test_names_alone_tell_stem_from_head(names: list[str], stem: set[str], head: set[str]) -> None:
    every = sorted({name.format(number) for name in names for number in (1, 2, 3)})
    parts = blocks({f"{name}.weight": ((4, 4), "float32") for name in every})
    assert {name.removesuffix(".weight") for name in parts["stem"]} == stem
    assert {name.removesuffix(".weight") for name in parts["head"]} == head
    assert len(parts) == 5


def test_a_model_that_begins_with_a_linear_layer_says_so() -> None:
    module = nn.ModuleDict()
    module["linear"] = nn.Linear(4, 4)
    module["layers"] = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)])
    parts = blocks(info(module), module)
    assert parts["stem"] == ["linear.weight", "linear.bias"]


def test_downsampling_between_stages_joins_the_next_block() -> None:
    module = meta("timm:convnext_tiny")
    homes = {t: c.name for c in Block().split(info(module), module).components for t in c.tensors}
    assert homes["stages.2.downsample.1.weight"] == "stages.2.blocks.0"


def test_without_repetition_every_layer_is_a_part() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert Block().split(info(module)).names == ("0", "2")


def test_too_large_a_count_names_the_largest() -> None:
    with pytest.raises(PartitionError, match="has 14 parts; use 14 at most"):
        Block(count=15).split(hugging_face_vit(12))


def largest(partition: Partition, tensors: dict[str, TensorInfo]) -> int:
    sizes = {name: torch.Size(shape).numel() for name, (shape, _) in tensors.items()}
    return max(sum(sizes[name] for name in component.tensors) for component in partition.components)


def test_groups_are_about_equal() -> None:
    tensors = info(meta("timm:vit_tiny_patch16_224"))
    total = sum(torch.Size(shape).numel() for shape, _ in tensors.values())
    assert largest(Block(count=4).split(tensors), tensors) < 1.2 * total / 4


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=8), data=st.data())
def test_balanced_is_the_optimum(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(sizes)))
    runs = balanced(sizes, count)
    assert [begin for begin, _ in runs[1:]] == [end for _, end in runs[:-1]]
    assert (runs[0][0], runs[-1][1], len(runs)) == (0, len(sizes), count)
    assert all(begin < end for begin, end in runs)
    cuts = itertools.combinations(range(1, len(sizes)), count - 1)
    best = min(max(sum(sizes[a:b]) for a, b in itertools.pairwise((0, *cut, len(sizes)))) for cut in cuts)
    assert max(sum(sizes[a:b]) for a, b in runs) == best
