"""mergekit's results of whole configurations: ``python -m benchmarks.parity_files --mergekit PATH --output FOLDER``.

PATH is the folder of an environment of its own (``python -m venv --system-site-packages``; ``pip install --no-deps
mergekit immutables``). The configurations of tests/mergekit/configurations are merged by mergekit-yaml, on a small
Llama that transformers saves. ``outputs.safetensors``, ``config.json`` (transformers' own) and ``mergekit.json``, with
versions and command, are written to FOLDER; tests/mergekit/test_parity.py compares `merge run` of the same files.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file

CONFIGURATIONS = Path(__file__).parents[1] / "tests" / "mergekit" / "configurations"
MODELS = ("base", "first", "second", "third")
COMMAND = "mergekit-yaml CONFIG OUT --random-seed 0 --no-write-model-card --no-copy-tokenizer"
_MANY = """
import sys
from mergekit.scripts.run_yaml import main
for name in sys.argv[1:]:
    words = [f"{name}.yml", f"out/{name}", "--random-seed", "0", "--no-write-model-card", "--no-copy-tokenizer"]
    main([*words, "--quiet"], standalone_mode=False)
"""
"""mergekit-yaml on several files: the imports take longer than a merge."""


def numbers(model: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A model's tensors, in float32: near the base's; numbers of numpy's, the same everywhere."""
    own, found = MODELS.index(model), dict[str, torch.Tensor]()
    for place, name in enumerate(sorted(shapes)):
        values = 0.3 * np.random.default_rng([7, place]).normal(size=shapes[name])
        if own:
            values += 0.05 * (own + 1) * np.random.default_rng([own, place]).normal(size=shapes[name])
        found[name] = torch.from_numpy(values).float()
    return found


def write_models(folder: Path, config: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Writes the four models as transformers saves them, a folder each."""
    for model in MODELS:
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_bytes(config.read_bytes())
        save_file(numbers(model, shapes), folder / model / "model.safetensors", {"format": "pt"})


def _saved(folder: Path) -> None:
    """Has transformers save the same models."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 10, "hidden_size": 6, "intermediate_size": 9, "num_hidden_layers": 4}
    module = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, num_key_value_heads=1))
    for model in MODELS:
        values = numbers(model, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})
        module.load_state_dict(values)
        module.save_pretrained(folder / model)


def _versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ("mergekit", "torch", "transformers")
    done = subprocess.run([str(python), "-c", code % (names,)], capture_output=True, encoding="utf-8", check=True)  # noqa: S603
    found: dict[str, str] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--only", default="", help="Part of a configuration's name; what is there of the others stays.")
def main(mergekit: Path, output: Path, only: str) -> None:
    """Writes mergekit's results as golden files."""
    python, tensors = mergekit / "bin" / "python", dict[str, torch.Tensor]()
    if only:
        tensors = load_file(output / "outputs.safetensors")
    names = sorted(file.stem for file in CONFIGURATIONS.glob("*.yml") if only in file.stem)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _saved(folder)
        for name in names:
            (folder / f"{name}.yml").write_bytes((CONFIGURATIONS / f"{name}.yml").read_bytes())
        subprocess.run([str(python), "-c", _MANY, *names], cwd=folder, check=True)  # noqa: S603 (our own command)
        for name in names:
            merged = load_file(folder / "out" / name / "model.safetensors")
            tensors |= {f"{name}/{key}": value for key, value in merged.items()}
        output.mkdir(parents=True, exist_ok=True)
        (output / "config.json").write_bytes((folder / "base" / "config.json").read_bytes())
    save_file(tensors, output / "outputs.safetensors")
    (output / "outputs.safetensors").chmod(0o644)
    facts = {"versions": _versions(python), "command": COMMAND}
    (output / "mergekit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
