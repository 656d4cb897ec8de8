"""``merge finetune``: sweeps, training, pools that are completed, and what every mistake says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

import merging
from merging.errors import FolderError, OptionError, PoolError, RequirementError, Stopped, TaskError
from merging.plugins.progress import Silent
from merging.plugins.task import Task
from merging.testing import tiny_task
from merging.testing.fixtures import TinyNet, tiny_numerics
from merging.training.augment import NAMES, augmentation
from merging.training.finetune import finetune
from merging.training.folder import PoolFolder
from merging.training.hyperparameters import DEFAULT, HyperParameters, Range, Sweep, default_sweep
from merging.training.trainer import Run, accuracy
from tests.conftest import ENVIRONMENT, Merge
from tests.stopping import after

pytestmark = pytest.mark.gpu

SWEEP = Sweep.of({"learning_rate": {"low": 0.01, "high": 0.1, "log": True}, "epochs": [2, 3], "batch_size": 30})


def test_training_is_plain_gradient_descent_where_it_is_asked_to_be() -> None:
    """SGD without momentum's help, one step: against the gradient by hand."""
    module, task = TinyNet(), tiny_task()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    settings = HyperParameters(
        learning_rate=0.1,
        weight_decay=0.0,
        epochs=1,
        batch_size=150,
        optimizer="momentum",
        schedule="constant",
        warmup=0.0,
        clip=None,
    )
    assert task.train is not None
    run = Run(module, task, settings, numerics=tiny_numerics())
    run.step()
    assert run.finished
    plain = TinyNet()
    plain.load_state_dict(before)
    loss = cross_entropy(plain(task.train.inputs), task.train.labels)
    loss.backward()
    for name, parameter in plain.named_parameters():
        slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.allclose(module.state_dict()[name], before[name] - 0.1 * slope, atol=1e-6), name
    assert run.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert run.held_out() == accuracy(module, task, task.held_out, tiny_numerics())


def test_only_what_is_named_is_trained() -> None:
    module = TinyNet()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    run = Run(module, tiny_task(), HyperParameters(epochs=1), numerics=tiny_numerics(), only=frozenset({"fc2.bias"}))
    while not run.finished:
        run.step()
    changed = {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"fc2.bias"}


