"""What docs/why.md says was tried with mergekit: ``python -m benchmarks.peers_tried --mergekit PATH``.

PATH is the folder of an environment that has it. Four small Llamas are merged by DARE three times with one seed, in
processes of their own, whose sets have other orders; then with a key and a parameter that do not exist.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import click
from safetensors import safe_open

from benchmarks.parity_files import CONFIGURATIONS, write_models

GOLDEN = CONFIGURATIONS.parent / "golden"
CONFIGURATION = """\
merge_method: dare_linear
base_model: {base}
models:
  - {{model: {first}, parameters: {{weight: 0.5, density: 0.5}}}}
  - {{model: {second}, parameters: {{weight: 0.5, density: 0.5}}}}
dtype: float32
"""
SLIPS = {"density": "densty", "dtype": "dtpye"}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the small Llama, as mergekit's golden results have them."""
    with safe_open(GOLDEN / "outputs.safetensors", "pt") as file:
        first = next(iter(file.keys())).partition("/")[0]
        return {
            name.partition("/")[2]: tuple(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118 (no mapping)
            if name.startswith(f"{first}/")
        }


def merged(program: Path, text: str, folder: Path, order: int) -> str:
    """Runs a configuration; says how it ended, and which bits came of it."""
    (folder / "config.yml").write_text(text, encoding="utf-8")
    out = folder / f"{program.name}-{len(list(folder.iterdir()))}"
    command = [str(program), "config.yml", str(out), "--random-seed", "7"]
    if program.name == "mergekit-yaml":
        command.append("--no-copy-tokenizer")
    environment = {**os.environ, "PYTHONHASHSEED": str(order), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)  # noqa: S603
    result = out / "model.safetensors"
    bits = hashlib.sha256(result.read_bytes()).hexdigest()[:12] if result.exists() else "no model"
    return f"exit code {done.returncode}, {bits}"


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), required=True)
def main(mergekit: Path) -> None:
    """Runs all of it, and says what came of each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, GOLDEN / "config.json", shapes())
        for name, models in {"mergekit-yaml": "{}", "mergekit-pytorch": "{}/model.safetensors"}.items():
            places = {model: folder / models.format(model) for model in ("base", "first", "second")}
            text = CONFIGURATION.format(**places)
            for order in (1, 2, 3):
                click.echo(f"{name}, DARE: {merged(mergekit / 'bin' / name, text, folder, order)}")
            for right, slip in SLIPS.items():
                said = merged(mergekit / "bin" / name, text.replace(right, slip), folder, 1)
                click.echo(f"{name}, {slip}: {said}")


if __name__ == "__main__":
    main()
