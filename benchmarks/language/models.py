"""The tokenizer, the pretrained model, and the pools that are fine-tuned from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.language.training import Recipe, train
from merging.storage import atomic

WORDS, CONTEXT = 4096, 256
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}
"""Of the Llama: 3.4 million parameters."""
PRETRAINING = Recipe(steps=2400, rate=2e-3, decay=0.1, batch=16, length=CONTEXT)
RUNS = 8


def make_tokenizer(corpora: Path, folder: Path, words: int = WORDS) -> None:
    """Learns byte pairs on the general text and writes a tokenizer that transformers loads."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_texts(corpora / "general_train.jsonl"), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",  # noqa: S106 (no password)
        eos_token="</s>",  # noqa: S106
        pad_token="</s>",  # noqa: S106
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(str(folder))


def encoded(corpora: Path, folder: Path, domain: str) -> NDArray[np.int64]:
    """All documents of a domain's training part one after the other, a mark of the end behind each."""
    tokenizer, texts = loaded_tokenizer(folder), list(_texts(corpora / f"{domain}_train.jsonl"))
    parts = []
    for start in range(0, len(texts), 1000):
        ids = tokenizer(texts[start : start + 1000], add_special_tokens=False, verbose=False)["input_ids"]
        parts += [np.array([*row, tokenizer.eos_token_id], dtype=np.int64) for row in ids]
    return np.concatenate(parts)


def pretrain(corpora: Path, folder: Path, recipe: Recipe = PRETRAINING, shape: dict[str, Any] | None = None) -> None:
    """Trains the model that all others begin with, beside its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "training.json").is_file():
        return
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, **(shape or SHAPE))
    module = LlamaForCausalLM(config)
    told = train(module, encoded(corpora, folder, "general"), recipe, folder / "state.pt")
    module.save_pretrained(str(folder))
    told["parameters"] = sum(each.numel() for each in module.parameters())
    atomic.write(folder / "training.json", json.dumps(told, indent=1) + "\n")


def sweep(domain: str, runs: int = RUNS) -> list[dict[str, Any]]:
    """Settings of a domain's runs, drawn once: the same ones every time.

    Adapters learn with a rate four times as large.
    """
    draw = np.random.default_rng([29, sum(domain.encode())])
    adapters = domain == "essays"
    found = []
    for number in range(runs):
        rate = float(np.exp(draw.uniform(np.log(2e-4), np.log(2e-3))))
        found.append(
            {
                "rate": round(rate * (4 if adapters else 1), 6),
                "steps": int(draw.choice([80, 140, 200])),
                "decay": float(draw.choice([0.0, 0.01, 0.1])),
                "rank": int(draw.choice([4, 8, 16])) if adapters else None,
                "seed": number + 1,
            }
        )
    return found


def finetune(corpora: Path, base: Path, domain: str, folder: Path, settings: dict[str, Any]) -> None:
    """Trains one model of a pool; one with a rank is an adapter of PEFT over the base."""
    from transformers import AutoModelForCausalLM

    if (folder / "training.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(**{key: value for key, value in settings.items() if key != "rank"})
    module: Any = AutoModelForCausalLM.from_pretrained(base)
    if settings["rank"] is not None:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(recipe.seed)
        rank = settings["rank"]
        module = get_peft_model(module, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    told = train(module, encoded(corpora, base, domain), recipe, folder / "state.pt")
    module.save_pretrained(str(folder))
    if settings["rank"] is None:
        loaded_tokenizer(base).save_pretrained(str(folder))
    atomic.write(folder / "training.json", json.dumps(settings | told, indent=1) + "\n")


def loaded_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
