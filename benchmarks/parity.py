"""mergekit's outputs on small inputs, as golden files: ``python -m benchmarks.parity --mergekit PATH --output FOLDER``.

PATH is ``mergekit-pytorch`` of an environment of its own (``python -m venv --system-site-packages``, then ``pip install
PATH is ``mergekit-pytorch`` of an environment of its own (``python -m venv --system-site-packages``; ``pip install
Methods that draw nothing: all output tensors, from float32 and from bfloat16 files (sums in float32, written in the
files' dtype). Methods that draw: what their distribution shows. ``outputs.safetensors`` and ``mergekit.json``, with
version, command and configurations, are written; tests/strategies/test_mergekit.py compares ours with them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SMALL = {"blocks.0.weight": (16, 20), "blocks.0.bias": (20,), "head.weight": (5, 3, 4)}
WIDE = {"wide": (128, 256)}
"""Shapes for methods that draw: enough entries to see a distribution."""
DTYPES = ("float32", "bfloat16")
WEIGHTS = (1.0, 0.5, 0.25)
COMMAND = "mergekit-pytorch CONFIG OUT --random-seed 0"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A merge that both can make.

    Attributes:
        method: Mergekit's name.
        parameters: Mergekit's parameters of the whole merge.
        weights: Mergekit's ``weight`` of each model; none: it has no such parameter.
        strategy: Ours.
        options: Its options, without the weights.
        ours_weigh: Whether the weights are its option ``weights``.
        models: How many models are merged.
        base: The file that is mergekit's base_model; none: it is given none.
        drawn: Whether it drops at random.
    """

    method: str
    strategy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[float] = ()
    ours_weigh: bool = True
    models: int = 3
    base: str = "base"
    drawn: bool = False

    def config(self, folder: Path, dtype: str) -> dict[str, Any]:
        """Mergekit's configuration for the files of a folder."""
        models: list[dict[str, Any]] = [{"model": str(folder / f"model_{k}.safetensors")} for k in range(self.models)]
        for model, weight in zip(models, self.weights, strict=False):
            model["parameters"] = {"weight": weight}
        found = {"merge_method": self.method, "models": models, "dtype": "float32", "out_dtype": dtype}
        if self.base:
            found["base_model"] = str(folder / f"{self.base}.safetensors")
        return found | ({"parameters": dict(self.parameters)} if self.parameters else {})

    def ours(self) -> dict[str, Any]:
        """The options of our strategy."""
        named = [f"model_{k}={weight:g}" for k, weight in enumerate(self.weights[: self.models])]
        return {**self.options, **({"weights": named} if named and self.ours_weigh else {})}


CASES: dict[str, Case] = {
    "linear": Case(method="linear", strategy="weighted", weights=WEIGHTS, base=""),
    "slerp": Case(
        method="slerp",
        strategy="slerp",
        parameters={"t": 0.3},
        options={"t": 0.3, "lengths": "own", "straight": 0.9995},
        models=2,
        base="model_0",
    ),
    "task_arithmetic": Case(
        method="task_arithmetic",
        strategy="task-arithmetic",
        parameters={"lambda": 0.7},
        options={"scale": 0.7},
        weights=WEIGHTS,
    ),
    "ties": Case(
        method="ties",
        strategy="ties",
        parameters={"density": 0.5, "lambda": 0.9},
        options={"density": 0.5, "scope": "tensor", "scale": 0.9},
        weights=WEIGHTS,
    ),
    "ties, sum, l1": Case(
        method="ties",
        strategy="ties",
        parameters={"density": 0.25, "normalize": False, "rescale": True},
        options={"density": 0.25, "scope": "tensor", "normalize": False, "rescale": "l1"},
        weights=WEIGHTS,
    ),
    "breadcrumbs": Case(
        method="breadcrumbs",
        strategy="breadcrumbs",
        parameters={"density": 0.7, "gamma": 0.05, "lambda": 0.8},
        options={"density": 0.7, "gamma": 0.05, "scale": 0.8},
        weights=WEIGHTS,
    ),
    "breadcrumbs_ties": Case(
        method="breadcrumbs_ties",
        strategy="breadcrumbs-ties",
        parameters={"density": 0.9, "gamma": 0.3},
        options={"density": 0.9, "gamma": 0.3, "normalize": False},
        weights=WEIGHTS,
    ),
    "sce": Case(method="sce", strategy="sce", parameters={"select_topk": 0.4}, options={"density": 0.4}),
    "model_stock": Case(method="model_stock", strategy="model-stock", options={"opposed": "formula"}),
    "karcher": Case(
        method="karcher", strategy="karcher", parameters={"max_iter": 100, "tol": 1e-7}, options={}, base=""
    ),
    "multislerp": Case(method="multislerp", strategy="multislerp", weights=WEIGHTS, base=""),
    "multislerp of changes": Case(
        method="multislerp", strategy="multislerp", options={"of": "changes"}, weights=WEIGHTS
    ),
    "nuslerp": Case(
        method="nuslerp",
        strategy="nuslerp",
        options={"t": 0.25},
        weights=(0.6, 0.2),
        ours_weigh=False,
        models=2,
        base="",
    ),
    "nuslerp of changes": Case(
        method="nuslerp",
        strategy="nuslerp",
        options={"t": 0.25, "of": "changes"},
        weights=(0.6, 0.2),
        ours_weigh=False,
        models=2,
    ),
    "nuslerp of rows": Case(
        method="nuslerp",
        strategy="nuslerp",
        parameters={"nuslerp_flatten": False},
        options={"t": 0.25, "of": "changes", "vectors": "rows"},
        weights=(0.6, 0.2),
        ours_weigh=False,
        models=2,
    ),
    "nuslerp of columns": Case(
        method="nuslerp",
        strategy="nuslerp",
        parameters={"nuslerp_flatten": False, "nuslerp_row_wise": True},
        options={"t": 0.25, "of": "changes", "vectors": "columns"},
        weights=(0.6, 0.2),
        ours_weigh=False,
        models=2,
    ),
    "dare_linear": Case(
        method="dare_linear",
        strategy="dare-linear",
        parameters={"density": 0.3},
        options={"drop": 0.7, "rescale": "l1", "scale": 1.0},
        weights=(1.0,),
        models=1,
        drawn=True,
    ),
    "dare_ties": Case(
        method="dare_ties",
        strategy="dare-ties",
        parameters={"density": 0.3},
        options={"drop": 0.7, "rescale": "l1", "normalize": False},
        weights=WEIGHTS,
        drawn=True,
    ),
    "della_linear": Case(
        method="della_linear",
        strategy="della-linear",
        parameters={"density": 0.4, "epsilon": 0.3},
        options={"density": 0.4, "epsilon": 0.3, "rescale": "l1", "scale": 1.0},
        weights=(1.0,),
        models=1,
        drawn=True,
    ),
    "della": Case(
        method="della",
        strategy="della",
        parameters={"density": 0.4, "epsilon": 0.3},
        options={"density": 0.4, "epsilon": 0.3, "rescale": "l1"},
        weights=WEIGHTS,
        drawn=True,
    ),
}


