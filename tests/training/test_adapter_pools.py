"""``merge finetune --adapter lora``: pools of adapters, which PEFT trains and loads, and what every mistake says."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.errors import MergingError, OptionError, RequirementError, Stopped
from merging.models.transformers import ImageClassifier
from merging.plugins.task import Split, Task
from merging.storage.checkpoint import Checkpoint
from merging.testing import tiny_task
from merging.testing.fixtures import TinyNet, blobs, tiny_numerics
from merging.training.adapter_targets import largest_rank, targets
from merging.training.adapters import Adapters
from merging.training.finetune import finetune
from merging.training.hyperparameters import ADAPTERS_RATE, LoraParameters, Sweep, default_sweep
from merging.training.regimes.papa import Papa
from merging.training.regimes.swa import SwaRegime
from merging.training.trainer import Run, accuracy
from tests.conftest import TASK, Merge
from tests.stopping import after

peft = pytest.importorskip("peft", reason="peft is in the extra dev-full")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SWEEP = Sweep.of({"learning_rate": [0.02, 0.05], "epochs": 2, "batch_size": 30, "rank": [1, 2], "dora": [False, True]})


def merged(module: nn.Module, folder: Path) -> dict[str, Tensor]:
    """What PEFT's own loader makes of an adapter."""
    whole: nn.Module = peft.PeftModel.from_pretrained(module, folder).merge_and_unload()
    return dict(whole.state_dict())


def furthest(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name].double() - wanted[name].double()).abs().max()) for name in wanted)


def loaded(state: Mapping[str, Tensor]) -> TinyNet:
    module = TinyNet()
    module.load_state_dict(state)
    return module


def test_a_pool_of_adapters_is_what_peft_loads_and_merges(base: Path, tmp_path: Path) -> None:
    task, folder = tiny_task(), tmp_path / "pool"
    made = finetune(tiny_task, folder, SWEEP, models=4, base=base, jobs=1, adapter="lora")
    assert {one.settings["rank"] for one in made} == {1, 2}
    start = load_file(folder / "base/model.safetensors")
    assert furthest(start, load_file(base)) == 0
    for one in made:
        found = Checkpoint(folder / one.name).load()
        assert furthest(found, merged(loaded(start), folder / one.name)) < 1e-6
        changed = {name for name in start if not torch.equal(found[name], start[name])}
        assert changed == {"fc1.weight", "fc2.weight", "fc2.bias"}, "the update, and the head"
        assert accuracy(loaded(found), task, task.held_out, tiny_numerics()) == one.held_out
        said = json.loads((folder / one.name / "adapter_config.json").read_text())
        assert (said["target_modules"], said["modules_to_save"]) == (["fc1"], ["fc2"])
        assert (said["r"], said["lora_alpha"]) == (one.settings["rank"], 2 * one.settings["rank"])
        assert said["base_model_name_or_path"] == str(folder / "base")
        record = json.loads((folder / f"{one.name}.json").read_text())
        lengths = 8 if one.settings["dora"] else 0
        assert record["adapter"] == {"parameters": one.settings["rank"] * (4 + 8) + lengths + 27, "of": 71}
    pool = merging.ModelPool.open([folder], folder / "base")
    assert list(pool.names) == [one.name for one in made]
    result = merging.merge(pool, merging.Uniform(), task=task)
    assert "rank" in set(result.report.leaderboard[0].trained), "hyper-parameters that differ"


