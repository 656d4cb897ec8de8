"""Weights that are stored as several tensors are refused where they differ, by names and without."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, weight_norm

from merging.errors import PoolError
from merging.storage.checkpoint import Checkpoint
from merging.storage.factors import check_factors, factored
from merging.storage.pool import ModelPool
from tests.conftest import Merge

ROWS, COLUMNS = 16, 32


def weight(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(ROWS, COLUMNS, generator=generator) * (1 + 9 * number)


def int8(number: int) -> tuple[Tensor, Tensor]:
    scale = weight(number).abs().amax(1)
    return (weight(number) / scale[:, None] * 127).round().to(torch.int8), scale


def codes(number: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 100, (ROWS, COLUMNS // 2), generator=generator).to(dtype)


def fp8(number: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    scale = weight(number).abs().amax() / 448
    return (weight(number) / scale).to(torch.float8_e4m3fn), scale.expand(shape).clone()


STORED: dict[str, Callable[[int], dict[str, Tensor]]] = {
    "LLM.int8": lambda n: dict(zip(("l.weight", "l.SCB"), int8(n), strict=True)),
    "bitsandbytes nf4": lambda n: {
        "l.weight": codes(n, torch.uint8),
        "l.weight.absmax": weight(n).abs().reshape(-1, 64).amax(1),
        "l.weight.quant_map": torch.linspace(-1, 1, 16),
        "l.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    },
    "GPTQ": lambda n: {
        "l.qweight": codes(n, torch.int32),
        "l.qzeros": codes(0, torch.int32),
        "l.scales": weight(n)[:, :2].half(),
        "l.g_idx": torch.arange(COLUMNS, dtype=torch.int32),
    },
    "fp8 blocks": lambda n: dict(zip(("l.weight", "l.weight_scale_inv"), fp8(n, (1, 1)), strict=True)),
    "compressed-tensors": lambda n: dict(zip(("l.weight", "l.weight_scale"), fp8(n, (ROWS, 1)), strict=True)),
    "4 bit in bfloat16": lambda n: {
        "l.weight": weight(n)[:, :8].bfloat16(),
        "l.weight.absmax": weight(n)[0].abs(),
        "l.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    },
    "HQQ in floats": lambda n: {
        "l.W_q": weight(n).half(),
        "l.scale": weight(n)[:, 0].clone(),
        "l.zero": weight(n)[:, 1].clone(),
    },
    "scales elsewhere": lambda n: {"l.weight": fp8(n, ())[0], "l.weight_scaler.value": fp8(n, (3,))[1]},
    "mxfp4": lambda n: {"l.gate_blocks": codes(n, torch.uint8), "l.gate_scales": codes(n + 5, torch.uint8)},
    "no names, int": lambda n: {"l.w": codes(n, torch.int16), "l.s": weight(n)[:, 0].clone()},
    "no names, fp8": lambda n: dict(zip(("l.w", "l.s"), fp8(n, (ROWS,)), strict=True)),
    "no names, fp8 one scale": lambda n: dict(zip(("w", "s"), fp8(n, ()), strict=True)),
}


def pool_of(folder: Path, make: Callable[[int], dict[str, Tensor]], numbers: tuple[int, ...] = (0, 1)) -> ModelPool:
    for place, number in enumerate(numbers):
        save_file({k: t.contiguous() for k, t in make(number).items()}, folder / f"m{place}.safetensors")
    return ModelPool.open([folder / "m*.safetensors"])


@pytest.mark.parametrize("name", list(STORED))
def test_quantised_models_are_refused(name: str, tmp_path: Path, merge: Merge) -> None:
    pool = pool_of(
        tmp_path, lambda n: STORED[name](n) | {"l.bias": torch.full((ROWS,), float(n)), "h.weight": weight(n)}
    )
    with pytest.raises(PoolError, match=r"quantised.*dequantise the models"):
        check_factors(pool.checkpoints)
    with pytest.raises(PoolError, match="quantised"):
        check_factors(pool.checkpoints, as_stored=True)
    for command in (["run", "--strategy", "uniform"], ["run", "--strategy", "uniform", "--as-stored"]):
        ran = merge(*command, "--models", "m*.safetensors", "--output", "out")
        assert ran.code == 2
        assert "quantised" in ran.err
        assert not Path("out").exists()


@pytest.mark.parametrize("name", list(STORED))
def test_one_and_the_same_backbone_is_merged(name: str, tmp_path: Path) -> None:
    """Codes and scales that are equal in all models: averaging changes them not, and the rest is averaged."""
    pool = pool_of(tmp_path, lambda n: STORED[name](0) | {"head.weight": weight(n)})
    assert check_factors(pool.checkpoints) == ()


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_the_looking_commands_say_the_same(command: str, tmp_path: Path, merge: Merge) -> None:
    pool_of(tmp_path, STORED["LLM.int8"])
    ran = merge(command, "--models", "m*.safetensors")  # check: also without a task and a strategy that needs none
    assert "'l.SCB' make one weight" in " ".join((ran.out + ran.err).split())
    assert ran.code == (2 if command == "check" else 0)


ADAPTERS = [
    "base_model.model.q.lora_A.weight",
    "q.lora_B.default.weight",
    "q.lora_down.weight",
    "q.lora.up.weight",
    "q.lora_a.weight",
    "processor.to_q_lora.down.weight",
    "qkv_lora1.down.weight",
    "poly_lora_A",
    "q.oft_blocks",
    "q.hada_w1_a",
    "q.lokr_w1",
    "k.ia3_l",
    "q.lora_magnitude_vector",
    "embed.lora_embedding_A.default",
]


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_refused(name: str, tmp_path: Path, merge: Merge) -> None:
    pool_of(tmp_path, lambda n: {name: weight(n), "head.weight": weight(n)})
    ran = merge("run", "--strategy", "uniform", "--models", "m*.safetensors", "--output", "out")
    assert ran.code == 2
    assert "(merge_and_unload)" in ran.err


def parametrised(kind: str) -> Callable[[int], dict[str, Tensor]]:
    def make(number: int) -> dict[str, Tensor]:
        torch.manual_seed(number)
        layer = nn.Linear(4, 4)
        if kind == "weight norm":
            weight_norm(layer)
        elif kind == "old weight norm":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.utils.weight_norm(layer)
        elif kind == "old spectral norm":
            nn.utils.spectral_norm(layer)
        elif kind == "orthogonal":
            orthogonal(layer)
        elif kind == "pruning":
            prune.random_unstructured(layer, "weight", 0.5)
        return {name: tensor.detach().clone() for name, tensor in layer.state_dict().items()}

    return make


@pytest.mark.parametrize("kind", ["weight norm", "old weight norm", "old spectral norm", "orthogonal", "pruning"])
def test_parametrised_weights_are_merged_as_stored_only_where_asked(kind: str, tmp_path: Path, merge: Merge) -> None:
    pool_of(tmp_path, parametrised(kind))
    command = ["run", "--strategy", "uniform", "--models", "m*.safetensors", "--output", "out"]
    ran = merge(*command)
    assert ran.code == 2
    assert "--as-stored" in ran.err
    ran = merge(*command, "--as-stored")
    assert ran.code == 0, ran.err
    assert "merged as stored" in " ".join(ran.out.split())
    Path("merge.toml").write_text(
        "[pool]\nmodels = ['m*.safetensors']\n[run]\nstrategy = 'uniform'\nas_stored = true\noutput = 'two'\n"
    )
    assert merge("run").code == 0


def test_masks_that_differ(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, lambda n: {"w": weight(n), "keep": torch.arange(6) % (n + 2) == 0})
    with pytest.raises(PoolError, match="'keep' is a mask that differs"):
        check_factors(pool.checkpoints)
    assert "merged as stored" in check_factors(pool.checkpoints, as_stored=True)[0]


@pytest.mark.parametrize("seed", [0])
@given(
    dtype=st.sampled_from([torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda shape: torch.Size(shape).numel() > 1),
    names=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=2, unique=True),
    where=st.integers(0, 1000),
)
def test_any_integer_tensor_that_differs(
    seed: int,
    dtype: torch.dtype,
    shape: list[int],
    names: list[str],
    where: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("m")

    def make(number: int) -> dict[str, Tensor]:
        whole = torch.full(shape, 3, dtype=dtype)
        flat = whole.reshape(-1)
        flat[where % len(flat)] = 3 + number
        return {f"x.{names[0]}": whole, f"x.{names[1]}": weight(number)[0].clone(), "count": torch.tensor(number)}

    with pytest.raises(PoolError, match=f"'x.{names[0]}' holds .*int.* numbers that differ"):
        check_factors(pool_of(folder, make).checkpoints)
    same = folder / "same"
    same.mkdir()
    assert check_factors(pool_of(same, lambda n: make(0) | {"count": torch.tensor(n)}).checkpoints) == ()


def test_real_architectures_are_whole() -> None:
    """No layer of an ordinary model is taken for a factor."""
    import timm
    import torchvision

    names = ["resnet18", "convnext_tiny", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_b0"]
    names += ["beit_base_patch16_224", "mobilevit_s", "maxvit_tiny_rw_224", "levit_128", "cait_xxs24_224", "davit_tiny"]

    for name in names:
        with torch.device("meta"):
            tensors = timm.create_model(name).state_dict()
        infos = {n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()}
        assert list(factored(infos)) == []
    tensors = torchvision.models.googlenet(weights=None, init_weights=False).state_dict()
    infos = {n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()}
    assert list(factored(infos)) == []


def test_a_pool_in_fp8_without_scales_is_merged(tmp_path: Path) -> None:
    pool = pool_of(
        tmp_path, lambda n: {k: weight(n).to(torch.float8_e4m3fn) for k in ("a.weight", "a.bias", "b.weight")}
    )
    assert check_factors(pool.checkpoints) == ()


def test_single_models_are_not_looked_at(tmp_path: Path) -> None:
    pool_of(tmp_path, STORED["GPTQ"])
    assert check_factors([Checkpoint(tmp_path / "m0.safetensors")]) == ()


WHOLE = {
    "RWKV": {"att.time_mix_g": (1, 1, 8), "att.time_mix_v": (1, 1, 8), "att.x_g": (8,), "att.x_v": (8,)},
    "other words": {"w_g": (4, 4), "w_v": (4, 4), "m_orig": (4,), "m_u": (4,), "m_v": (4,), "flora.weight": (4, 4)},
    "prompts": {"prompt_embeddings": (1, 4, 8), "attn.k_scale": (4,), "attn.scales": (4,), "codebook.scale": (1,)},
}


@pytest.mark.parametrize("name", list(WHOLE))
def test_ordinary_models_are_no_factors(name: str, tmp_path: Path) -> None:
    """Names that only look like those of a factor, beside integer tensors that are the same in all models."""
    generator = torch.Generator().manual_seed(0)

    def make(number: int) -> dict[str, Tensor]:
        del number
        floats = {n: torch.randn(shape, generator=generator) for n, shape in WHOLE[name].items()}
        return floats | {"attn.relative_position_index": torch.arange(9), "attn.indices": torch.arange(4)}

    assert check_factors(pool_of(tmp_path, make).checkpoints) == ()


@pytest.mark.parametrize("name", ["mask", "weight_mask", "l.keep_mask"])
def test_float_masks_that_differ(name: str, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, lambda n: {"weight": weight(n), name: (torch.arange(6) % (n + 2) == 0).float()})
    with pytest.raises(PoolError, match="`as_stored`"):
        check_factors(pool.checkpoints)