def write_inputs(folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    """Writes a base and three models near it, of unequal distance; numbers of numpy's, the same everywhere."""
    folder.mkdir(parents=True)
    base = {name: np.random.default_rng([0, k]).normal(size=shape) for k, (name, shape) in enumerate(shapes.items())}
    save_file(_tensors(base, dtype), folder / "base.safetensors")
    for model in range(3):
        moved = {
            name: base[name] + 0.1 * (model + 2) * np.random.default_rng([model + 1, k]).normal(size=shape)
            for k, (name, shape) in enumerate(shapes.items())
        }
        save_file(_tensors(moved, dtype), folder / f"model_{model}.safetensors")


def _tensors(arrays: Mapping[str, np.ndarray], dtype: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).float().to(getattr(torch, dtype)) for name, array in arrays.items()}


def distribution(merged: Tensor, folder: Path, case: Case) -> dict[str, Any]:
    """What a merge by a method that draws shows of its distribution.

    Returns:
        ``slope``: of the merged change against the plain weighted sum of changes; ``rest``: squares that it leaves, as
        a share of the sum's; ``kept``: share of entries that changed; ``kept_by_rank``: the same of each tenth of
        the rows by the first model's magnitudes, small ones first.
    """
    files = [load_file(folder / f"{name}.safetensors")["wide"].double() for name in ("base", *_names(case))]
    changes = [file - files[0] for file in files[1:]]
    change = merged.double() - files[0]
    plain = sum((w * c for w, c in zip(case.weights, changes, strict=False)), torch.zeros_like(change))
    slope = float((change * plain).sum() / plain.square().sum())
    kept = change != 0
    ranks = changes[0].abs().argsort(dim=1).argsort(dim=1) * 10 // change.shape[1]
    return {
        "slope": slope,
        "rest": float((change - slope * plain).square().sum() / plain.square().sum()),
        "kept": float(kept.double().mean()),
        "kept_by_rank": [float(kept[ranks == tenth].double().mean()) for tenth in range(10)],
    }


def _names(case: Case) -> list[str]:
    return [f"model_{k}" for k in range(case.models)]


def _merged(program: Path, config: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """Mergekit's tensors of a configuration; JSON is YAML."""
    file, out = folder / "config.yml", folder / "out"
    file.write_text(json.dumps(config))
    words = [str(program), str(file), str(out), "--random-seed", "0", "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")  # noqa: S603 (our own command)
    if done.returncode:
        raise click.ClickException(f"mergekit failed on {config}:\n{done.stderr[-2000:]}")
    return load_file(next(out.glob("*.safetensors")))


def _version(program: Path) -> str:
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('mergekit', 'torch')}))"
    python = program.parent / "python"
    done = subprocess.run([str(python), "-c", code], capture_output=True, encoding="utf-8", check=True)  # noqa: S603
    return done.stdout


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--only", help="Part of a case's name; what is there of the others stays.")
def main(mergekit: Path, output: Path, only: str | None) -> None:
    """Writes mergekit's outputs as golden files."""
    facts: dict[str, Any] = {"versions": json.loads(_version(mergekit)), "command": COMMAND, "configs": {}, "drawn": {}}
    tensors: dict[str, Tensor] = {}
    if only is not None:
        facts, tensors = (
            json.loads((output / "mergekit.json").read_text(encoding="utf-8")),
            load_file(output / "outputs.safetensors"),
        )
    for name, case in CASES.items():
        for dtype in DTYPES[: 1 if case.drawn else 2]:
            if only is not None and only not in name:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "inputs"
                write_inputs(folder, WIDE if case.drawn else SMALL, dtype)
                merged = _merged(mergekit, case.config(folder, dtype), Path(temporary))
                if case.drawn:
                    facts["drawn"][name] = distribution(merged["wide"], folder, case)
                else:
                    tensors |= {f"{dtype}/{name}/{key}": value for key, value in merged.items()}
            facts["configs"][name] = case.config(Path(), dtype)
            click.echo(f"{name}, {dtype}", err=True)
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / "outputs.safetensors")
    (output / "mergekit.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
