"""``timm:``, ``torchvision:`` and ``open_clip:`` models: their heads, their preprocessing, and merges of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import merging
from merging.data.images import normalise, preparation, prepared
from merging.data.npz import load_npz
from merging.errors import PoolError, TaskError
from merging.models.source import ModelSource
from merging.plugins.progress import Silent
from merging.tasks.described import described_task
from tests.conftest import Merge

DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))
HEADS = {
    "timm:resnet18": ["fc.weight", "fc.bias"],
    "timm:vit_tiny_patch16_224": ["head.weight", "head.bias"],
    "timm:deit_tiny_distilled_patch16_224": ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"],
    "timm:densenet121": ["classifier.weight", "classifier.bias"],
    "torchvision:resnet18": ["fc.weight", "fc.bias"],
    "torchvision:vit_b_16": ["heads.head.weight", "heads.head.bias"],
    "torchvision:squeezenet1_1": ["classifier.1.weight", "classifier.1.bias"],
    "torchvision:mobilenet_v3_small": ["classifier.3.weight", "classifier.3.bias"],
    "open_clip:ViT-B-32": ["classification_head.weight"],
}


@pytest.mark.parametrize("spec", HEADS)
def test_the_head_is_found_by_building_twice(spec: str) -> None:
    assert list(merging.model_source(spec).heads()) == HEADS[spec]


@pytest.mark.parametrize(
    ("spec", "size", "mean", "fixed"),
    [
        ("timm:resnet18", 224, 0.485, False),
        ("timm:vit_tiny_patch16_224", 224, 0.5, True),
        ("timm:vit_tiny_patch16_224(img_size=64)", 64, 0.5, True),
        ("torchvision:resnet18", 224, 0.485, False),
        ("torchvision:vit_b_16", 224, 0.485, True),
        ("torchvision:vit_h_14", 224, 0.485, True),
        ("torchvision:inception_v3", 299, 0.485, False),
        ("open_clip:ViT-B-32", 224, 0.48145466, True),
        ("open_clip:ViT-B-16-SigLIP", 224, 0.5, True),
    ],
)
def test_sizes_and_normalisation_are_the_librarys_own(spec: str, size: int, mean: float, fixed: bool) -> None:
    source = merging.model_source(spec)
    own = source.transform()
    assert own.normalisation is not None
    assert (own.sides, source.sides, own.normalisation.mean[0]) == ((size, size), (size, size), mean)
    assert source.fixed_size == fixed
    assert source.example().shape == (2, 3, size, size)


def test_the_same_weights_every_time() -> None:
    first, second = (merging.model_source("timm:resnet18").module(3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm:resnet_18", "did you mean 'resnet18'"),
        ("torchvision:resnet_18", "did you mean 'resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown torchvision classifier"),
        ("torchvison:resnet18", "did you mean 'torchvision'"),
        ("resnet18", "write open_clip:NAME, timm:NAME"),
        ("timm:", "unknown model source"),
    ],
)
def test_unknown_models(spec: str, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        merging.model_source(spec)
    assert said in str(caught.value)


def save_variants(source: ModelSource, folder: Path, classes: int, count: int = 2) -> merging.ModelPool:
    """Checkpoints that differ in their heads."""
    folder.mkdir()
    heads = list(source.heads())
    state = source.module(classes).state_dict()
    for number in range(count):
        torch.manual_seed(number)
        changed = {n: t + 0.05 * torch.randn_like(t) if n in heads else t.clone() for n, t in state.items()}
        save_file(changed, folder / f"m{number}.safetensors")
    return merging.ModelPool.open([folder])


@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:squeezenet1_1", "torchvision:googlenet"])
def test_the_number_of_classes_is_read_off_the_pool(spec: str, tmp_path: Path) -> None:
    source = merging.model_source(spec)
    pool = save_variants(source, tmp_path / "pool", 7)
    module = source.build(pool)
    module.load_state_dict(load_file(pool.checkpoints[0].path))
    assert module.eval()(source.example()).shape == (2, 7)


def test_auxiliary_heads_may_be_missing(tmp_path: Path) -> None:
    source = merging.model_source("torchvision:googlenet")
    state = {n: t for n, t in source.module(5).state_dict().items() if not n.startswith("aux")}
    save_file(state, tmp_path / "m.safetensors")
    assert set(source.build(merging.ModelPool.open([tmp_path])).state_dict()) == set(state)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    pool = save_variants(merging.model_source("torchvision:squeezenet1_1"), tmp_path / "pool", 7)
    with pytest.raises(PoolError, match=r"has no 'fc.weight', the head of timm:resnet18"):
        merging.model_source("timm:resnet18").build(pool)


def images(folder: Path, side: int, samples: int = 24) -> str:
    generator = np.random.default_rng(0)
    pixels = generator.integers(256, size=(samples, side, side, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", x_images=pixels, x_labels=np.arange(samples) % 3)
    return f"{folder / 'data.npz'}:x"


def test_a_model_of_one_size_gets_its_size(tmp_path: Path) -> None:
    """What merging prepares is what timm's own recipe gives: shorter side 248, crop of 224, its mean and deviation."""
    name = "vit_tiny_patch16_224"
    data = images(tmp_path, 40, samples=3)
    task = described_task({"model": f"timm:{name}", "held_out": data})
    assert task.held_out.inputs.shape == (3, 224, 224, 3)
    library: Any = timm
    settings = library.data.resolve_data_config({}, pretrained_cfg=library.get_pretrained_cfg(name).to_dict())
    whole = library.data.create_transform(**settings)
    expected = torch.stack([whole(Image.fromarray(image)) for image in load_npz(data).inputs.numpy()])
    assert torch.equal(task.prepare(task.held_out.inputs), expected)


