"""Measures how far log-likelihoods are from transformers' own loss, architecture by architecture.

``python -m benchmarks.causal_models`` makes a tiny random model of each architecture in float32, writes it as
transformers does, reads it through a pool, and compares: the mean loss of each document with
``model(input_ids, labels=...).loss``, each choice of a question with a sum over ``log_softmax`` of the model's logits,
the gradient, and a pass that is divided into stages, which must have the same bits. The figures are in
``docs/causal-models.json``. Takes ten seconds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

import merging
from merging.forward.fitting import check_fits
from merging.plugins.sequences import HEADER, Sequences
from merging.storage.pool import ModelPool

OUT = Path(__file__).parent.parent / "docs" / "causal-models.json"
ROWS = 100
"""Size of the vocabularies."""
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_OLD = {"vocab_size": ROWS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **_TOKENS}
_NEW = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    **_TOKENS,
}
_PLAIN = {"vocab_size": ROWS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_TOKENS}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", _NEW),
    "Llama, tied": ("Llama", {**_NEW, "tie_word_embeddings": True}),
    "Llama, scaled rotations": (
        "Llama",
        {
            **_NEW,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "Mistral, windows": ("Mistral", {**_NEW, "sliding_window": 5}),
    "Qwen2": ("Qwen2", _NEW),
    "Qwen3": ("Qwen3", {**_NEW, "head_dim": 8}),
    "Gemma": ("Gemma", {**_NEW, "head_dim": 8}),
    "Gemma2, caps and windows": (
        "Gemma2",
        {**_NEW, "head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 2.0},
    ),
    "Gemma3, windows": (
        "Gemma3Text",
        {**_NEW, "head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "GPT-2": ("GPT2", _OLD),
    "GPT-NeoX": ("GPTNeoX", {k: v for k, v in _NEW.items() if k != "num_key_value_heads"}),
    "GPT-Neo, local": (
        "GPTNeo",
        {
            "vocab_size": ROWS,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            **_TOKENS,
        },
    ),
    "GPT-J, bias of the head": ("GPTJ", {**_OLD, "rotary_dim": 4}),
    "GPT-BigCode": ("GPTBigCode", _OLD),
    "Phi": ("Phi", _NEW),
    "Phi-3": ("Phi3", _NEW),
    "OPT": ("OPT", {**_PLAIN, "ffn_dim": 48, "max_position_embeddings": 64}),
    "OPT, projected": ("OPT", {**_PLAIN, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 16}),
    "OLMo-2": ("Olmo2", _NEW),
    "Bloom": ("Bloom", {"vocab_size": ROWS, "hidden_size": 32, "n_layer": 2, "n_head": 4, **_TOKENS}),
    "Falcon": ("Falcon", _PLAIN),
    "Falcon, slopes": ("Falcon", {**_PLAIN, "alibi": True}),
    "MPT": ("Mpt", {"vocab_size": ROWS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "StableLM": ("StableLm", _NEW),
    "Cohere, scaled": ("Cohere", {**_NEW, "logit_scale": 0.5}),
    "Cohere2, windows": ("Cohere2", {**_NEW, "sliding_window": 4}),
    "Granite, scaled": ("Granite", {**_NEW, "logits_scaling": 8.0, "embedding_multiplier": 3.0}),
    "SmolLM3": ("SmolLM3", _NEW),
    "Starcoder2": ("Starcoder2", _NEW),
    "Mamba": ("Mamba", {"vocab_size": ROWS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **_TOKENS}),
    "Mixtral, experts": ("Mixtral", {**_NEW, "num_local_experts": 4}),
    "Qwen2-MoE, experts": (
        "Qwen2Moe",
        {
            **_NEW,
            "num_experts": 4,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "num_experts_per_tok": 2,
        },
    ),
    "OLMoE, experts": ("Olmoe", {**_NEW, "num_experts": 4, "num_experts_per_tok": 2}),
}
"""Name → configuration class in transformers, and its arguments."""


def model_of(name: str, seed: int = 0) -> Any:
    """A model of transformers whose random weights are large enough to tell tokens apart; in evaluation mode."""
    kind, settings = SETTINGS[name]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def saved(name: str, folder: Path, seed: int = 0) -> Any:
    """The same, written as transformers writes it; models of experts as they are in memory."""
    model = model_of(name, seed)
    model.save_pretrained(folder, **({"save_original_format": False} if "experts" in name else {}))
    return model


def documents(lengths: tuple[int, ...] = (12, 5, 2, 30)) -> Sequences:
    """Texts of random tokens, all of which but the first are scored."""
    return _sequences([(length, 1, 1.0, 0, number) for number, length in enumerate(lengths)], 1)


def questions() -> Sequences:
    """Four questions with 2 to 5 choices, of different lengths and weights, after prompts of different lengths."""
    rows = [
        (4 + 3 * number + choice, 4 + 2 * number, 1 / (1 + choice), choice, number)
        for number, choices in enumerate((2, 5, 3, 4))
        for choice in range(choices)
    ]
    return _sequences([(max(length, begin + 1), begin, weight, *where) for length, begin, weight, *where in rows], 5)


def _sequences(rows: list[tuple[Any, ...]], outputs: int) -> Sequences:
    """Rows of (length, first scored token, weight, slot, sample)."""
    draw, tokens = np.random.default_rng(0), list[Any]()
    for length, begin, *_ in rows:
        tokens.append(draw.integers(3, ROWS, length).astype(np.int32))
        tokens[-1][begin:] = ~tokens[-1][begin:]
    counts = np.bincount([row[4] for row in rows])
    return Sequences(
        tokens=np.concatenate(tokens),
        starts=np.concatenate([[0], np.cumsum([row[0] for row in rows])]).astype(np.int64),
        weights=np.array([row[2] for row in rows], dtype=np.float32),
        slots=np.array([row[3] for row in rows], dtype=np.int16),
        samples=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        outputs=outputs,
    ).checked()


def plain(row: Tensor) -> Tensor:
    """The token ids ``(1, L)`` of one row that nothing is filled up in."""
    tokens = row[HEADER:].long()
    return torch.where(tokens < 0, ~tokens, tokens)[None]


def losses(model: Any, texts: Sequences) -> list[float]:
    """Transformers' own mean loss of each document."""
    rows = [plain(texts[number].collated()[0]) for number in range(len(texts))]
    return [float(model(input_ids=ids, labels=ids).loss) for ids in rows]


