"""Architectures that are named by an id of the Hub: the small files alone are fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub, serving

BUILD = """
import sys
from merging.errors import TaskError
from merging.models.catalogue import model_source
for spec in sys.argv[1:]:
    try:
        source = model_source(spec)
        made, shown = source.module(5), source.transform()
        print(source.spec, source.sides, sum(p.numel() for p in made.parameters()), list(shown.proposed.mean), sep="|")
    except TaskError as error:
        print("error", error, sep="|")
"""
TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"img_size": 32, "depth": 2},
    "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "crop_pct": 1.0},
}
VIT = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VIT |= {"image_size": 16, "patch_size": 8, "architectures": ["ViTForImageClassification"]}
PIXELS = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
PIXELS |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5]}


@pytest.mark.slow
def test_the_architecture_and_its_pixels_come_from_the_hub(tmp_path: Path) -> None:
    """The weights stay where they are: those of the pool go in."""
    pytest.importorskip("transformers")
    with serving(Hub()) as hub:
        vit = {"config.json": json.dumps(VIT).encode(), "preprocessor_config.json": json.dumps(PIXELS).encode()}
        one = hub.model("ours/vit", {**vit, "model.safetensors": b"x"})
        two = hub.model("ours/timm", {"config.json": json.dumps(TIMM).encode(), "model.safetensors": b"x"})
        hub.model("ours/other", {"config.json": b"{}", "model.safetensors": b"x"})
        hub.model("ours/bare", {"model.safetensors": b"x"})
        specs = ["hf-hub:ours/vit", "transformers:ours/vit@main", "ours/timm", "timm:hf-hub:ours/timm(depth=3)"]
        wrong = ["hf-hub:ours/other", "hf-hub:ours/bare", "transformers:ours/vti"]
        command = [sys.executable, "-c", BUILD, *specs, *wrong]
        ran = subprocess.run(command, env=hub.environment(tmp_path), cwd=tmp_path, capture_output=True, text=True)
    told = [line.split("|") for line in ran.stdout.splitlines()]
    assert len(told) == 7, ran.stderr
    pinned = [f"transformers:hf-hub:ours/vit@{one}"] * 2
    assert [line[0] for line in told[:3]] == [*pinned, f"timm:hf-hub:ours/timm@{two}(img_size=32, depth=2)"]
    assert told[3][0] == f"timm:hf-hub:ours/timm@{two}(img_size=32, depth=3)"
    assert [line[1] for line in told[:4]] == ["(16, 16)"] * 2 + ["(32, 32)"] * 2
    assert [line[3] for line in told[:4]] == ["[0.5, 0.4, 0.3]"] * 2 + ["[0.1, 0.2, 0.3]"] * 2
    assert told[2][2] != told[3][2], "an argument overrules what was saved"
    assert "neither of transformers nor of timm" in told[4][1]
    assert "has no config.json" in told[5][1]
    assert "did you mean 'ours/vit'?" in told[6][1]
    assert not hub.asked("HEAD", "safetensors") + hub.asked("GET", "/cdn/")
