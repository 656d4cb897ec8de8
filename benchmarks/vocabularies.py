"""mergekit's merges of models with several vocabularies, as golden files.

``python -m benchmarks.vocabularies --mergekit PATH --output FOLDER``: PATH is ``mergekit-yaml`` of an environment of
its own (:mod:`benchmarks.parity`). Of each output the rows of embedding and head are kept, with token → id; versions,
command and configurations stand beside them. tests/models/test_vocabularies.py compares ours with them.
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

COMMAND = "mergekit-yaml CONFIG OUT --quiet"
ROWS = {"embed": "model.embed_tokens.weight", "head": "lm_head.weight"}
SPECIAL = ("<unk>", "<pad>", "</s>")
WORDS = (*SPECIAL, *(f"w{number}" for number in range(20)))
HIDDEN, INNER, LAYERS = 16, 24, 2


@dataclass(frozen=True)
class Model:
    """One of the models: its words in the order of their ids, tokens that were added after them, rows of padding."""

    words: Sequence[str] = WORDS
    added: Sequence[str] = ()
    spare: int = 0


MODELS = {
    "base": Model(),
    "m0": Model(added=("<a>", "<b>")),
    "m1": Model((*SPECIAL, *WORDS[:2:-1]), ("<b>", "<c>")),
    "m2": Model(WORDS[:20], spare=12),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A merge that both can make.

    Attributes:
        method: Mergekit's name of the method.
        source: Mergekit's ``tokenizer.source``; a name is a model's.
        ours: Our strategy.
        told: Our settings.
        parameters: Mergekit's parameters of the whole merge.
        options: Our strategy's options.
        base: Whether there is a base.
        multiple: ``pad_to_multiple_of`` of both.
        dtype: Dtype of the models.
    """

    method: str
    ours: str
    source: str = "union"
    told: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    base: bool = True
    multiple: int | None = None
    dtype: str = "float32"

    @property
    def tokenizer_source(self) -> str:
        """Our setting."""
        return self.told or self.source

    def config(self, folder: Path) -> dict[str, Any]:
        """Mergekit's configuration for the models of a folder."""
        more = {"parameters": {"weight": 1.0}}
        named = self.source not in ("union", "base")
        tokenizer: dict[str, Any] = {"source": str(folder / self.source) if named else self.source}
        tokenizer |= {} if self.multiple is None else {"pad_to_multiple_of": self.multiple}
        return {
            "merge_method": self.method,
            "models": [{"model": str(folder / name)} | more for name in MODELS if name != "base"],
            "parameters": dict(self.parameters),
            "dtype": self.dtype,
            "tokenizer": tokenizer,
        } | ({"base_model": str(folder / "base")} if self.base else {})


CASES = {
    "linear, union": Case(method="linear", ours="uniform", base=False),
    "linear, first": Case(method="linear", ours="uniform", base=False, source="m0", told="first"),
    "linear, m1": Case(method="linear", ours="uniform", base=False, source="m1"),
    "linear, union, padded": Case(method="linear", ours="uniform", base=False, multiple=8),
    "linear, union, bfloat16": Case(method="linear", ours="uniform", base=False, dtype="bfloat16"),
    "task_arithmetic, union": Case(method="task_arithmetic", ours="task-arithmetic", options={"scale": 1.0}),
    "task_arithmetic, base": Case(
        method="task_arithmetic", ours="task-arithmetic", source="base", options={"scale": 1.0}
    ),
    "ties, union, padded": Case(
        method="ties",
        ours="ties",
        parameters={"density": 1.0, "lambda": 0.8},
        options={"density": 1.0, "scale": 0.8, "scope": "tensor"},
        multiple=16,
    ),
}


def write_inputs(folder: Path, dtype: str) -> None:
    """Writes Llamas of two layers, with a tokenizer of whole words each; numbers of numpy's, the same everywhere."""
    for number, (name, model) in enumerate(MODELS.items()):
        ids = {token: place for place, token in enumerate((*model.words, *model.added))}
        rows, place = len(ids) + model.spare, folder / name
        place.mkdir(parents=True)
        shapes = {"model.norm.weight": (HIDDEN,), **{name: (rows, HIDDEN) for name in ROWS.values()}}
        for layer in range(LAYERS):
            inside = {
                "mlp.gate_proj": (INNER, HIDDEN),
                "mlp.up_proj": (INNER, HIDDEN),
                "mlp.down_proj": (HIDDEN, INNER),
            }
            inside |= {f"self_attn.{each}_proj": (HIDDEN, HIDDEN) for each in "qkvo"}
            inside |= {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
            shapes |= {f"model.layers.{layer}.{key}.weight": shape for key, shape in inside.items()}
        state = {
            key: torch.from_numpy(np.random.default_rng([number, place]).normal(size=shape)).to(getattr(torch, dtype))
            for place, (key, shape) in enumerate(shapes.items())
        }
        save_file(state, place / "model.safetensors", {"format": "pt"})
        for file, content in (("config", _config(rows, dtype)), ("tokenizer", _tokenizer(ids, model.added))):
            (place / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "<pad>"}
        (place / "tokenizer_config.json").write_text(json.dumps(said | {"eos_token": "</s>"}), encoding="utf-8")


def _config(rows: int, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "vocab_size": rows,
        "pad_token_id": 1,
        "bos_token_id": None,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
    }


def _tokenizer(ids: Mapping[str, int], added: Sequence[str]) -> dict[str, Any]:
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocabulary = {token: number for token, number in ids.items() if token not in added}
    return {
        "version": "1.0",
        "added_tokens": [{"id": ids[token], "content": token, **entry} for token in (*SPECIAL, *added)],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


def rows_of(folder: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The rows of a model's embedding and head, and token → id."""
    state: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        state |= load_file(file)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = data["model"]["vocab"] | {each["content"]: each["id"] for each in data["added_tokens"]}
    return {name: state[key] for name, key in ROWS.items()}, ids


@click.command()
@click.option("--mergekit", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(mergekit: Path, output: Path) -> None:
    """Writes mergekit's rows as golden files."""
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in NAMES}))"
    names = "('mergekit', 'torch', 'transformers', 'tokenizers')"
    asked = [str(mergekit.parent / "python"), "-c", code.replace("NAMES", names)]
    versions = json.loads(subprocess.run(asked, capture_output=True, encoding="utf-8", check=True).stdout)  # noqa: S603
    facts: dict[str, Any] = {"versions": versions, "command": COMMAND, "configs": {}, "ids": {}}
    tensors: dict[str, Tensor] = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder, out = Path(temporary) / "inputs", Path(temporary) / "out"
            write_inputs(folder, case.dtype)
            (file := Path(temporary) / "config.yml").write_text(json.dumps(case.config(folder)), encoding="utf-8")
            words = [str(mergekit), str(file), str(out), "--quiet"]
            done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")  # noqa: S603 (our own)
            if done.returncode:
                raise click.ClickException(f"mergekit failed on {name}:\n{done.stderr[-2000:]}")
            rows, facts["ids"][name] = rows_of(out)
            tensors |= {f"{name}/{key}": value for key, value in rows.items()}
            facts["configs"][name] = case.config(Path())
        click.echo(name, err=True)
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / "outputs.safetensors")
    (output / "mergekit.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