def choices(model: Any, texts: Sequences) -> list[tuple[int, int, float]]:
    """Each choice's weighted log-likelihood, by hand: (question, choice, sum)."""
    found = []
    for number in range(len(texts)):
        rows = texts[number]
        for place in range(rows.rows):
            first = int(rows.samples[0]) + place
            tokens = torch.from_numpy(rows.tokens[rows.starts[first] : rows.starts[first + 1]]).long()
            ids = torch.where(tokens < 0, ~tokens, tokens)
            log = model(input_ids=ids[None]).logits[0].float().log_softmax(-1)
            wanted = [float(log[at - 1, ids[at]]) for at in range(1, len(ids)) if tokens[at] < 0]
            found.append((number, int(rows.slots[first]), sum(wanted) * float(rows.weights[first])))
    return found


def read(folder: Path) -> nn.Module:
    """The module that our storage makes of a folder."""
    pool = ModelPool.open([folder])
    module = merging.model_source(f"transformers:{folder}").build(pool).eval()
    check_fits(module, pool)
    module.load_state_dict(pool.checkpoints[0].load())
    return module


def differences(name: str, folder: Path) -> dict[str, Any]:
    """Compares one architecture with transformers."""
    model = saved(name, folder)
    module: Any = read(folder)
    texts, asked = documents(), questions()
    with torch.no_grad():
        found = -module(texts.collated())[:, 0] / torch.from_numpy(texts.scored)
        loss = max(abs(float(own) - theirs) for own, theirs in zip(found, losses(model, texts), strict=True))
        outputs = module(asked.collated())
        by_hand = choices(model, asked)
        choice = max(abs(float(outputs[q, c]) - wanted) for q, c, wanted in by_hand)
        state: Any = texts.collated()
        steps = module.forward_steps()
        for step in steps:
            state = step(state)
        same = bool(torch.equal(state, module(texts.collated())))
    longest = plain(texts[3].collated()[0])
    model(input_ids=longest, labels=longest).loss.backward()
    (-module(texts[3].collated()).sum() / 29).backward()
    theirs, own = dict(model.named_parameters()), dict(module.whole.named_parameters())
    slope = max(
        float((own[key].grad - parameter.grad).abs().max() / parameter.grad.abs().max().clamp(min=1e-3))
        for key, parameter in theirs.items()
        if parameter.grad is not None
    )
    return {"loss": loss, "choice": choice, "gradient": slope, "stages": len(steps), "same_bits": same}


def main() -> None:
    """Compares all of them, and writes the figures."""
    warnings.simplefilter("ignore")
    found = {}
    for name in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = differences(name, Path(folder))
        print(f"{name:28} {found[name]}", file=sys.stderr)
    worst = {key: max(row[key] for row in found.values()) for key in ("loss", "choice", "gradient")}
    about = {"transformers": transformers.__version__, "torch": torch.__version__, "worst": worst}
    rounded = {n: {k: float(f"{v:.2e}") if isinstance(v, float) else v for k, v in r.items()} for n, r in found.items()}
    OUT.write_text(json.dumps(about | {"architectures": rounded}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
