"""Adapters and their base by ids of the Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.hub_server import Hub, serving

HERE = Path(__file__).parent / "adapters"


@pytest.mark.slow
def test_adapters_of_the_hub_stand_on_a_base_of_the_hub(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        base = hub.model("ours/vit", HERE / "bases" / "vit")
        commits = []
        for name in ("plain", "rooted"):
            files = {file.name: file.read_bytes() for file in (HERE / "adapters" / name).glob("adapter_*")}
            said = json.loads(files["adapter_config.json"]) | {"base_model_name_or_path": "ours/vit"}
            commits.append(hub.model(f"ours/{name}", files | {"adapter_config.json": json.dumps(said).encode()}))
        command = [sys.executable, "-m", "merging", "run", "--strategy", "uniform", "ours/plain", "ours/rooted"]
        own = hub.environment(tmp_path / "home")
        alone = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert alone.returncode == 2
        assert "for a model of the Hub, write hf-hub:ours/vit" in alone.stderr, "which nobody has written yet"
        assert not [path for _, path, _ in hub.requests if "ours/vit" in path]
        command += ["--base", "ours/vit", "--output", "out"]
        made = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    rows = json.loads((tmp_path / "out" / "recipe.json").read_text())["ingredients"]
    places = [f"hf-hub:ours/{name}@{commit}" for name, commit in zip(("plain", "rooted"), commits, strict=True)]
    assert [row["file"] for row in rows] == places
    assert {row["base"] for row in rows} == {f"hf-hub:ours/vit@{base}"}
    card = ModelCard((tmp_path / "out" / "README.md").read_text()).data.to_dict()
    assert set(card["base_model"]) == {"ours/plain", "ours/rooted", "ours/vit"}
