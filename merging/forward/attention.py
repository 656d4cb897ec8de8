"""Attention that leaves queries, keys and values where one product has put them, on a card.

torch's own module copies each of the three out of the product's result first, where it is compiled or gradients are
wanted: 2 µs of 26 an image of ViT-B/32 on an H100, forward and compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class PackedAttention(nn.MultiheadAttention):
    """Self-attention of ``(N, L, E)`` without masks, by strides; every other call is torch's own.

    A module becomes one by its class (:func:`is_packable`); its tensors, their names and its hooks stay.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *given: Any, **named: Any) -> tuple[Tensor, Any]:
        """Attends; the second value is None where no weights were asked for."""
        plain = not given and named.get("need_weights") is False and not any(map(_asks, named.items()))
        if not plain or query is not key or query is not value or query.ndim != 3:
            return super().forward(query, key, value, *given, **named)
        n, length, width = query.shape
        packed = linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = packed.view(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)  # each n, heads, L, d
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        return self.out_proj(mixed), None


def _asks(option: tuple[str, Any]) -> bool:
    """Whether an option of a call changes what is computed where no weights are wanted."""
    name, value = option
    return name not in ("need_weights", "average_attn_weights") and value is not None and value is not False


def is_packable(part: nn.Module) -> bool:
    """Whether a module is attention whose queries, keys and values are one product, batch first, without dropout."""
    return (
        type(part) is nn.MultiheadAttention
        and part._qkv_same_embed_dim
        and part.batch_first
        and part.bias_k is None
        and part.bias_v is None
        and not part.add_zero_attn
        and not (part.training and part.dropout)
    )


@contextlib.contextmanager
def packed(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Has some attention modules (:func:`is_packable`) compute by strides for a while."""
    parts = list(parts)
    try:
        for part in parts:
            part.__class__ = PackedAttention
        yield
    finally:
        for part in parts:
            part.__class__ = nn.MultiheadAttention
