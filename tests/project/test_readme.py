"""What the README shows works: its plug-in, its Python, its commands; and the merge.toml of the five minutes."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from merging.cli.asking.tables import File
from merging.cli.main import COMMANDS
from tests.conftest import TASK, Merge
from tests.project.test_docs import blocks, page

README = "../README.md"


def test_its_strategy_is_merged_with(merge: Merge, pool_folder: Path) -> None:
    Path("top_k.py").write_text(blocks(README, "file")["top_k.py"])
    models = str(pool_folder / "model_*.safetensors")
    ran = merge(
        *("run", models, "--task", TASK, "--plugin", "top_k.py", "--strategy", "top-k"),
        *("-o", "strategy.k=2", "--output", "out"),
    )
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert (report["strategy"], len(report["ingredients"])) == ("top-k", 2)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    nets = [timm.create_model("test_resnet", num_classes=3) for _ in range(2)]
    for number, net in enumerate(nets):
        folder = Path(f"runs/{number}")
        folder.mkdir(parents=True)
        torch.save({"state_dict": net.state_dict()}, folder / "model_best.pth.tar")
    images = np.random.default_rng(0).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
    np.savez("data.npz", a_images=images, a_labels=np.arange(30) % 3)
    Path("merge.toml").write_text('[task]\nmodel = "timm:test_resnet"\nsize = "stored"\nheld_out = "data.npz:a"\n')
    exec(blocks(README, "part")["five_lines.py"], {"net": nets[0], "other": nets[1]})  # noqa: S102 (our own page)
    assert "held-out" in capsys.readouterr().out


def test_its_commands_are_commands() -> None:
    fenced = "".join(re.findall(r"^```\n(.*?)^```$", page(README), re.MULTILINE | re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in fenced.splitlines() if line.startswith("merge ")]
    assert len(lines) >= 10
    assert {words[1] for words in lines} <= set(COMMANDS)


def test_the_file_of_the_five_minutes_is_one() -> None:
    written = File.model_validate(tomllib.loads(blocks("getting-started.md", "part")["merge_init.toml"]))
    assert written.pool.models
    assert written.run.strategy == "greedy"


def test_its_table_of_soups_is_the_page_s() -> None:
    """Each of its cells stands in the page's row of the same method, which is made from the committed records."""
    shown = page(README).partition("<!-- soups -->")[2].partition("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in shown.strip().splitlines()[2:]]
    made = page("results/soups.md").partition("<!-- confirmation -->")[2].partition("Accuracies in %")[0]
    assert len(rows) == 7
    for name, *cells in rows:
        (line,) = (line for line in made.splitlines() if line.startswith(f"| {name.partition(' ')[0]} |"))
        found = [cell.strip() for cell in line.strip("| ").split("|")]
        assert [cell for cell in cells if cell not in found] == [], name