def test_interrupted_and_enlarged_pools_have_the_same_bits(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    with pytest.raises(Stopped):
        finetune(tiny_task, folder, SWEEP, models=2, base=base, jobs=1, adapter="lora", should_stop=after(13))
    assert sorted(path.name for path in folder.glob("model_*")) == ["model_00", "model_00.json"]
    assert not list(folder.glob(".*")), "nothing half-written"
    finetune(tiny_task, folder, SWEEP, models=3, base=folder / "base", jobs=1, adapter="lora")
    finetune(tiny_task, tmp_path / "whole", SWEEP, models=3, base=base, jobs=1, adapter="lora")
    for name in ("model_00", "model_01", "model_02"):
        files = [tmp_path / place / name / "adapter_model.safetensors" for place in ("cut", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()
    for adapter, said in ((None, "another adapter"), ("lora", "another sweep")):
        sweep = Sweep.of({"epochs": 2} | ({} if adapter is None else {"rank": 1}))
        with pytest.raises(MergingError, match=said):
            finetune(tiny_task, folder, sweep, models=3, base=base, jobs=1, adapter=adapter)


def test_the_optimizer_has_the_adapter_alone(base: Path) -> None:
    module = loaded(load_file(base))
    adapters = Adapters.of("lora", module, frozenset(), tiny_task(), base)
    settings = LoraParameters(rank=2, epochs=1, batch_size=30, dropout=0.5, rslora=True)
    adapted = pickle.loads(pickle.dumps(adapters)).adapted(module, settings, "cpu")  # noqa: S301
    run = Run(adapted, tiny_task(), settings, numerics=tiny_numerics())
    before = {name: own.clone() for name, own in module.state_dict().items()}
    while not run.finished:
        run.step()
    held = sum(own.numel() for group in run.optimizer.param_groups for own in group["params"])
    assert held == 2 * (4 + 8) + 27 == run.facts["adapter"]["parameters"]
    assert all(torch.equal(own, before[name]) for name, own in module.state_dict().items()), "the base is shared"


def test_on_a_device_it_is_the_same_adapter(base: Path, tmp_path: Path, device: str) -> None:
    """Nearly: there the forward pass runs in bf16."""
    sweep = Sweep.of({"epochs": 1, "batch_size": 30, "rank": 2, "learning_rate": 0.01})
    for where in (device, "cpu"):
        finetune(tiny_task, tmp_path / where, sweep, models=1, base=base, adapter="lora", device=where, jobs=1)
    there, here = (Checkpoint(tmp_path / where / "model_00").load() for where in (device, "cpu"))
    assert furthest(there, here) < 0.01


def test_a_head_that_is_new_goes_along_with_models_of_transformers(tmp_path: Path) -> None:
    """Names in memory are not those in files; the base that is written is what ``from_pretrained`` loads."""
    transformers = pytest.importorskip("transformers", reason="transformers is in the extra dev-full")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "whole")
    state = load_file(tmp_path / "whole/model.safetensors")
    save_file({name: own for name, own in state.items() if "classifier" not in name}, tmp_path / "backbone.safetensors")

    def images(seed: int) -> Split:
        labels = blobs(60, seed).labels
        noise = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        return Split.of(noise + labels.view(-1, 1, 1, 1), labels)

    task = Task(
        name="noise",
        build=lambda pool: ImageClassifier(transformers.ViTForImageClassification(config), pool.tensors),
        held_out=images(1),
        train=images(2),
    )
    sweep = Sweep.of({"epochs": 1, "batch_size": 20, "rank": 2, "target_modules": "*.attention.?_proj,fc1"})
    finetune(task, tmp_path / "pool", sweep, models=1, base=tmp_path / "backbone.safetensors", adapter="lora")
    folder = tmp_path / "pool/model_00"
    said = json.loads((folder / "adapter_config.json").read_text())
    ends = {name.rpartition(".")[2] for name in said["target_modules"]}
    assert (ends, said["modules_to_save"]) == ({"q_proj", "k_proj", "v_proj", "o_proj", "fc1"}, ["classifier"])
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path / "pool/base")
    start = load_file(tmp_path / "pool/base/model.safetensors")
    assert torch.equal(model.classifier.weight, start["classifier.weight"])
    whole = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    whole.save_pretrained(tmp_path / "theirs")
    assert furthest(Checkpoint(folder).load(), load_file(tmp_path / "theirs/model.safetensors")) < 1e-6


class Convolutions(nn.Module):
    """Convolutions, one of them in groups, a norm with statistics, attention of torch, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 2)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=4)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.attention = nn.MultiheadAttention(6, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of three classes."""
        x = self.second(self.grouped(self.norm(self.first(inputs.view(-1, 1, 2, 2))))).flatten(2).permute(2, 0, 1)
        return self.head(self.attention(x, x, x)[0].mean(0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("regime", "dora"), [(None, False), (SwaRegime(start=0.3), False), (None, True)])
def test_convolutions_are_adapted_and_statistics_stay_the_bases(
    tmp_path: Path, regime: SwaRegime | None, dora: bool
) -> None:
    torch.manual_seed(0)
    save_file(Convolutions().state_dict(), tmp_path / "base.safetensors")
    task = Task(name="blobs", build=lambda pool: Convolutions(), held_out=blobs(60, 1), train=blobs(90, 2))
    more: dict[str, Any] = {} if regime is None else {"regime": regime}
    sweep = Sweep.of({"epochs": 3, "batch_size": 30, "rank": 3, "learning_rate": 0.01, "dora": dora})
    made = finetune(
        task, tmp_path / "pool", sweep, models=1, base=tmp_path / "base.safetensors", adapter="lora", **more
    )
    found = Checkpoint(tmp_path / "pool/model_00").load()
    module = Convolutions()
    module.load_state_dict(load_file(tmp_path / "base.safetensors"))
    wanted = merged(module, tmp_path / "pool/model_00")
    assert furthest(found, wanted) < 1e-6
    changed = {
        name for name, own in load_file(tmp_path / "base.safetensors").items() if not torch.equal(found[name], own)
    }
    assert changed == {"first.weight", "second.weight", "head.weight", "head.bias"}
    module.load_state_dict(found)
    assert accuracy(module, task, task.held_out, tiny_numerics()) == made[0].held_out, "of the model that is written"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 0}, "'rank' of 'finetune' is 0, but must be at least 1"),
        ({"rank": 5}, "`rank` 5 is more than the update of 'fc1' can have (4); give at most 4, or name larger"),
        ({"target_modules": "fc11"}, "`target_modules` 'fc11' names no layer; did you mean 'fc1'?"),
        ({"target_modules": "fc1, query"}, "'query' names no layer; there are fc1"),
        ({"target_modules": "fc2"}, "'fc2' is the head, which is trained whole"),
        ({"rang": 4}, "did you mean 'rank'?"),
        ({"alpha": 0}, "'alpha' of 'finetune' is 0, but must be at least 0.001"),
        ({"regime": Papa()}, "papa averages whole models while they are trained"),
        ({"adapter": None, "rank": 4}, "rank is a hyper-parameter of adapters; give `adapter` lora, or leave it out"),
        ({"adapter": "dora"}, "adapters of 'dora' are `adapter` lora with `dora`"),
        ({"adapter": "lorra"}, "unknown kind of adapters 'lorra'; did you mean 'lora'?"),
    ],
)
def test_mistakes(base: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    keywords: dict[str, Any] = {"adapter": "lora"} | {k: v for k, v in given.items() if k in ("adapter", "regime")}
    with pytest.raises(MergingError) as raised:  # noqa: PT012
        sweep = Sweep.of({k: v for k, v in given.items() if k not in keywords})
        finetune(tiny_task, tmp_path / "pool", sweep, models=2, base=base, **keywords)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300
    assert not (tmp_path / "pool").exists(), "said before anything is written"


def test_without_a_fitting_peft_it_is_one_line(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "peft", None)
    for found, said in (
        (version, r"PEFT .* cannot be loaded \(.*\); pip install -U peft"),
        (lambda name: "0.9.1", r"adapters need PEFT 0\.18 or newer, and 0\.9\.1 is installed"),
        (lacks, r"pip install 'merging\[adapters\]'"),
    ):
        monkeypatch.setattr("merging.training.adapters.version", found)
        with pytest.raises(RequirementError, match=said):
            finetune(tiny_task, tmp_path / "pool", SWEEP, models=1, base=base, adapter="lora")


def test_which_layers_are_adapted() -> None:
    module, usual = Convolutions(), LoraParameters(rank=3)
    assert targets(module, usual, ("head",)) == ("first", "second")
    assert largest_rank(module.first) == 4
    for pattern, said in (
        ("grouped", "is a convolution in groups"),
        ("attention", "is torch's MultiheadAttention"),
        ("out_proj", "is torch's MultiheadAttention"),
        ("norm", "is BatchNorm2d, no linear layer"),
        ("all-linear", "names no layer; there are first, second"),
    ):
        with pytest.raises(OptionError, match=said):
            targets(module, LoraParameters(rank=3, target_modules=pattern), ("head",))
    with pytest.raises(RequirementError, match="Linear has no linear layers or convolutions besides its head"):
        targets(nn.Linear(4, 3), usual, ("",))
    sweep = default_sweep(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "lora").space
    assert (sweep["learning_rate"], "mixup" in sweep) == (ADAPTERS_RATE, True)


def test_the_command_it_prints_merges_the_pool(merge: Merge, pool_folder: Path) -> None:
    words = ("finetune", "--task", TASK, "--base", pool_folder / "base.safetensors", "--models", "2", "--jobs", "1")
    more = ("--output", "pool", "--set", "epochs=1", "--adapter", "lora", "--rank", "1,2", "--target-modules", "fc1")
    ran = merge(*words, *more)
    assert ran.code == 0, ran.err
    assert "2 adapters in pool; best model_0" in ran.out
    line = next(line for line in ran.out.splitlines() if line.startswith("merge them:"))
    assert line.split()[2:7] == ["merge", "run", "--models", "'pool/model_*'", "--base"]
    ran = merge(
        "run", "--models", "pool/*", "--base", "pool/base", "--task", TASK, "--strategy", "uniform", "--no-tests"
    )
    assert ran.code == 0, ran.err
    assert "2 of 2 models" in ran.out
    for flags, said in (
        (("--adapter", "dora"), "adapters of 'dora' are --adapter lora with --dora"),
        (("--rank", "4"), "rank is a hyper-parameter of adapters; give --adapter lora, or leave it out"),
        (("--adapter", "lora", "--rank", "0"), "must be at least 1"),
        (("--adapter", "lora", "--rank", "1,x"), "'rank' of 'finetune' is 'x'"),
    ):
        ran = merge(*words, "--output", "no", *flags)
        assert (ran.code, said in ran.err, ran.err.count("error:")) == (2, True, 1), ran.err
