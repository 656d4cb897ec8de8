"""What registered tasks are told of their data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merging.errors import TaskError
from merging.tasks.cifar10 import cifar10_shifts
from merging.tasks.imagenet import imagenet_shifts
from merging.tasks.pacs import pacs


@pytest.mark.parametrize(
    ("make", "more"),
    [(imagenet_shifts, {"model": "timm:test_resnet"}), (pacs, {}), (cifar10_shifts, {"model": "timm:test_resnet"})],
    ids=["imagenet-shifts", "pacs", "cifar10-shifts"],
)
def test_a_place_is_asked_for_and_may_be_below_the_home_folder(
    make: Callable[..., Any], more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskError, match=r"^the task '[a-z0-9-]+' needs data: the (file|folder) "):
        make(**more)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TaskError, match=str(tmp_path / "not there")):
        make("~/not there", **more)
