"""A user's own architecture and data: SqueezeNet 1.1 with real ImageNet weights on PACS photos and cartoons."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import squeezenet1_1

from merging.data.images import Normalise
from merging.data.npz import load_npz
from tests.conftest import Merge

DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")
CLASSES = 7


def excerpt(key: str, chosen: slice) -> dict[str, np.ndarray]:
    """Some images of a domain, in the documented layout of JPEG bytes."""
    with np.load(DATA / "pacs96.npz") as arrays:
        data, offsets, labels = (arrays[f"{key}_{part}"] for part in ("jpeg", "offsets", "labels"))
    numbers = range(len(labels))[chosen]
    parts = [data[offsets[i] : offsets[i + 1]] for i in numbers]
    ends = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return {f"{key}_jpeg": np.concatenate(parts), f"{key}_offsets": ends, f"{key}_labels": labels[list(numbers)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three SqueezeNets with different linear probes, and data of two domains."""
    np.savez(tmp_path / "source.npz", **excerpt("photo", slice(0, None, 6)))
    np.savez(tmp_path / "probe.npz", **excerpt("photo", slice(1, None, 8)))
    np.savez(tmp_path / "shift.npz", **excerpt("cartoon", slice(0, None, 16)))
    (tmp_path / "pacs_model.py").write_text(
        "from torchvision.models import squeezenet1_1\n\n\ndef model():\n    return squeezenet1_1(num_classes=7)\n"
    )
    backbone = load_file(DATA / "squeezenet1_1_imagenet_backbone.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = squeezenet1_1(num_classes=CLASSES).eval()
    model.load_state_dict(backbone, strict=False)
    split = load_npz(f"{tmp_path / 'probe.npz'}:photo")
    normalise = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        features = model.features(normalise(split.inputs))
    features = features.clone()
    (tmp_path / "pool").mkdir()
    for seed in range(3):
        head = probe(features, split.labels, seed)
        state = model.state_dict() | {"classifier.1.weight": head.weight, "classifier.1.bias": head.bias}
        save_file(
            {k: v.detach().clone().contiguous() for k, v in state.items()}, tmp_path / f"pool/probe_{seed}.safetensors"
        )
    return tmp_path


def probe(features: torch.Tensor, labels: torch.Tensor, seed: int) -> nn.Conv2d:
    """SqueezeNet's 1x1 convolution head, trained on cached features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Conv2d(features.shape[1], CLASSES, 1)
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        for _ in range(8):
            for batch in torch.randperm(len(labels)).split(32):
                logits = F.relu(head(features[batch])).mean(dim=(2, 3))
                optimizer.zero_grad()
                F.cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
    return head


@pytest.mark.slow
def test_merge_toml_on_own_architecture_and_jpegs(folder: Path, merge: Merge) -> None:
    (folder / "merge.toml").write_text(
        '[task]\nmodel = "python:pacs_model:model"\nheld_out = "source.npz:photo"\n'
        'shifts = { cartoon = "shift.npz:cartoon" }\n'
        '[pool]\nmodels = ["pool"]\n'
        '[run]\nstrategy = "manifoldmix"\npartitioner = "layer"\noutput = "out"\nbudget = 6\n'
    )
    ran = merge("run", "--trust-code")
    assert ran.code == 0, ran.err
    report = json.loads((folder / "out/report.json").read_text())
    assert report["active_components"] == 1, "the three models share their backbone bit for bit"
    assert report["validation"]["best_single"] > 0.8
    assert report["validation"]["merged"] >= report["validation"]["best_single"]
    assert 1 / CLASSES < report["tests"]["cartoon"]["merged"] < report["validation"]["merged"]
    squeezenet1_1(num_classes=CLASSES).load_state_dict(load_file(folder / "out/model.safetensors"), strict=True)
    wrong = merge("run", "--trust-code", "--task", "merge.toml", "--output", "out2", "--strategy", "unifrom")
    assert wrong.code == 2


def test_wrong_data_is_one_line(folder: Path, merge: Merge) -> None:
    for source, said in [("source.npz:photos", "did you mean 'photo'?"), ("nowhere.npz:x", "no such data")]:
        (folder / "merge.toml").write_text(
            f'[task]\nmodel = "python:pacs_model:model"\nheld_out = "{source}"\n[pool]\nmodels = ["pool"]\n'
        )
        ran = merge("run", "--trust-code")
        assert ran.code == 2
        assert said in ran.err
