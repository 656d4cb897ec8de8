"""Models of the Hub in a configuration: fetched, pinned, and named as others are."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.hub_server import Hub, serving

CONFIG = """
merge_method: linear
models:
  - model: ours/first@main
    parameters: {{weight: [0.5, 0.9]}}
  - model: {{model: {{path: ours/second, revision: main}}}}
    parameters: {{weight: 0.25}}
  - model: {local}
    parameters: {{weight: 0.1}}
tokenizer_source: ours/first@main
"""


COMMANDS = """
import sys
import tomllib
from pathlib import Path
from merging.cli.main import main
from merging.mergekit.translation import translation
from merging.storage.hub import ahead
ahead.SMALL = 0  # so that these models are large
def ran(*words):
    sys.argv = ["merge", *words]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
def weights():
    return list(Path("home").rglob("model.safetensors"))
ran("convert", "config.yml", "--output", "merge.toml")
assert not weights(), "small files are enough, with the layers of a model that is here"
alone = translation(Path("alone.yml"))
assert not weights(), "or with the headers"
assert alone.run["options"]["partitioner"]["patterns"][0].startswith("layers.")
ran("run", "config.yml", "--output", "out")
assert weights()
"""


@pytest.mark.slow
def test_they_are_fetched_and_pinned(models: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(CONFIG.format(local=models / "third"), encoding="utf-8")
    content = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}}}
    tokenizer = json.dumps(content | {"model": {**content["model"], "unk_token": "a"}})  # type: ignore[dict-item]
    (models / "third" / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    with serving(Hub()) as hub:
        for name in ("first", "second"):
            (models / name / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
            hub.model(f"ours/{name}", models / name, "main")
        alone = CONFIG.format(local="").replace("  - model: \n    parameters: {weight: 0.1}\n", "")
        (tmp_path / "alone.yml").write_text(alone, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            cwd=tmp_path,
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    converted = tomllib.loads((tmp_path / "merge.toml").read_text(encoding="utf-8"))
    assert converted["pool"]["models"][:2] == ["hf-hub:ours/first@main", "hf-hub:ours/second@main"]
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["options"]["weights"] == converted["run"]["options"]["strategy"]["weights"]
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text(encoding="utf-8"))
    files = [row["file"] for row in recipe["ingredients"]]
    assert [file.partition("@")[0] for file in files if file.startswith("hf-hub:")] == [
        "hf-hub:ours/first",
        "hf-hub:ours/second",
    ]
    found = load_file(tmp_path / "out" / "model.safetensors")
    first, second, third = (load_file(models / name / "model.safetensors") for name in ("first", "second", "third"))
    name = "model.layers.3.mlp.up_proj.weight"
    torch.testing.assert_close(found[name], (0.9 * first[name] + 0.25 * second[name] + 0.1 * third[name]) / 1.25)
