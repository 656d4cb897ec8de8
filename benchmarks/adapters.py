"""The adapters that tests compare with PEFT: each folder with what ``merge_and_unload`` makes of it.

    pip install peft==0.21.2 transformers==5.24.0
    python -m benchmarks.adapters [FOLDER]

Bases and adapters are tiny and random; ``merged.golden`` (of safetensors) holds the tensors that the adapter changed,
in the names of the base's file, and ``made.json`` says the versions. Without FOLDER what the tests read is made anew.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parent.parent / "tests/storage/adapters"
VIT = transformers.ViTConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    image_size=16,
    patch_size=8,
    num_labels=3,
)
GPT2 = transformers.GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2)
LLAMA = transformers.LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=16,
    tie_word_embeddings=False,
)


class Convolutions(nn.Module):
    """Convolutions of one and of three pixels, of sequences, and attention of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.line = nn.Conv1d(6, 8, 3)
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of three classes."""
        x = self.line(self.narrow(self.wide(x)).flatten(2)).permute(2, 0, 1)
        return self.head(self.attention(x, x, x)[0].mean(0))


def model_of(base: str) -> nn.Module:
    """A random model, always the same."""
    torch.manual_seed(7)
    if base == "vit":
        return transformers.ViTForImageClassification(VIT)
    if base == "gpt2-scores":
        return transformers.GPT2ForSequenceClassification(
            transformers.GPT2Config(**GPT2.to_diff_dict() | {"num_labels": 3, "n_layer": 1, "pad_token_id": 0})
        )
    if base == "gpt2":
        return transformers.GPT2LMHeadModel(GPT2)
    if base == "llama":
        return transformers.LlamaForCausalLM(LLAMA)
    return Convolutions()


BASES = ("vit", "gpt2", "llama", "convolutions", "gpt2-scores")
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vit", {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["classifier"]}),
    "patterns": (
        "vit",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": ["q_proj", "v_proj", "fc1"],
            "rank_pattern": {"layers.1.attention.q_proj": 4, "v_proj": 1},
            "alpha_pattern": {"^vit.layers.0.attention.v_proj": 9},
        },
    ),
    "rooted": ("vit", {"r": 5, "lora_alpha": 3, "use_rslora": True, "target_modules": ["o_proj", "projection"]}),
    "dora": ("vit", {"r": 3, "use_dora": True, "target_modules": ["q_proj", "projection"], "bias": "lora_only"}),
    "biases": ("vit", {"r": 2, "target_modules": ["q_proj"], "bias": "all"}),
    "transposed": ("gpt2", {"r": 3, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "transposed-dora": (
        "gpt2",
        {"r": 3, "use_dora": True, "target_modules": ["c_attn", "wte"], "fan_in_fan_out": True},
    ),
    "embedding": ("llama", {"r": 3, "target_modules": ["embed_tokens", "q_proj"], "lora_bias": False}),
    "saved": ("llama", {"r": 2, "target_modules": ["down_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    "convolutions": (
        "convolutions",
        {"r": 2, "lora_alpha": 5, "target_modules": ["wide", "narrow", "line", "attention"]},
    ),
    "convolutions-dora": ("convolutions", {"r": 2, "use_dora": True, "target_modules": ["wide", "narrow", "line"]}),
    "convolutions-bias": ("convolutions", {"r": 2, "lora_bias": True, "target_modules": ["wide", "head"]}),
    "tokens": ("llama", {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": [3, 0, 39, 17]}),
    "tokens-tied": (
        "gpt2",
        {"r": 2, "target_modules": ["c_fc"], "fan_in_fan_out": True, "trainable_token_indices": {"wte": [5, 1]}},
    ),
    # of square layers with the inputs first, and one with the outputs: the configuration keeps the last one's order
    "square": ("gpt2-scores", {"r": 2, "target_modules": ["attn.c_proj", "score"], "fan_in_fan_out": True}),
}


def make_base(base: str, folder: Path) -> None:
    """Saves a base."""
    folder.mkdir(parents=True)
    model = model_of(base)
    if base == "convolutions":
        save_file(model.state_dict(), folder / "model.safetensors")
    else:
        model.save_pretrained(folder)


def loaded(base: str, folder: Path) -> nn.Module:
    """A base as it was saved."""
    model = model_of(base)
    if base == "convolutions":
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
    return type(model).from_pretrained(folder)


def make_adapter(base: str, bases: Path, folder: Path, options: dict[str, Any], seed: int = 0) -> None:
    """Saves a random adapter."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(100 + seed)
    model = get_peft_model(loaded(base, bases / base), LoraConfig(**options))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name or weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = base
    for key in ("target_modules", "modules_to_save"):  # a set's order is none
        config[key] = sorted(config[key]) if isinstance(config[key], list) else config[key]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")


def merged(base: str, bases: Path, folder: Path, to: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The tensors of what PEFT makes of an adapter, in the names of the base's file."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(loaded(base, bases / base).to(dtype), folder).to(dtype).merge_and_unload()
    if base == "convolutions":
        return dict(model.state_dict())
    model.save_pretrained(to)
    return load_file(to / "model.safetensors")


def main(folder: Path) -> None:
    """Writes bases, adapters, and what these change."""
    import peft

    bases = folder / "bases"
    for place in (bases, folder / "adapters"):
        shutil.rmtree(place, ignore_errors=True)
    for base in BASES:
        make_base(base, bases / base)
    for number, (name, (base, options)) in enumerate(ADAPTERS.items()):
        make_adapter(base, bases, folder / "adapters" / name, options, number)
        whole = merged(base, bases, folder / "adapters" / name, folder / "scratch")
        before = load_file(bases / base / "model.safetensors")
        changed = {
            key: value for key, value in whole.items() if key not in before or not torch.equal(value, before[key])
        }
        save_file(changed, folder / "adapters" / name / "merged.golden")
        shutil.rmtree(folder / "scratch", ignore_errors=True)
    versions = {"peft": peft.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    (folder / "made.json").write_text(
        json.dumps({"command": "python -m benchmarks.adapters"} | versions, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
