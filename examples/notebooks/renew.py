"""Runs the notebooks beside it in fresh kernels and stores what their cells show; read ``git diff`` afterwards.

    python examples/notebooks/renew.py [NAME …]

Nothing of the machine is stored but what decides its bits: no paths, no times of execution, no progress bars. Outputs
that say the same as before, but for seconds, stay as they are. Pictures are stored as small PNG, those inside HTML too:
forges and viewers that do not trust a notebook leave out SVG, but for its words, and know no Vega-Lite.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
SECONDS = re.compile(
    r"\b(?:(?:less than )?\d+(?:\.\d+)? ?s|\d+ seconds)\b|(?<![±+−,.\w\[-])\d[\d,]*\.\d(?![\w.]| points)"
)
"""Times in what a cell shows: with a unit, or with one decimal, which nothing else has without a sign."""
PICTURE = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
VARIABLE = re.compile(r"var\(--[\w-]+,\s*([^()]*(?:\([^()]*\))?)\)")
TAGS = re.compile(r"<style.*?</style>|<svg\b.*?</svg>|</?(?:b|i|u|em|strong|span|a)\b[^>]*>", re.DOTALL)
COLOURS = 64
"""Colours of a PNG that is stored."""


def executed(path: Path) -> Any:
    """Runs all cells of a notebook in a fresh kernel and a folder of its own, beside the documentation.

    Raises:
        CellExecutionError: a cell fails.
    """
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve() / "examples" / "notebooks"
        folder.mkdir(parents=True)
        (folder.parents[1] / "docs").symlink_to(ROOT / "docs")
        own = {"MERGING_CACHE": f"{root}/cache", "IPYTHONDIR": f"{root}/ipython", "OMP_NUM_THREADS": "1"}
        env = os.environ | own | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        where = {"metadata": {"path": str(folder)}}
        client = NotebookClient(book, timeout=300, kernel_name="python3", resources=where, coalesce_streams=True)
        client.execute(env=env)
    return tidied(book, f"{folder}/", f"{ROOT}/")


def tidied(book: Any, *folders: str) -> Any:
    """Leaves out what changes from run to run and from machine to machine.

    Args:
        book: the notebook.
        folders: paths that are left out, each with a slash at its end.
    """
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata = {"kernelspec": python, "language_info": {"name": "python"}, "merging": {"machine": machine()}}
    for cell in book.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            shown = json.dumps([each for each in cell.outputs if not passing(each)])
            for folder in folders:
                shown = shown.replace(folder, "")
            cell.outputs = [nbformat.from_dict(each) for each in json.loads(shown)]
            for data in (output.get("data", {}) for output in cell.outputs):
                for kind in [kind for kind in data if "vegalite" in kind]:
                    del data[kind]
                if "text/html" in data:
                    data["text/html"] = PICTURE.sub(lambda found: as_image(found[0]), data["text/html"])
                if "image/png" in data:
                    data["image/png"] = small(base64.b64decode(data["image/png"]))
    return book


def machine() -> str:
    """Says what decides the bits of training and scoring on a CPU."""
    import torch

    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", cpu.read_text("utf-8") if cpu.exists() else "", re.MULTILINE)
    named = names[0] if names else platform.machine()
    return f"{named}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def passing(output: Any) -> bool:
    """Whether an output goes away by itself: a progress bar, as text or as a widget."""
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or (output.output_type == "stream" and output.name == "stderr" and "\r" in output.text)


def as_image(svg: str) -> str:
    """The same picture as an image in HTML, in the colours of a light page."""
    import vl_convert

    drawn = VARIABLE.sub(r"\1", svg).replace("currentColor", "#1a1d21")
    width, label = (re.search(rf'{name}="([^"]*)"', svg) for name in (" width", "aria-label"))
    png = small(vl_convert.svg_to_png(drawn, scale=2))
    return (
        f'<img width="{width[1] if width else ""}" alt="{label[1] if label else ""}" src="data:image/png;base64,{png}">'
    )


def small(png: bytes) -> str:
    """A PNG of few colours on a white ground, as base64."""
    from PIL import Image

    drawn, out = Image.open(io.BytesIO(png)).convert("RGBA"), io.BytesIO()
    ground = Image.new("RGBA", drawn.size, "white")
    Image.alpha_composite(ground, drawn).convert("RGB").quantize(COLOURS).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def said(cell: Any) -> list[str]:
    """The texts that a cell shows, a line each, with a question mark in the place of times."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {"text/plain": output.get("text", "")})
        text = data.get("text/html") or data.get("text/plain", "")
        if "text/html" in data:
            text = html.unescape(re.sub(r"<[^>]*>", "\n", TAGS.sub("", text)))
        found += [SECONDS.sub("?", line.strip()) for line in text.splitlines() if line.strip()]
    return found


def kinds(cell: Any) -> list[set[str]]:
    """The forms in which each output of a cell is stored."""
    return [set(output.get("data", {})) for output in cell.get("outputs", [])]


def main(names: list[str]) -> None:
    """Renews the notebooks with these names, or all of them."""
    for path in NOTEBOOKS:
        if names and path.stem not in names and path.name not in names:
            continue
        before, book = nbformat.read(path, as_version=4), executed(path)
        known = {cell.source: cell for cell in before.cells}
        for cell in (cell for cell in book.cells if cell.cell_type == "code"):
            old = known.get(cell.source, {})
            if (said(old), kinds(old)) == (said(cell), kinds(cell)):
                cell.outputs = old.get("outputs", [])
        nbformat.write(book, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
