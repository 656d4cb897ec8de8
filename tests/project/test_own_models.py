"""docs/your-own-models.md, command by command: a newcomer's way from a folder of images to a merged model."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from merging.cli import main as command_line
from tests.project.test_docs import blocks, write_files

pytestmark = pytest.mark.slow

PAGE = "your-own-models.md"


def typed(line: str) -> str:
    """Runs a line in this process, as if typed in the working folder (loading torch again for each takes minutes)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", shlex.split(line))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if sys.argv[0] == "python":
                runpy.run_path(sys.argv[1], run_name="__main__")
            else:
                with pytest.raises(SystemExit) as ended:
                    command_line.main()
                assert not ended.value.code, f"{line}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder after all commands of the page, and what each said."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_files(PAGE, folder)
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "120")
        for text in blocks(PAGE, "run").values():
            for line in text.splitlines():
                said[line] = typed(line)
        for number, program in blocks(PAGE, "run-python").items():
            Path(f"program_{number}.py").write_text(program)
            said[f"program {number}"] = typed(f"python program_{number}.py")
    return folder, said


def test_images(said: tuple[Path, dict[str, str]]) -> None:
    folder, lines = said
    checked = next(text for line, text in lines.items() if line.startswith("merge check --models"))
    assert "Everything fits" in checked
    assert re.search(r"manifoldmix: about [\d,]+ evaluations", checked)
    assert re.search(r"held-out\s+500\s+10\s", checked)
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    for name in ("greedy", "mix"):
        report = json.loads((folder / f"runs/{name}/report.json").read_text())
        assert report["status"] == "finished"
        assert report["validation"]["merged"] >= report["validation"]["best_single"] > 0.8


def test_texts(said: tuple[Path, dict[str, str]]) -> None:
    folder, lines = said
    checked = next(text for line, text in lines.items() if line.startswith("merge check --task texts.toml"))
    assert "Everything fits" in checked
    assert re.search(r"negative: (the|its|their) \w+ is", checked)  # texts are shown as texts
    assert "also in" not in checked
    report = json.loads((folder / "runs/texts/report.json").read_text())
    assert report["validation"]["merged"] >= report["validation"]["best_single"] > 0.8
    assert "positive" in list(lines.values())[-1]  # the merged folder, loaded by transformers alone