def test_same_seed_same_bits_and_global_generators_are_left_alone() -> None:
    numerics = tiny_numerics()

    def once(seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            module = TinyNet()
        module.load_state_dict(
            {n: torch.full_like(t, 0.1) if t.is_floating_point() else t for n, t in module.state_dict().items()}
        )
        settings = HyperParameters(epochs=2, learning_rate=0.05, mixup=0.2, label_smoothing=0.1, seed=seed)
        run = Run(module, tiny_task(), settings, numerics=numerics)
        while not run.finished:
            run.step()
        return module.fc1.weight.detach().clone()

    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second, other = once(1), once(1), once(2)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert np.array_equal(np.random.get_state()[1], expected[1])


@pytest.mark.parametrize("name", [*NAMES[1:], "rand-m5-mstd0.5", "augmix-m3", "original"])
@pytest.mark.parametrize("shape", [(3, 20, 16, 3), (3, 16, 16)])
def test_augmentations_keep_shapes_and_change_pixels(name: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    change = augmentation(name)
    assert change is not None
    torch.manual_seed(0)
    try:
        changed = [change(images) for _ in range(4)]
    except OptionError as error:
        if not name.startswith("augmix") or "fails on images of 16 × 20 pixels" not in str(error):
            raise
        pytest.skip("this release of timm cannot mix images that are not square")
    assert all(c.shape == images.shape and c.dtype == torch.uint8 for c in changed)
    assert any(not torch.equal(c, images) for c in changed)
    with pytest.raises(OptionError, match="for stored images"):
        change(images.float())


def test_a_pool_is_made_completed_and_merged(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    first = finetune(tiny_task, folder, SWEEP, models=2, base=base, jobs=1, command="the command")
    assert [trained.name for trained in first] == ["model_00", "model_01"]
    record = json.loads((folder / "model_01.json").read_text())
    assert record["settings"] == first[1].settings
    assert len(record["epochs"]) == record["settings"]["epochs"]
    assert record["command"] == "the command"
    bits = (folder / "model_00.safetensors").read_bytes()
    more = finetune(tiny_task, folder, SWEEP, models=3, base=base, jobs=1)
    assert [trained.seconds == 0 for trained in more] == [True, True, False]
    assert (folder / "model_00.safetensors").read_bytes() == bits
    # the third is what it would have been in one go, whatever was there before
    whole = finetune(tiny_task, tmp_path / "whole", SWEEP, models=3, base=base, jobs=1)
    assert [t.settings for t in whole] == [t.settings for t in more]
    assert (tmp_path / "whole/model_02.safetensors").read_bytes() == (folder / "model_02.safetensors").read_bytes()
    pool = merging.ModelPool.open([folder / "model_*.safetensors"], folder / "base.safetensors")
    result = merging.merge(pool, merging.Greedy(), task=tiny_task())
    scores = {name: row for name, row in zip(pool.names, (t.held_out for t in more), strict=True)}
    assert result.report.best_single is not None
    assert result.report.best_single.held_out == max(scores.values())
    assert torch.equal(load_file(folder / "base.safetensors")["fc1.weight"], load_file(base)["fc1.weight"])


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_sample_that_is_answered_with_nan_is_wrong(label: int) -> None:
    """As in every table; the largest of NaN is the first of them, which may well be the label."""
    task, module = tiny_task(), TinyNet()
    module.register_forward_hook(lambda module, given, logits: torch.full_like(logits, torch.nan))
    only = task.held_out.part(torch.nonzero(task.held_out.labels == label)[:, 0])
    assert accuracy(module, task, only, tiny_numerics()) == 0.0


class Heard(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total = self.done = 0

    def stage(self, text: str, total: int | None = None) -> None:
        self.total, self.done = total or 0, 0

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def status(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.slow
def test_accuracy_is_told_as_it_goes(base: Path, tmp_path: Path) -> None:
    heard = Heard()
    (made,) = finetune(tiny_task, tmp_path / "pool", SWEEP, models=1, base=base, jobs=1, progress=heard)
    assert len(heard.lines) == made.settings["epochs"]
    assert heard.lines[-1] == f"epoch {made.settings['epochs']}: {100 * made.held_out:.2f} % held-out"
    heard = Heard()
    both = finetune(tiny_task, tmp_path / "two", SWEEP, models=2, base=base, jobs=2, progress=heard)
    assert heard.done == heard.total > 0, "every step of both processes is told"
    last = [f"epoch {t.settings['epochs']}: {100 * t.held_out:.2f} % held-out" for t in both]
    assert set(heard.lines) >= {f"{t.name}, {line}" for t, line in zip(both, last, strict=True)}


@pytest.mark.slow
def test_two_at_once_are_the_same_models(base: Path, tmp_path: Path) -> None:
    one = finetune(tiny_task, tmp_path / "one", SWEEP, models=3, base=base, jobs=1)
    two = finetune(tiny_task, tmp_path / "two", SWEEP, models=3, base=base, jobs=2)
    assert [(t.name, t.settings, t.held_out) for t in one] == [(t.name, t.settings, t.held_out) for t in two]
    for trained in one:
        name = f"{trained.name}.safetensors"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
def test_a_head_that_is_missing_is_trained_first(base: Path, tmp_path: Path) -> None:
    state = load_file(base)
    backbone = {name: t for name, t in state.items() if not name.startswith("fc2")}
    save_file(backbone, tmp_path / "backbone.safetensors")
    finetune(tiny_task, tmp_path / "pool", SWEEP, models=1, base=tmp_path / "backbone.safetensors", linear_probe=200)
    made = load_file(tmp_path / "pool/base.safetensors")
    assert torch.equal(made["fc1.weight"], state["fc1.weight"]), "the linear probe leaves the features alone"
    module, task = TinyNet(), tiny_task()
    module.load_state_dict(made)
    assert accuracy(module, task, task.held_out, tiny_numerics()) > 0.45, "better than a third"
    without = finetune(
        tiny_task, tmp_path / "raw", SWEEP, models=1, base=tmp_path / "backbone.safetensors", linear_probe=0
    )
    assert len(without) == 1
    assert not torch.equal(load_file(tmp_path / "raw/base.safetensors")["fc2.weight"], made["fc2.weight"])


@pytest.mark.slow
def test_optuna_learns_from_what_was_reached_and_resumes(base: Path, tmp_path: Path) -> None:
    space = Sweep.of({"learning_rate": {"low": 1e-4, "high": 1.0, "log": True}, "epochs": [1, 2], "batch_size": 30})
    whole = finetune(tiny_task, tmp_path / "whole", space, models=12, base=base, search="optuna")
    finetune(tiny_task, tmp_path / "cut", space, models=5, base=base, search="optuna")
    resumed = finetune(tiny_task, tmp_path / "cut", space, models=12, base=base, search="optuna")
    assert [t.settings for t in whole] == [t.settings for t in resumed]
    mixed = Sweep.of({"epochs": {"low": 1, "high": 2}, "batch_size": 30, "models": [{"learning_rate": 0.01}]})
    made = finetune(tiny_task, tmp_path / "listed", mixed, models=3, base=base, search="optuna")
    assert made[0].settings["learning_rate"] == 0.01
    assert made[1].settings["learning_rate"] == HyperParameters().learning_rate
    drawn = finetune(tiny_task, tmp_path / "random", space, models=12, base=base, jobs=1)
    assert [t.settings for t in drawn] != [t.settings for t in whole]


def test_sweeps_draw_what_they_say() -> None:
    settings = [DEFAULT.settings(index, 0) for index in range(200)]
    rates = np.array([s["learning_rate"] for s in settings])
    assert rates.min() >= 3e-5
    assert rates.max() <= 3e-4
    assert abs(np.log(rates).mean() - np.log(np.sqrt(3e-5 * 3e-4))) < 0.15, "evenly in the logarithm"
    assert {s["augmentation"] for s in settings} == {"none", "flip", "crop"}
    assert [s["seed"] for s in settings[:3]] == [0, 1, 2]
    assert DEFAULT.settings(7, 0) == settings[7]
    listed = Sweep.of({"epochs": 4, "models": [{"learning_rate": 0.5, "seed": 9}, {"epochs": 1}]})
    assert listed.settings(0, 0) == {"seed": 9, "epochs": 4, "learning_rate": 0.5}
    assert listed.settings(1, 0) == {"seed": 1, "epochs": 1}
    assert Sweep.of(listed.plain()) == listed
    assert Sweep.of(DEFAULT.plain()) == DEFAULT
    assert listed.settings(2, 0) == {"seed": 2, "epochs": 4}
    fixed = listed.overruled_by(Sweep.of({"epochs": 3}))
    assert [fixed.settings(index, 0)["epochs"] for index in range(3)] == [3, 3, 3]
    assert fixed.settings(0, 0)["learning_rate"] == 0.5
    whole = Sweep.of({"epochs": {"low": 1, "high": 3}, "batch_size": {"low": 8, "high": 256, "log": True}})
    drawn = [whole.settings(index, 0) for index in range(200)]
    assert {s["epochs"] for s in drawn} == {1, 2, 3}
    assert {type(s["batch_size"]) for s in drawn} == {int}
    assert Sweep.of(whole.plain()) == whole
    assert DEFAULT.with_one(("epochs",)).values("epochs") == [16]
    assert Sweep.of({"erasing": {"low": 0.0, "high": 0.5}}).space["erasing"] == Range(0.0, 0.5)


NOT_THE_RECORD = [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000 + b"]" * 100_000, b"\xff\xfe{}", b'{"settings": 3}']


@pytest.mark.parametrize("content", NOT_THE_RECORD)
def test_what_is_no_record_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    facts = {"start": "x", "linear_probe": 0, "base": None, "task": "tiny"}
    folder = PoolFolder(tmp_path, facts, {}, "")
    (tmp_path / "model_00.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"model_00\.json is damaged \(.*\); remove it"):
        folder.written("model_00", HyperParameters())
    (tmp_path / "finetune.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"finetune\.json is damaged|holds a pool with another"):
        PoolFolder(tmp_path, facts | {"base": "x"}, {}, "").claim()


@pytest.mark.parametrize(
    "content", [b"epochs = ", b"epochs = 1\nepochs = 2", b"\xff\xfe", b"epochs = " + b"[" * 5000 + b"]" * 5000]
)
def test_what_is_no_sweep_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    """As a merge.toml is, also where the parser gives up."""
    (tmp_path / "sweep.toml").write_bytes(content)
    with pytest.raises(OptionError, match=r"^\S*sweep\.toml: "):
        Sweep.read(tmp_path / "sweep.toml")


def test_only_images_are_augmented_and_mixed_by_default() -> None:
    assert default_sweep(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)) is DEFAULT
    for other in (torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 3, 8, 8)):
        found = default_sweep(other).space
        assert set(DEFAULT.space) - set(found) == {"augmentation", "mixup"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"epochs": 0}, "at least 1"),
        ({"epochs": []}, "empty list"),
        ({"learning_rate": {"low": 1.0}}, "write { low = 1e-5"),
        ({"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, "a logarithm needs low > 0"),
        ({"learning_rate": {"low": 2.0, "high": 1.0}}, "low is 2, high 1"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"models": [{"epoch": 1}]}, "did you mean 'epochs'"),
        ({"models": 3}, r"listed as \[\[models\]\]"),
    ],
)
def test_mistakes_in_a_sweep(given: dict[str, object], said: str) -> None:
    with pytest.raises(merging.MergingError, match=said):
        Sweep.of(given)


def test_mistakes(base: Path, tmp_path: Path) -> None:
    own = tiny_task()
    untrained = Task(name="blobs", build=own.build, held_out=own.held_out)
    with pytest.raises(TaskError, match="no training data"):
        finetune(lambda: untrained, tmp_path / "a", SWEEP, models=1, base=base)
    with pytest.raises(RequirementError, match="give one with `base`"):
        finetune(tiny_task, tmp_path / "a", SWEEP, models=1)
    with pytest.raises(RequirementError, match="random or optuna"):
        finetune(tiny_task, tmp_path / "a", SWEEP, models=1, base=base, search="grid")
    with pytest.raises(RequirementError, match="no pool"):
        finetune(tiny_task, tmp_path / "a", SWEEP, models=0, base=base)
    save_file({"another": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(PoolError, match="has 'another', which the model does not know"):
        finetune(tiny_task, tmp_path / "a", SWEEP, models=1, base=tmp_path / "other.safetensors")
    with pytest.raises(OptionError, match="did you mean 'adamw'"):
        finetune(tiny_task, tmp_path / "b", Sweep.of({"optimizer": "adamww"}), models=1, base=base, jobs=1)
    with pytest.raises(OptionError, match="did you mean 'affine'"):
        finetune(tiny_task, tmp_path / "c", Sweep.of({"augmentation": "affin"}), models=1, base=base, jobs=1)
    assert not any((tmp_path / name).exists() for name in "abc"), "said before anything is written"
    finetune(tiny_task, tmp_path / "d", SWEEP, models=1, base=base, jobs=1)
    with pytest.raises(FolderError, match="another seed"):
        finetune(tiny_task, tmp_path / "d", SWEEP, models=1, base=base, jobs=1, seed=1)
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in load_file(base).items()}
    save_file(other, tmp_path / "moved.safetensors")
    with pytest.raises(FolderError, match="another base;"):
        finetune(tiny_task, tmp_path / "d", SWEEP, models=1, base=tmp_path / "moved.safetensors", jobs=1)
    with pytest.raises(FolderError, match="another linear probe"):
        finetune(tiny_task, tmp_path / "d", SWEEP, models=1, base=base, jobs=1, linear_probe=3)
    with pytest.raises(RequirementError, match="optuna follows from the models before; leave `jobs` out"):
        finetune(tiny_task, tmp_path / "e", SWEEP, models=1, base=base, jobs=2, search="optuna")
    with pytest.raises(FolderError, match="another sweep"):
        finetune(tiny_task, tmp_path / "d", DEFAULT, models=1, base=base, jobs=1)
    (tmp_path / "d/model_00.json").write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        finetune(tiny_task, tmp_path / "d", SWEEP, models=1, base=base, jobs=1)


def test_interrupted_finished_models_stay(base: Path, tmp_path: Path) -> None:
    should_stop = after(17)  # in the second model
    with pytest.raises(Stopped):
        finetune(tiny_task, tmp_path / "cut", SWEEP, models=3, base=base, jobs=1, should_stop=should_stop)
    assert sorted(p.name for p in (tmp_path / "cut").glob("model_*.safetensors")) == ["model_00.safetensors"]
    assert not list((tmp_path / "cut").glob(".*")), "nothing half-written"
    resumed = finetune(tiny_task, tmp_path / "cut", SWEEP, models=3, base=base, jobs=1)
    whole = finetune(tiny_task, tmp_path / "whole", SWEEP, models=3, base=base, jobs=1)
    assert [t.held_out for t in resumed] == [t.held_out for t in whole]


@pytest.mark.slow
def test_the_command_on_the_digits(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    Path("sweep.toml").write_text(
        "learning_rate = { low = 5e-4, high = 2e-3, log = true }\naugmentation = ['affine', 'none']\n"
    )
    words = (
        "finetune",
        "--task",
        "digits",
        "--models",
        "2",
        "--output",
        "pool",
        "--sweep",
        "sweep.toml",
        "--jobs",
        "1",
    )
    ran = merge(*words, "--set", "epochs=6", "--set", "batch_size=24")
    assert ran.code == 0, ran.err
    assert "2 models in pool; best model_0" in ran.out
    assert all(len(line) <= 60 for line in ran.out.splitlines()), "lines are broken between words"
    for k in range(2):
        record = json.loads(Path(f"pool/model_{k:02d}.json").read_text())
        assert record["held_out"] > 0.8, "the pretrained model has 62.9 %"
        assert record["command"].startswith("merge finetune --task digits")
        assert 5e-4 <= record["settings"]["learning_rate"] <= 2e-3
    ran = merge(
        "run",
        "--task",
        "digits",
        "--models",
        "pool/model_*.safetensors",
        "--strategy",
        "uniform",
        "--no-tests",
        "--output",
        "out",
    )
    assert ran.code == 0, ran.err
    for flags, said in (
        (("--set", "epochs"), "write it as name=value"),
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--sweep", "none.toml"), "none.toml"),
        (("--search", "grid"), "random or optuna"),
        (("--base", "nowhere.pt"), "no such checkpoint"),
    ):
        ran = merge("finetune", "--task", "digits", "--output", "no", *flags)
        assert ran.code == 2, flags
        assert said in ran.err
        assert not Path("no").exists()


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = ["finetune", "--task", "digits", "--models", "3", "--output", "pool", "--set", "epochs=4", "--jobs", "2"]
    code = [sys.executable, "-m", "merging", *words]
    run = subprocess.Popen(
        code, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list((tmp_path / "pool").glob("model_*.json")) and time.monotonic() < until:
        time.sleep(0.1)
    run.send_signal(2)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    done = len(list((tmp_path / "pool").glob("model_*.json")))
    assert 1 <= done < 3
    again = subprocess.run(code, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "pool").glob("model_*.json"))) == 3


DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")
def test_pacs_parts_are_apart() -> None:
    task = merging.load_task("pacs", data=str(DATA / "pacs96.npz"))
    assert task.train is not None
    assert (len(task.train), len(task.held_out), len(task.tests["test"])) == (2227, 748, 743)
    assert (len(task.tests["cartoon"]), len(task.tests["sketch"])) == (2344, 3929)
    images = [bytes(x.numpy()) for split in (task.train, task.held_out, task.tests["test"]) for x in split.inputs]
    assert len(set(images)) >= len(images) - 5, "the parts share no image (PACS itself holds a few twice)"
    share = np.bincount(task.held_out.labels.numpy()) / np.bincount(task.train.labels.numpy())
    assert np.allclose(share, share.mean(), atol=0.03)