def test_other_models_take_images_as_they_are_unless_told(tmp_path: Path) -> None:
    table = {"model": "timm:resnet18", "held_out": images(tmp_path, 40)}
    assert described_task(table).held_out.inputs.shape[1] == 40
    assert described_task(table | {"size": 64}).held_out.inputs.shape == (24, 64, 64, 3)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 96}, "takes images of 224 pixels only"),
        ({"std": [1.0, 0.0, 1.0]}, "std above 0"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, extra: dict[str, object], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        described_task({"model": "timm:vit_tiny_patch16_224", "held_out": images(tmp_path, 40), **extra})


def test_images_that_are_ready_are_left_alone() -> None:
    how = preparation(merging.model_source("timm:vit_tiny_patch16_224"))
    assert how.of_arrays((224, 224)) is None
    assert how.of_arrays((40, 40)) is how.transform
    assert prepared(np.zeros((2, 20, 30, 3), np.uint8), how.transform, "x", Silent()).shape == (2, 224, 224, 3)


@pytest.mark.slow
def test_a_timm_pool_through_the_command_line(merge: Merge, tmp_path: Path) -> None:
    save_variants(merging.model_source("timm:test_vit"), tmp_path / "pool", 3)
    images(tmp_path, 32)
    (tmp_path / "merge.toml").write_text(
        '[task]\nmodel = "timm:test_vit"\nheld_out = "data.npz:x"\n[pool]\nmodels = ["pool"]\n'
        '[run]\nstrategy = "manifoldmix"\npartitioner = "block"\nbudget = 4\noutput = "out"\n'
    )
    ran = merge("run")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["components"], report["active_components"]) == (report["components"], 1)
    assert merge("evaluate", "out", "--json").code == 0


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")
def test_pacs_squeezenet_needs_no_code(merge: Merge, tmp_path: Path) -> None:
    """ImageNet's SqueezeNet with two linear probes on PACS photos: a name and a file are all it takes."""
    source = merging.model_source("torchvision:squeezenet1_1")
    model = source.module(7).eval()
    model.load_state_dict(load_file(DATA / "squeezenet1_1_imagenet_backbone.safetensors"), strict=False)
    split = load_npz(f"{DATA / 'pacs96.npz'}:photo")
    chosen = slice(0, None, 8)
    prepare = normalise(source.transform())
    with torch.inference_mode():
        features = model.features(prepare(split.inputs[chosen])).mean((2, 3))  # type: ignore[operator]
    (tmp_path / "pool").mkdir()
    for seed in range(2):
        torch.manual_seed(seed)
        head = nn.Linear(512, 7)
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features.clone()), split.labels[chosen]).backward()
            optimizer.step()
        state = model.state_dict() | {
            "classifier.1.weight": head.weight.detach()[:, :, None, None].clone(),
            "classifier.1.bias": head.bias.detach().clone(),
        }
        save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / f"pool/probe_{seed}.safetensors")
    np.savez(tmp_path / "small.npz", photo_images=split.inputs[1::10].numpy(), photo_labels=split.labels[1::10].numpy())
    (tmp_path / "merge.toml").write_text(
        '[task]\nmodel = "torchvision:squeezenet1_1"\nheld_out = "small.npz:photo"\n'
        '[pool]\nmodels = ["pool"]\n[run]\nstrategy = "greedy"\noutput = "out"\n'
    )
    ran = merge("run")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out/report.json").read_text())["validation"]["best_single"] > 0.7


@pytest.mark.parametrize("name", ["regnet_y_400mf", "regnet_x_400mf"])
def test_constructors_that_look_at_values(name: str) -> None:
    """RegNets cannot be built on the meta device: their constructor reads a tensor."""
    source = merging.model_source(f"torchvision:{name}")
    assert source.heads() == {"fc.weight": 0, "fc.bias": 0}
    assert source.fixed_size is False
