"""Attention by strides is torch's own attention, and is taken only where it is the same computation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from merging.forward.attention import PackedAttention, is_packable
from merging.forward.compiling import Compiled, repeated_blocks

WIDTH, HEADS = 24, 3


def pair(**given: object) -> tuple[nn.MultiheadAttention, PackedAttention]:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **given).eval()  # type: ignore[arg-type]
    packed = PackedAttention(WIDTH, HEADS, batch_first=True, **given).eval()  # type: ignore[arg-type]
    packed.load_state_dict(plain.state_dict())
    return plain, packed


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_it_is_the_same_attention(bias: bool, weights: bool) -> None:
    plain, packed = pair(bias=bias)
    x = torch.randn(5, 7, WIDTH)
    right, found = (each(x, x, x, need_weights=weights) for each in (plain, packed))
    torch.testing.assert_close(found[0], right[0], atol=1e-6, rtol=1e-5)
    assert (found[1] is None) == (right[1] is None)


@pytest.mark.parametrize("batch", [True, False])
def test_every_other_call_is_torchs_own(batch: bool) -> None:
    plain, packed = pair()
    x, other = (torch.randn(*(5,) * batch, 7, WIDTH) for _ in range(2))
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    hidden = torch.arange(7).expand(*(5,) * batch, 7) > 4
    for options in (
        {"need_weights": False, "attn_mask": causal},
        {"need_weights": False, "attn_mask": causal, "is_causal": True},
        {"need_weights": False, "key_padding_mask": hidden},
        {"need_weights": True, "average_attn_weights": False},
        {},
    ):
        for given, wanted in zip(packed(x, x, x, **options), plain(x, x, x, **options), strict=True):  # type: ignore[arg-type]
            assert given is wanted is None or torch.equal(given, wanted)
    assert torch.equal(packed(x, other, other, need_weights=False)[0], plain(x, other, other, need_weights=False)[0])
    assert torch.equal(packed(x, x, x, hidden, False)[0], plain(x, x, x, hidden, False)[0]), "a mask by position"


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ({"batch_first": True}, True),
        ({}, False),
        ({"batch_first": True, "kdim": 12}, False),
        ({"batch_first": True, "add_bias_kv": True}, False),
        ({"batch_first": True, "add_zero_attn": True}, False),
    ],
)
def test_where_the_three_are_one_product(given: dict[str, object], is_one: bool) -> None:
    assert is_packable(nn.MultiheadAttention(WIDTH, HEADS, **given).eval()) == is_one  # type: ignore[arg-type]
    assert not is_packable(nn.Linear(2, 2))
    assert not is_packable(pair()[1])
    dropping = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dropout=0.5)
    assert not is_packable(dropping)
    assert is_packable(dropping.eval())


class Layer(nn.Module):
    """A block of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        mixed: Tensor = x + self.attention(y, y, y, need_weights=False)[0]
        return mixed


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/bin/g++").exists(), reason="torch.compile on a CPU needs a C++ compiler")
def test_compiled_blocks_attend_by_strides_and_the_module_stays() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*(Layer() for _ in range(3))).eval()
    assert len(repeated_blocks(module)) == 3
    x = torch.randn(4, 7, WIDTH)
    with torch.inference_mode():
        right = module(x)
        made = Compiled(module)
        torch.testing.assert_close(made(x), right, atol=1e-5, rtol=1e-5)
        with made.applied():
            assert all(type(block.attention) is PackedAttention for block in module)
        assert all(type(block.attention) is nn.MultiheadAttention for block in module)
        assert torch.equal(module(x), right)
