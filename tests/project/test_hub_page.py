"""The commands of docs/hub.md, against a Hub of their own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save

from tests.hub_server import GRANTED, Hub, serving
from tests.project.test_docs import blocks, run

CONFIG = json.dumps({"model_type": "vit"}).encode()
CARD = b"---\nlicense: apache-2.0\n---\n# Cats\n"


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    merged, applied, pushed = (shlex.split(text) for text in blocks("hub.md", "run").values())
    with serving(Hub()) as hub:
        commits = []
        for number in (1, 2):
            weights = save({"w": torch.full((3,), float(number))})
            files = {"model.safetensors": weights, "config.json": CONFIG, "README.md": CARD}
            commits.append(hub.model(f"ours/cats-{number}", files, "main", "v1"))
        run(merged, tmp_path, **hub.environment(tmp_path / "home"))
        hub.model("ours/cats-1", {"model.safetensors": b"another one"})
        run(applied, tmp_path, **hub.environment(tmp_path / "elsewhere"))
        run(pushed, tmp_path, **hub.environment(tmp_path / "elsewhere", HF_TOKEN=GRANTED))
    there = hub.repositories["ours/cats-soup"]
    files = there.commits[there.refs["main"]]
    assert there.private
    assert files["model.safetensors"] == (tmp_path / "soup.safetensors").read_bytes()
    assert files["config.json"] == CONFIG
    recipe = json.loads(files["recipe.json"])
    names = [f"hf-hub:ours/cats-{number}@{commit}" for number, commit in zip((1, 2), commits, strict=True)]
    assert [row["file"] for row in recipe["ingredients"]] == names
    said = ModelCard(files["README.md"].decode()).data.to_dict()
    assert said["base_model"] == ["ours/cats-1", "ours/cats-2"]
    assert said["base_model_relation"] == "merge"
    assert (said["license"], said["library_name"]) == ("apache-2.0", "transformers")
