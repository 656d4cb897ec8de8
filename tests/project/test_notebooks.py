"""The notebooks run as they stand, from a fresh kernel, and their stored outputs are what their cells show."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
TRAINED = ("soup_of_your_timm_models",)
"""Notebooks whose figures are those of the machine that trained the models."""
LARGEST = 400_000
"""Bytes of a notebook: what forges still show."""
OURS = re.compile(r"/(?:home|Users|root|tmp|work|private)/")


@functools.cache
def renew() -> Any:
    """The program that stores the outputs."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (extra dev-full)")
    spec = importlib.util.spec_from_file_location("renew_notebooks", FOLDER / "renew.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))
    return found


def joined(text: str | list[str]) -> str:
    return "".join(text)


def outputs(name: str) -> list[dict[str, Any]]:
    return [output for cell in stored(name)["cells"] for output in cell.get("outputs", [])]


def test_there_are_three() -> None:
    assert NAMES == ["read_a_benchmark", "soup_of_your_timm_models", "write_a_strategy"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_shows_what_is_stored(name: str) -> None:
    program = renew()
    import nbformat

    before = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    after = program.executed(FOLDER / f"{name}.ipynb")
    if name in TRAINED and before.metadata["merging"]["machine"] != program.machine():
        return  # every cell has run; its figures are another processor's
    for old, new in zip(before.cells, after.cells, strict=True):
        assert program.said(old) == program.said(new), f"python examples/notebooks/renew.py {name}, then read git diff"
        assert program.kinds(old) == program.kinds(new)


@pytest.mark.parametrize("name", NAMES)
def test_a_forge_can_show_it(name: str) -> None:
    """Small, every cell run in order, nothing failed; a picture is a PNG, and HTML reads without style and script."""
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    code = [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for output in outputs(name):
        assert output["output_type"] != "error"
        data = output.get("data", {})
        assert any(kind in data for kind in ("text/html", "image/png", "text/plain")) or output.get("text")
        assert "<svg" not in joined(data.get("text/html", ""))
        assert "<script" not in joined(data.get("text/html", ""))
    shown = [joined(output.get("data", {}).get("text/html", "")) for output in outputs(name)]
    assert sum('src="data:image/png;base64,' in html for html in shown) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_machine_is_stored(name: str) -> None:
    book = stored(name)
    assert set(book["metadata"]) == {"kernelspec", "language_info", "merging"}
    for cell in book["cells"]:
        assert cell["metadata"] == {}
    for output in outputs(name):
        for kind, text in {"stream": output.get("text", ""), **output.get("data", {})}.items():
            shown = "" if kind == "image/png" else re.sub(r"base64,[^\"]*", "", joined(text))
            assert OURS.search(shown) is None
            assert "\x1b" not in shown


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name: str) -> None:
    text = "".join(joined(cell["source"]) for cell in stored(name)["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert links
    for link in links:
        assert (FOLDER / link).exists(), link


def test_times_are_masked_and_figures_are_not() -> None:
    masked = renew().SECONDS.sub
    assert masked("?", "36 evaluations, 1.3 s; inference") == "36 evaluations, ?; inference"
    assert masked("?", "took less than 1 s; 0.4") == "took ?; ?"
    for figure in ("+2.3 [+0.6, -4.1] p=.003", "±1.3", "97.25", "13.4 points", "resnet18.a1", "conv1.0"):
        assert masked("?", figure) == figure
