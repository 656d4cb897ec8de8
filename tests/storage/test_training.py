"""What a model was trained with is read where it stands, and strangers' files say nothing worse than nothing."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from merging.storage.checkpoint import Checkpoint
from merging.storage.training_beside import trained_with
from merging.storage.training_inside import NAMES, trained_in

STATE = {"weight": torch.ones(2, 2)}


def saved(folder: Path, name: str = "model.pth.tar", **more: Any) -> Checkpoint:
    torch.save({"state_dict": STATE, **more}, folder / name)
    return Checkpoint(folder / name)


def test_a_record_of_finetune(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model_00.safetensors")
    settings = {"learning_rate": 0.001, "weight_decay": 0.1, "epochs": 3, "clip": None, "seed": 7}
    (tmp_path / "model_00.json").write_text(json.dumps({"name": "model_00", "settings": settings, "held_out": 0.5}))
    found = trained_with(Checkpoint(tmp_path / "model_00.safetensors"))
    assert dict(found) == {"lr": 0.001, "wd": 0.1, "epochs": 3, "seed": 7}
    assert list(found) == [name for name in NAMES if name in found]


def test_arguments_of_timm_inside_the_checkpoint(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=0.05, lr_base=0.1, opt="sgd", epochs=30, smoothing=0.1, seed=42, drop_path=None)
    found = trained_with(saved(tmp_path, args=args, epoch=29, arch="resnet18"))
    assert dict(found) == {"lr": 0.05, "epochs": 30, "optimizer": "sgd", "smoothing": 0.1, "seed": 42}


def test_hyper_parameters_of_lightning(tmp_path: Path) -> None:
    found = trained_with(saved(tmp_path, "last.ckpt", hyper_parameters={"lr": 1e-4, "max_epochs": 5}, epoch=4))
    assert dict(found) == {"lr": 1e-4, "epochs": 5}


def test_arguments_beside_the_checkpoint(tmp_path: Path) -> None:
    lines = ["aa: rand-m9-mstd0.5-inc1", "lr: 1.0e-3", "mixup: 0.2", "betas:", "- 0.9", "seed: 3", "opt: 'adamw'"]
    (tmp_path / "args.yaml").write_text("\n".join([*lines, "sched: null", "epochs: !!python/object:os.system x"]))
    found = trained_with(saved(tmp_path))
    wanted = {"lr": 0.001, "optimizer": "adamw", "augmentation": "rand-m9-mstd0.5-inc1", "mixup": 0.2, "seed": 3}
    assert {name: found[name] for name in wanted} == wanted
    assert "schedule" not in found


def test_the_file_goes_before_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("lr: 0.5\nseed: 3\n")
    assert dict(trained_with(saved(tmp_path, args=SimpleNamespace(lr=0.1)))) == {"lr": 0.1, "seed": 3}


class Arguments:
    """Stands for a class that is not there when the file is read."""

    def __init__(self) -> None:
        self.output_dir, self.learning_rate, self.weight_decay = "out", 2e-5, 0.01
        self.num_train_epochs, self.seed, self.fp16 = 3, 11, True
        self.max_grad_norm, self.lr_scheduler_type, self.deepspeed = 1.0, "linear", None


def test_a_folder_of_transformers_trainer(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    torch.save(Arguments(), tmp_path / "training_args.bin")
    (tmp_path / "trainer_state.json").write_text(json.dumps({"train_batch_size": 16, "max_steps": 900}))
    found = trained_with(Checkpoint(tmp_path))
    assert {name: found[name] for name in ("lr", "wd", "epochs", "batch", "clip", "seed")} == {
        "lr": 2e-5,
        "wd": 0.01,
        "epochs": 3,
        "batch": 16,
        "clip": 1.0,
        "seed": 11,
    }


class Code:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"settings": 3}',
        b'{"settings": {"learning_rate": [1], "seed": {"a": 1}, "epochs": null}}',
        b'{"settings": {"learning_rate": 1e999, "seed": ' + b"9" * 400 + b', "epochs": ' + b"9" * 5000 + b"}}",
        b'{"settings": {"learning_rate": NaN}}',
    ],
    ids=["empty", "bytes", "deep", "number", "kinds", "huge", "nan"],
)
def test_damaged_records_say_nothing(tmp_path: Path, content: bytes) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    for name in ("model.json", "trainer_state.json", "args.yaml", "hparams.yaml", "training_args.bin"):
        (tmp_path / name).write_bytes(content)
    assert dict(trained_with(Checkpoint(tmp_path / "model.safetensors"))) == {}


def test_no_code_is_run(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({"learning_rate": Code(tmp_path / "ran"), "seed": 5}, tmp_path / "training_args.bin")
    assert dict(trained_with(Checkpoint(tmp_path / "model.safetensors"))) == {"seed": 5}
    assert not (tmp_path / "ran").exists()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("seed: 7\n")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "args.yaml").symlink_to(tmp_path / "secret.yaml")
    assert dict(trained_with(saved(folder))) == {}


def test_texts_are_shown_and_never_obeyed() -> None:
    found = trained_in({"args": {"opt": "sgd\x1b[2J\ud800", "sched": "x" * 1000, "seed": "0x"}})
    assert found == {"optimizer": "sgd\\x1b[2J\\ud800", "seed": "0x"}


def test_settings_of_the_model_are_none_of_its_training() -> None:
    assert trained_in({"model_config": {"dropout": 0.5, "seed": 1}, "optimizer": {"state": {"lr": 3}}}) == {}
