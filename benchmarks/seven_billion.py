"""Merges of shards as large as those of a Llama of 7 billion parameters: memory, and time, ours and mergekit's.

``python -m benchmarks.seven_billion --mergekit PATH --layers 4 --json``. Random bfloat16 tensors of Llama-2-7B's
shapes, as many of its 32 blocks as asked for, with embeddings and head; shards of 2 GB with an index, as the Hub has
them. Models beyond the third are the first ones under other names. Every run is a process; ``peak`` is its VmHWM, with
the pages of files that it maps, ``own`` is without them, sampled. Bars: peak below two shards, flat in the models.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.against_mergekit import HIDDEN, INNER, OURS, THEIRS, measured, row
from benchmarks.common import json_option, show
from benchmarks.merge import warm
from merging.storage.dtypes import size_of
from merging.storage.raw import narrow
from merging.storage.shards import ModelWriter

VOCABULARY = 32000
SHARD = 2 * 10**9
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
RUNS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "linear": ("linear", {}, ("--strategy", "uniform")),
    "ties": (
        "ties",
        {"density": 0.5},
        ("--strategy", "ties", *("-o", "strategy.density=0.5", "-o", "strategy.scope=tensor")),
    ),
    "della": ("della", {"density": 0.5, "epsilon": 0.15}, ("--strategy", "della", "-o", "strategy.rescale=l1")),
    "slerp": ("slerp", {"t": 0.5}, ("--strategy", "slerp", "-o", "strategy.lengths=own")),
}
PLAN = (("linear", 2), ("linear", 3), ("linear", 6), ("ties", 2), ("ties", 3), ("ties", 6), ("della", 3), ("slerp", 2))
NOISE = 1 << 24


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Tensors of so many blocks, with embeddings, head and the last norm."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        found |= {f"{block}.self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qkvo"}
        found |= {f"{block}.mlp.{n}_proj.weight": (INNER, HIDDEN) for n in ("gate", "up")}
        found |= {f"{block}.mlp.down_proj.weight": (HIDDEN, INNER)}
        found |= {f"{block}.{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_model(folder: Path, layers: int, number: int) -> None:
    """A random model near model 0: noise that begins elsewhere in each tensor."""
    folder.mkdir(parents=True)
    tensors = {name: (shape, "bfloat16") for name, shape in shapes(layers).items()}
    generator = np.random.default_rng(0)
    noise = generator.standard_normal(NOISE, dtype=np.float32)
    offsets = np.random.default_rng(1).integers(NOISE, size=len(tensors))
    own = np.random.default_rng([2, number]).integers(NOISE, size=len(tensors))
    with ModelWriter(folder, tensors, SHARD) as writer:
        for place, (name, info) in enumerate(sorted(tensors.items())):
            done, total = 0, size_of(info) // 2
            while done < total:
                length = min(NOISE // 4, total - done)
                part = _turned(noise, int(offsets[place]) + done, length) * np.float32(0.02)
                if number:
                    part += _turned(noise, int(own[place]) + done, length) * np.float32(0.002)
                raw = np.empty(2 * length, dtype=np.uint8)
                narrow(part, raw, "bfloat16")
                writer.write(name, 2 * done, raw)
                done += length
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))


def _turned(noise: np.ndarray, start: int, length: int) -> np.ndarray:
    start %= NOISE
    return np.concatenate([noise[start : start + length], noise[: max(start + length - NOISE, 0)]])


def linked(folder: Path, as_: Path) -> None:
    """The same files under another name."""
    as_.mkdir()
    for file in folder.iterdir():
        os.link(file, as_ / file.name)


def commands(name: str, models: list[Path], base: Path, place: Path, python: Path | None) -> Iterator[list[str]]:
    """Our command, and mergekit's."""
    import sys

    method, parameters, options = RUNS[name]
    based = name in ("ties", "della")
    words = [word for path in models for word in ("--models", str(path))]
    yield [
        *(sys.executable, "-c", OURS, "run", *options, *words, "--max-shard-size", "2GB", "--overwrite"),
        *(["--base", str(base)] if based else []),
        *("--output", str(place / "ours")),
    ]
    if python is not None:
        config: dict[str, Any] = {"merge_method": method, "dtype": "bfloat16", "parameters": parameters}
        config["models"] = [{"model": str(path), "parameters": {"weight": 1.0}} for path in models]
        if based or name == "slerp":
            config["base_model"] = str(base if based else models[0])
        (place / "config.yml").write_text(json.dumps(config))
        flags = ["--lazy-unpickle", "--num-threads", "2", "--no-copy-tokenizer", "--quiet", "--random-seed", "0"]
        code = THEIRS.replace("merge_raw_pytorch", "run_yaml")
        yield [str(python), "-c", code, str(place / "config.yml"), str(place / "mergekit"), *flags]


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), help="mergekit-yaml; none: ours alone.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where there is room; what is written there goes.")
@click.option("--layers", type=int, default=6, show_default=True)
@click.option("--only", multiple=True, type=click.Choice([f"{name}-{models}" for name, models in PLAN]))
@json_option
def main(mergekit: Path | None, folder: Path | None, layers: int, only: tuple[str, ...], as_json: bool) -> None:
    """Large shards: a row a run."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        for number in range(4):
            write_model(place / f"model_{number}", layers, number)
        for number in range(4, 7):
            linked(place / f"model_{number - 3}", place / f"model_{number}")
        base, models = place / "model_0", [place / f"model_{number}" for number in range(1, 7)]
        shard = max(file.stat().st_size for file in base.glob("*.safetensors")) / 2**20
        for method, count in PLAN:
            if only and f"{method}-{count}" not in only:
                continue
            warm(sorted(path for path in place.glob("model_[0-3]/*.safetensors")))
            python = mergekit.parent / "python" if mergekit is not None and count <= 3 else None
            made = [
                measured(words, Path(words[-1]) if words[0] != str(python) else place / "mergekit")
                for words in commands(method, models[:count], base, place, python)
            ]
            found = row([(made[0], made[-1])], method)
            kept = {key: value for key, value in found.items() if python is not None or "ratio" not in key}
            kept = {key: value for key, value in kept.items() if python is not None or "mergekit" not in key}
            kept = {key: value for key, value in kept.items() if "range" not in key and key != "pairs"}
            rows.append(kept | {"models": count, "shard_mib": shard, "peak_in_shards": made[0].peak / shard})
            click.echo(json.dumps(rows[-1]), err=True)
    show("seven_billion", rows, as_json=as_json)


if __name__ == "__main__":
    main()
