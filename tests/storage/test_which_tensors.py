"""Which tensors of a training program's file are the model: the only mapping there is, the chosen one, or a refusal."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from merging.errors import CheckpointError
from merging.storage.checkpoint import Checkpoint
from merging.storage.content import content_hash
from tests.conftest import Merge

WORDS = st.sampled_from(
    ["net", "state", "weights", "model_state", "generator", "student", "params", "G", "0", "teacher"]
)
HARMLESS = st.sampled_from(
    [
        3,
        0.5,
        "text",
        None,
        True,
        [1, 2],
        (3, "x"),
        {"lr": 0.1},
        torch.tensor(0.9),
        torch.tensor([3]),
        argparse.Namespace(model="r", path=pathlib.Path("/data")),
        types.SimpleNamespace(a=1),
        np.float64(91.5),
        np.arange(3),
        np.bool_(True),
        pathlib.Path("/x/y"),
        pathlib.PurePosixPath("z"),
        {1, 2},
        frozenset([3]),
        datetime.datetime(2026, 1, 1),
        datetime.timedelta(1),
        defaultdict(list, {"a": [1]}),
        OrderedDict(a=1),
        torch.device("cpu"),
        torch.float16,
        np.dtype("float32"),
        np.str_("name"),
    ]
)
BESIDE = ["epoch", "acc", "args", "best", "config", "hyper_parameters", "history", "loss"]


def state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 2, generator=generator) for name in ("a.weight", "b.weight")}


def optimizer() -> dict[str, Any]:
    model = nn.Linear(3, 2)
    made = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    made.step()
    return made.state_dict()


TRAINING: dict[str, Any] = {
    "optimizer": optimizer(),
    "optimizer_states": [optimizer()],
    "optim_g": {"exp_avg": torch.ones(3)},
    "lr_schedulers": [{"last_lr": [torch.tensor(0.1)]}],
    "rng_state": torch.get_rng_state(),
    "cuda_rng_states": [torch.get_rng_state()],
    "scaler": {"scale": torch.ones(2)},
    "whatever": optimizer(),
}


def nested(path: list[str], inner: Any, beside: dict[str, Any]) -> Any:
    for part in reversed(path):
        inner = {**beside, part: inner}
    return inner


@given(
    path=st.lists(WORDS, max_size=3),
    beside=st.dictionaries(st.sampled_from(BESIDE), HARMLESS, max_size=4),
    training=st.sets(st.sampled_from(sorted(TRAINING)), max_size=4),
)
def test_the_only_state_dict_is_found_wherever_it_lies(
    path: list[str], beside: dict[str, Any], training: set[str], tmp_path: Path
) -> None:
    if not path:  # an array beside the weights is refused, by a test of its own
        beside = {name: value for name, value in beside.items() if not isinstance(value, np.ndarray)}
    content = nested(path, state(), beside) if path else beside | state()
    content |= {name: TRAINING[name] for name in training if path}
    torch.save(content, tmp_path / "x.pt")
    found = Checkpoint(tmp_path / "x.pt")
    assert set(state()) <= set(found.tensors)
    numbers = {name for name, value in beside.items() if isinstance(value, Tensor)} if not path else set()
    assert set(found.tensors) - set(state()) == numbers
    if path:
        assert found.hash == content_hash(state())
        assert any(f"'{'.'.join(path)}'" in note for note in found.notes)


@given(
    first=st.lists(WORDS, min_size=1, max_size=2),
    second=st.lists(WORDS, min_size=1, max_size=2),
    beside=st.dictionaries(st.sampled_from(BESIDE), HARMLESS, max_size=3),
)
def test_two_state_dicts_are_refused_and_each_can_be_chosen(
    first: list[str], second: list[str], beside: dict[str, Any], tmp_path: Path
) -> None:
    if first[: len(second)] == second or second[: len(first)] == first:
        return
    content: dict[str, Any] = dict(beside)
    for path, seed in ((first, 1), (second, 2)):
        place = content
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = state(seed)
    torch.save(content, tmp_path / "x.pt")
    keys = [".".join(first), ".".join(second)]
    with pytest.raises(CheckpointError, match="holds 2 sets of tensors") as raised:
        Checkpoint(tmp_path / "x.pt")
    assert all(f"'{key}'" in str(raised.value) for key in keys)
    for key, seed in zip(keys, (1, 2), strict=True):
        chosen = Checkpoint(tmp_path / "x.pt", key=key)
        assert chosen.hash == content_hash(state(seed))
        assert any("left out" in note for note in chosen.notes)
    with pytest.raises(CheckpointError, match="unknown mapping of tensors 'stat'"):
        Checkpoint(tmp_path / "x.pt", key="stat")


@pytest.mark.parametrize(
    "content",
    [
        {"net": state(), "loss": torch.tensor(0.5), "epoch": 3, "optimizer": {"state": {}}},
        {"net": state(), "acc": 91.5, "epoch": 1},
        {"model_state": state(), "best_acc": torch.tensor(0.9)},
        {"state_dict": state(), "metrics": {"loss": torch.tensor(0.1), "acc": torch.tensor(0.2)}},
        {
            "pytorch-lightning_version": "2.5",
            "state_dict": {f"model.{n}": t for n, t in state().items()},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
            "optimizer_states": [optimizer()],
            "loops": {},
            "hyper_parameters": argparse.Namespace(lr=0.1),
        },
    ],
)
def test_numbers_and_training_state_are_not_the_model(content: dict[str, Any], tmp_path: Path, merge: Merge) -> None:
    for number in range(2):
        torch.save(content, tmp_path / f"m{number}.pt")
    ran = merge("run", "--strategy", "uniform", "--models", "m*.pt", "--output", "out")
    assert ran.code == 0, ran.err
    assert Checkpoint("out/model.safetensors").hash == content_hash(state())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"ema": {"shadow_params": [torch.ones(3)]}, "net": state()}, "'ema.shadow_params' .a list of 1 tensors"),
        ({"net": state(), "head.weight": torch.ones(3)}, r"'\.' \(1 tensor\)"),
        ({"generator": state(), "discriminator": state(1)}, "'generator'"),
        ({"net": state() | {"scale": np.ones(4)}}, "'scale' is a NumPy array beside tensors"),
        ({"epoch": 3}, "holds no state dict; its keys: epoch"),
        ([torch.ones(3)], "holds 1 sets of tensors|holds no state dict"),
    ],
)
def test_tensors_are_never_left_out_in_silence(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=words):
        Checkpoint(tmp_path / "x.pt")


def test_one_state_dict_under_two_names_is_one(tmp_path: Path) -> None:
    own = state()
    torch.save({"model": own, "state_dict": own}, tmp_path / "x.pt")
    assert Checkpoint(tmp_path / "x.pt").hash == content_hash(own)


def test_what_is_left_out_by_its_name_is_said(tmp_path: Path) -> None:
    scaler = {"mean": torch.ones(4), "std": torch.ones(4)}
    torch.save({"model": state(), "scaler": scaler, "callbacks": {"ema": {"ema_state": state(1)}}}, tmp_path / "x.pt")
    found = Checkpoint(tmp_path / "x.pt")
    assert found.hash == content_hash(state())
    said = " ".join(found.notes)
    assert "'scaler' (2 tensors)" in said
    assert "'callbacks.ema.ema_state'" in said
    assert Checkpoint(tmp_path / "x.pt", key="callbacks.ema.ema_state").hash == content_hash(state(1))


def test_integers_of_a_state_dict_stay_whatever_they_are_called(tmp_path: Path) -> None:
    own = state() | {"w.num_random": torch.tensor([1, 2]), "sched_steps": torch.tensor(3)}
    torch.save(own, tmp_path / "x.pt")
    assert Checkpoint(tmp_path / "x.pt").hash == content_hash(own)


def test_a_modules_own_state_is_no_weight(tmp_path: Path) -> None:
    torch.save(state() | {"a._extra_state": torch.empty(0), "b._extra_state": torch.ones(9).byte()}, tmp_path / "x.pt")
    found = Checkpoint(tmp_path / "x.pt")
    assert found.hash == content_hash(state())
    assert any("2 '_extra_state' left out" in note for note in found.notes)


def test_lightnings_prefix_is_taken_off_once(tmp_path: Path) -> None:
    wrapped = {f"model.model.{name}": tensor for name, tensor in state().items()}
    torch.save({"pytorch-lightning_version": "2.5", "state_dict": wrapped}, tmp_path / "x.ckpt")
    assert set(Checkpoint(tmp_path / "x.ckpt").tensors) == {f"model.{name}" for name in state()}


def test_mmengines_average(tmp_path: Path) -> None:
    average = {f"module.{name}": tensor for name, tensor in state().items()} | {"steps": torch.tensor(5)}
    torch.save({"state_dict": state(1), "ema_state_dict": average}, tmp_path / "x.pth")
    assert Checkpoint(tmp_path / "x.pth", key="ema_state_dict").hash == content_hash(state())


class Harmful:
    def __reduce__(self) -> Any:
        return eval, ("print('code ran')",)  # no function that others put their own in the place of, as Ray does


def test_other_objects_are_named_and_not_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": state(), "hook": Harmful()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"wants to run code \(of builtins.eval\)"):
        Checkpoint(tmp_path / "x.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*save model\.state_dict"):
        Checkpoint(tmp_path / "whole.pt")
    assert "code ran" not in capfd.readouterr().out


# --- what wrappers of a module add to names


def wrapped_model(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(layer1=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), head=nn.Linear(4, 2)))
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if kind == "compile":
        return torch.compile(model), plain  # type: ignore[return-value]
    if kind == "part compiled":
        model.layer1 = torch.compile(model.layer1)  # type: ignore[assignment]
        return model, plain
    if kind == "data parallel":
        return nn.DataParallel(model), plain
    if kind == "averaged":
        averaged = AveragedModel(model)
        averaged.update_parameters(model)
        return averaged, plain
    if kind == "checkpointed":
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper

        model.layer1 = CheckpointWrapper(model.layer1)  # type: ignore[assignment]
        return nn.DataParallel(model), plain
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["compile", "part compiled", "data parallel", "averaged", "checkpointed"])
def test_names_are_those_of_the_plain_model(kind: str, tmp_path: Path) -> None:
    model, plain = wrapped_model(kind)
    torch.save(model.state_dict(), tmp_path / "x.pt")
    found = Checkpoint(tmp_path / "x.pt")
    assert found.hash == content_hash(plain)
    assert len(found.notes) == len(set(found.notes)) >= (0 if kind == "checkpointed" else 1)


PARTS = st.lists(st.sampled_from(["layer1", "0", "conv", "blocks", "attn"]), min_size=1, max_size=4)
WRAPPERS = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]


@given(
    data=st.data(),
    names=st.lists(PARTS.map(tuple), min_size=1, max_size=6, unique=True),
    prefix=st.sampled_from(["", "module."]),
)
def test_wrappers_anywhere_in_a_name(
    data: st.DataObject, names: list[tuple[str, ...]], prefix: str, tmp_path: Path
) -> None:
    plain = {".".join((*parts, "weight")): torch.full((2,), float(n)) for n, parts in enumerate(names)}
    wrapped = {}
    for name, tensor in plain.items():
        parts = []
        for part in name.split("."):
            parts += [*data.draw(st.lists(st.sampled_from(WRAPPERS), max_size=2)), part]
        wrapped[prefix + ".".join(parts)] = tensor
    torch.save(wrapped, tmp_path / "x.pt")
    found = Checkpoint(tmp_path / "x.pt")
    assert dict(zip(found.tensors, found.load().values(), strict=True)).keys() == plain.keys()
    assert found.hash == content_hash(plain)


def test_names_that_would_become_one_are_refused(tmp_path: Path) -> None:
    torch.save({"a._orig_mod.w": torch.ones(2), "a.w": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"are one tensor, 'a\.w'"):
        Checkpoint(tmp_path / "x.pt")


def test_a_models_own_prefix_stays(tmp_path: Path) -> None:
    """``model.`` is a wrapper in a checkpoint of Lightning, and the model's own elsewhere (transformers' decoders)."""
    torch.save({"model.a": torch.ones(2), "model.b": torch.ones(2)}, tmp_path / "x.pt")
    assert set(Checkpoint(tmp_path / "x.pt").tensors) == {"model.a", "model.b"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_rank_of_a_sharded_model_is_refused(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    part = {"a.weight": torch.empty(0), "b.weight": torch.ones(2)}
    (torch.save if suffix == ".pt" else save_file)(part, tmp_path / f"x{suffix}")
    with pytest.raises(CheckpointError, match=r"'a\.weight' has no elements.*zero_to_fp32\.py"):
        Checkpoint(tmp_path / f"x{suffix}")


# --- timm's own files


@pytest.fixture(scope="module")
def timm_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", num_classes=10)
        average = ModelEmaV3(model, decay=0.9)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        own = folder / f"run{seed}"
        own.mkdir()
        saver = CheckpointSaver(
            model,
            create_optimizer_v2(model, opt="sgd", lr=0.1),
            args=argparse.Namespace(model="test_resnet", lr=0.1),
            model_ema=average,
            checkpoint_dir=str(own),
            recovery_dir=str(own),
        )
        saver.save_checkpoint(0, metric=91.0)
    return folder


def test_timms_runs_and_their_averages(timm_runs: Path, merge: Merge) -> None:
    pattern = timm_runs / "run*/model_best.pth.tar"
    ran = merge("run", "--strategy", "uniform", "--models", pattern)
    assert ran.code == 2
    assert "'state_dict' (92 tensors), 'state_dict_ema' (92 tensors); choose one with --key" in ran.err
    ran = merge("run", "--strategy", "uniform", "--models", pattern, "--key", "state_dict_ema", "--output", "ema")
    assert ran.code == 0, ran.err
    states = [
        torch.load(timm_runs / f"run{n}/model_best.pth.tar", weights_only=False)["state_dict_ema"] for n in (0, 1)
    ]
    merged = Checkpoint("ema/model.safetensors").load()
    for name, tensor in merged.items():
        if tensor.is_floating_point():
            want = (states[0][name].double() + states[1][name].double()) / 2
            assert torch.equal(tensor, want.to(tensor.dtype))
    assert merge("apply", "ema/recipe.json", "--output", "again.safetensors").code == 0
    assert Path("again.safetensors").read_bytes() == Path("ema/model.safetensors").read_bytes()


def test_a_key_for_each_model_in_the_file(timm_runs: Path, merge: Merge) -> None:
    models = ", ".join(
        f"{{ path = '{timm_runs}/run{n}/last.pth.tar', key = '{key}' }}"
        for n, key in enumerate(("state_dict", "state_dict_ema"))
    )
    Path("merge.toml").write_text(f"[pool]\nmodels = [{models}]\n[run]\nstrategy = 'uniform'\noutput = 'two'\n")
    ran = merge("run")
    assert ran.code == 0, ran.err
    recipe = Path("two/recipe.json").read_text()
    assert '"key": "state_dict_ema"' in recipe
    assert '"key": "state_dict"' in recipe
    Path("merge.toml").write_text("[pool]\nmodels = [{ path = 'x.pt', kye = 'a' }]\n")
    assert "did you mean 'key'?" in merge("run", "--strategy", "uniform").err


def test_links_to_one_file_count_once(timm_runs: Path, merge: Merge) -> None:
    """timm writes its last, best and numbered checkpoints as links to one file."""
    ran = merge(
        "run",
        "--strategy",
        "uniform",
        "--models",
        timm_runs / "run0",
        "--models",
        timm_runs / "run1",
        "--key",
        "state_dict",
        "--output",
        "out",
    )
    assert ran.code == 0, ran.err
    files = {file.stat().st_ino for n in (0, 1) for file in (timm_runs / f"run{n}").iterdir()}
    assert Path("out/recipe.json").read_text().count('"hash"') == len(files)
