"""``part``: the roles of layers, whatever a library calls them."""

from __future__ import annotations

import functools

import pytest
import torch
import transformers

from benchmarks.causal_models import SETTINGS, model_of
from merging.errors import PartitionError
from merging.partitioners.block import Block
from merging.partitioners.part import Part
from merging.values.partition import TensorInfo
from tests.partitioners.test_block_partition import info, meta

LLAMA = "embeddings q k v o gate up down norms head"
SEPARATE = "embeddings q k v o up down norms head"
FUSED = "embeddings qkv o up down norms head"
ROLES = {
    "Llama": LLAMA,
    "Qwen3": LLAMA,
    "Gemma3, windows": LLAMA,
    "GPT-2": FUSED,
    "GPT-NeoX": FUSED,
    "GPT-Neo, local": SEPARATE,
    "GPT-J, bias of the head": SEPARATE,
    "OPT, projected": SEPARATE,
    "Phi": SEPARATE,
    "Phi-3": "embeddings qkv o gate_up down norms head",
    "Bloom": FUSED,
    "MPT": FUSED,
    "Starcoder2": SEPARATE,
    "Mixtral, experts": "embeddings q k v o router experts.gate_up experts.down norms head",
    "Qwen2-MoE, experts": "embeddings q k v o router gate up experts.gate_up down experts.down norms head",
    "timm:vit_tiny_patch16_224": FUSED,
    "torchvision:vit_b_16": FUSED,
    "open_clip:ViT-B-32": f"stem {FUSED}",
    "timm:resnet18": "stem norms conv1 conv2 downsample head",
    "BertForSequenceClassification": SEPARATE,
    "DistilBertForSequenceClassification": SEPARATE,
    "ModernBertForSequenceClassification": "embeddings qkv o gate_up down norms head",
    "T5ForSequenceClassification": "embeddings q k v o up down norms SelfAttention.relative_attention_bias head",
    "ViTForImageClassification": SEPARATE,
}


@functools.cache
def tensors(name: str) -> dict[str, TensorInfo]:
    if name in SETTINGS:
        return info(model_of(name))
    if ":" in name:
        return info(meta(name))
    config = getattr(transformers, f"{name.partition('For')[0]}Config")()
    config.num_hidden_layers = config.num_layers = config.num_decoder_layers = config.n_layers = 2
    with torch.device("meta"):
        return info(getattr(transformers, name)(config))


@pytest.mark.parametrize("name", ROLES)
def test_roles(name: str) -> None:
    """From names alone, in whichever order the file has them."""
    forwards = tensors(name)
    partition = Part().split(forwards)
    partition.check_covers(forwards)
    assert list(partition.names) == ROLES[name].split()
    backwards = Part().split(dict(sorted(forwards.items(), reverse=True)))
    assert {c.name: set(c.tensors) for c in backwards.components} == {
        c.name: set(c.tensors) for c in partition.components
    }
    for component in partition.components:
        biases = {t.removesuffix("bias") for t in component.tensors if t.endswith(".bias")}
        assert all(f"{layer}weight" in component.tensors for layer in biases), "biases are with their weights"


def test_what_the_roles_hold() -> None:
    parts = {c.name: c.tensors for c in Part().split(tensors("Qwen3")).components}
    assert parts["q"] == tuple(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2))
    assert parts["head"] == ("lm_head.weight",)
    assert parts["embeddings"] == ("model.embed_tokens.weight",)
    assert "model.norm.weight" in parts["norms"]
    assert "model.layers.1.self_attn.k_norm.weight" in parts["norms"]
    experts = {f"block_sparse_moe.experts.{expert}.w{part}" for expert in range(2) for part in (1, 2, 3)}
    layers = {*experts, "block_sparse_moe.gate", "self_attn.q_proj", "self_attn.o_proj"}
    of_hub = {f"model.layers.{n}.{each}.weight" for n in range(2) for each in layers}
    named = {c.name: len(c.tensors) for c in Part().split({n: ((4, 4), "float32") for n in sorted(of_hub)}).components}
    assert named == {"q": 2, "o": 2, "router": 2, "experts.gate": 4, "experts.up": 4, "experts.down": 4}


def test_depth_divides_roles_by_blocks() -> None:
    partition = Part(depth=2).split(tensors("GPT-2"))
    partition.check_covers(tensors("GPT-2"))
    inner = [f"{role}.{run}" for role in ("qkv", "o", "up", "down") for run in (1, 2)]
    assert list(partition.names) == ["embeddings", *inner, "norms", "norms.1", "norms.2", "head"]
    second = next(c for c in partition.components if c.name == "up.2")
    assert set(second.tensors) == {"transformer.h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_fc.bias"}
    with pytest.raises(PartitionError, match="has 2 repeated blocks; use 2 at most"):
        Part(depth=3).split(tensors("GPT-2"))


def test_where_nothing_is_repeated() -> None:
    one = {name: said for name, said in tensors("Llama").items() if ".layers.1." not in name}
    assert list(Part().split(one).names) == [*LLAMA.split()[:-1], "lm_head"]
    plain = {f"{layer}.{own}": ((3, 3), "float32") for layer in ("first", "second") for own in ("weight", "bias")}
    assert list(Part().split(plain).names) == ["first", "second"]
    with pytest.raises(PartitionError, match="has 0 repeated blocks; leave it out"):
        Part(depth=2).split(plain)


@pytest.mark.parametrize("name", ["GPT-NeoX", "OPT, projected", "Llama, tied"])
def test_blocks_of_language_models(name: str) -> None:
    """Embeddings before them, the last norm and the head after them: also where the model defines these before."""
    model = model_of(name)
    state = info(model)
    if name == "GPT-NeoX":  # as its files call it
        state = {key.replace("lm_head", "embed_out"): said for key, said in state.items()}
    for partition in (Block().split(state), Block().split(state, model)):
        assert partition.names[0] == "stem"
        assert partition.names[-1] == "head"
        assert len(partition) == 4
        assert any("norm" in tensor for tensor in partition.components[-1].tensors)
        assert not any("norm" in tensor for tensor in partition.components[0].tensors)
