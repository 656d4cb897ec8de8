"""What every source of models promises."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
import torch
from PIL import Image
from torch import nn

from merging.errors import MergingError, TaskError
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.storage.atomic import save_safetensors
from merging.storage.pool import ModelPool
from merging.testing.plugins import Contract


class ModelSourceContract(Contract):
    """Contract of a source of models. Supply ``plugin``, the registered function or class.

    State ``tiny`` where it is registered, a function that is given a folder and returns a model's name (small, if
    there is one), or override ``model``. A source whose architectures say themselves how many classes they have states
    ``decides_classes=True``.
    """

    kind: ClassVar[str] = "model"
    CLASSES: ClassVar[int] = 5

    @pytest.fixture
    def model(self, plugin: Any, tmp_path: Path) -> str:
        """The name that a user writes after the source's own, such as ``resnet18``."""
        assert hasattr(plugin, "tiny"), "state tiny=…, or override the fixture 'model' with a model's name"
        return str(plugin.tiny(tmp_path))

    @pytest.fixture
    def source(self, plugin: Any, model: str, alone: None) -> ModelSource:
        """The source of the model that is under test."""
        return model_source(f"{plugin.name}:{model}")

    @pytest.fixture
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cuts the test off: no other machine can be reached."""

        def refuse(*_: object, **__: object) -> NoReturn:
            pytest.fail("it reaches for the network; weights come from a pool, and nothing is downloaded")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def module(self, plugin: Any, source: ModelSource) -> nn.Module:
        """Its architecture, with five classes where it is told how many."""
        return source.module(None if decides(plugin) else self.CLASSES).eval()

    def test_its_text_finds_it_again(self, plugin: Any, model: str, source: ModelSource) -> None:
        """``spec`` is what stands in reports; a table with the source's name is the same."""
        assert source.spec.partition(":")[0] == plugin.name, f"spec is '{source.spec}'"
        assert model_source(source.spec).spec == source.spec
        assert model_source({plugin.name: model}).spec == source.spec

    def test_weights_are_reproducible(self, plugin: Any, source: ModelSource) -> None:
        """Random, the same every time, and not drawn from torch's global generator."""
        before = torch.random.get_rng_state()
        first = self.module(plugin, source).state_dict()
        assert torch.equal(torch.random.get_rng_state(), before), "put torch's global generator back"
        torch.rand(7)
        second = self.module(plugin, source).state_dict()
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first), "two builds begin with other weights"

    def test_reads_the_number_of_classes_off_the_checkpoints(
        self, plugin: Any, source: ModelSource, tmp_path: Path
    ) -> None:
        """A pool's head says it; the pool's weights go in strictly."""
        state = self.module(plugin, source).state_dict()
        save_safetensors(tmp_path / "model.safetensors", {name: t.contiguous() for name, t in state.items()})
        built = source.build(ModelPool.open([tmp_path / "model.safetensors"]))
        built.load_state_dict(state, strict=True)
        if decides(plugin):
            with pytest.raises(TaskError):
                source.module(self.CLASSES)
            return
        heads = source.heads()
        assert heads, "no tensor's shape follows the number of classes; state decides_classes=True"
        for name, axis in heads.items():
            assert state[name].shape[axis] == self.CLASSES

    def test_answers_its_example(self, plugin: Any, source: ModelSource) -> None:
        """``example`` makes a batch as the model takes it; logits are finite, and each sample's its own."""
        module, batch = self.module(plugin, source), source.example(4)
        with torch.inference_mode():
            logits = module(batch)
            alone = torch.cat([module(sample[None]) for sample in batch])
        assert logits.ndim == 2, f"logits are of shape {tuple(logits.shape)}"
        wanted = (4, logits.shape[1] if decides(plugin) else self.CLASSES)
        assert logits.shape == wanted, f"logits are of shape {tuple(logits.shape)}, not {wanted}"
        assert torch.isfinite(logits).all(), "logits are not finite"
        torch.testing.assert_close(alone, logits, rtol=1e-3, atol=1e-4)

    def test_its_pictures_go_in(self, plugin: Any, source: ModelSource) -> None:
        """The module takes what its transform makes of a picture, or what its tokenizer makes of texts."""
        if hasattr(source, "tokenize"):
            batch = source.tokenize(["a text", "another and longer one"])
            assert batch.dtype == torch.int64
        elif source.sides is None:  # it takes any size, or no pictures at all
            return
        else:
            picture = Image.new("RGB", (300, 260), (200, 30, 90))
            batch = torch.stack([source.transform().whole(picture)] * 2)
            made = tuple(batch.shape[-2:])
            assert made == tuple(source.sides), f"its transform makes pictures of {made}, and sides says {source.sides}"
        with torch.inference_mode():
            assert len(self.module(plugin, source)(batch)) == 2

    @pytest.mark.parametrize("name", ["no-such-model-anywhere", os.devnull])
    def test_a_model_that_it_does_not_know_is_refused(self, plugin: Any, alone: None, name: str) -> None:
        """A model that it does not know is refused in one line, before or when it is built."""
        with pytest.raises(MergingError) as refused:
            model_source(f"{plugin.name}:{name}").module(self.CLASSES)
        assert "\n" not in str(refused.value)

    def test_an_argument_that_it_does_not_take_is_refused(self, plugin: Any, model: str, alone: None) -> None:
        """An argument that it does not take is refused by its name, before or when it is built."""
        with pytest.raises(MergingError, match="no_such_argument") as refused:
            model_source({plugin.name: model, "no_such_argument": 1}).module(None if decides(plugin) else self.CLASSES)
        assert "\n" not in str(refused.value)


def tiny_images() -> nn.Module:
    """A classifier of images of any size, five classes, the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 5))


def decides(plugin: Any) -> bool:
    """Whether a source's architectures say themselves how many classes they have."""
    return bool(getattr(plugin, "decides_classes", False))
