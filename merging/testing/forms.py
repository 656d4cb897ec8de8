"""What every form of data promises."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from merging.data.form import KEYS, DataForm
from merging.data.images import Preparation
from merging.data.opening import load_data, open_data
from merging.errors import MergingError
from merging.models.source import ModelSource
from merging.plugins.progress import Progress
from merging.plugins.registry import forms
from merging.plugins.task import Split
from merging.testing.plugins import PluginContract


class TinyTexts(ModelSource):
    """The source of a text model whose tokens are characters."""

    def __init__(self) -> None:
        super().__init__("tiny:texts")

    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        """Builds a classifier that sums up embeddings of the characters."""
        del tensors
        return nn.EmbeddingBag(256, classes or 3)

    def tokenize(
        self, texts: Sequence[str], progress: Progress | None = None, *, second: Sequence[str] | None = None
    ) -> Tensor:
        """Turns each text into its first twelve characters, as numbers."""
        del progress, second
        return torch.tensor([[ord(letter) % 256 for letter in f"{text:12}"[:12]] for text in texts])


class Letters:
    """A tokenizer, as transformers has them, whose tokens are the bytes of a text after one for its beginning."""

    bos_token_id = eos_token_id = 0

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[list[int]]]:
        """Turns each text into its bytes."""
        return {"input_ids": [[0] * add_special_tokens + list(text.encode()) for text in texts]}

    def convert_ids_to_tokens(self, number: int) -> str:
        """Gives the name of a token."""
        return chr(number)


class TinyLanguage(ModelSource):
    """The source of a language model that reads bytes."""

    reads_language, context, padding, tokenizer = True, 64, 0, Letters()
    folder = Path("/nowhere")
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=256))

    def __init__(self) -> None:
        super().__init__("tiny:language")

    def module(self, classes: int | None = None, tensors: Any = None) -> nn.Module:
        """Builds an embedding, which no test of a form calls."""
        del classes, tensors
        return nn.Embedding(256, 2)


class DataFormContract(PluginContract):
    """Contract of a form of data. Supply ``plugin``, an instance.

    The class has a static method ``tiny`` that writes a small set of three classes into a folder and returns what a
    user writes; or override ``path``. Of a form for causal language models (``language``) these are nine questions,
    of which each of three choices is right three times.
    """

    kind: ClassVar[str] = "form"

    @pytest.fixture
    def path(self, plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """The path that a user writes for a small set with three classes."""
        monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
        for package in getattr(plugin, "packages", ()):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"declares that it needs {package}")
        assert hasattr(plugin, "tiny"), "write a static method tiny(folder), or override the fixture 'path'"
        return str(plugin.tiny(tmp_path))

    @pytest.fixture
    def load(self, plugin: DataForm, path: str) -> Callable[..., Split]:
        """Loads the set for a model that its form is for; keywords are those of a user's table."""
        return lambda labelled=True, classes=None, **table: load_data(
            {"path": path, **table}, _source(plugin), how=Preparation(), classes=classes, labelled=labelled
        )

    def test_keys_are_known_and_options_are_its_own(self, plugin: DataForm) -> None:
        """It takes shared keys by their names, and declares options under others: a key means the same to all forms."""
        assert set(plugin.keys) <= set(KEYS), f"keys are of {', '.join(KEYS)}; declare others as options"
        taken = set(plugin.options()) & set(KEYS)
        assert not taken, f"{', '.join(taken)}: list it among its keys, and read it from reader.options"

    def test_says_how_it_is_written(self, plugin: DataForm) -> None:
        """The message where no set is found names the form."""
        assert plugin.written or plugin.suffixes
        assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in plugin.suffixes), (
            "suffixes are written in lower case, with their dot"
        )
        with pytest.raises(MergingError) as refused:
            open_data("/nowhere/at/all", _source(plugin), Preparation())
        assert (plugin.written or plugin.suffixes[0]) in str(refused.value)

    def test_reads_its_own(self, plugin: DataForm, path: str) -> None:
        """It is the one that reads its example, and leaves those of others alone."""
        known = [forms[name]() for name in forms if forms[name].texts in (None, plugin.texts)]
        known = [form for form in known if form.texts is None or form.language == plugin.language]
        fits = [form for form in known if form.reads(path)]
        assert plugin.name in [form.name for form in fits], f"it does not read {path}"
        best = [form.name for form in fits if form.rank == max(each.rank for each in fits)]
        assert best == [plugin.name], f"{path} is read by {', '.join(best)}"
        for other in ("/nowhere", "/nowhere/set.unknown", "python:nobody:nothing", "nothing"):
            assert plugin.reads(other) == (other.startswith("python:") and plugin.name == "python"), other

    def test_opens_before_it_decodes(self, plugin: DataForm, path: str) -> None:
        """Labels are known, and the three classes of the example; names in order where it says them."""
        opened = open_data(path, _source(plugin), Preparation())
        if plugin.language:
            assert opened.final, "choices are the model's outputs"
            assert opened.scored == "questions", f"its example is called {opened.scored}"
            return
        assert len(opened.written) == 3, f"the labels that occur are {opened.written}"
        assert opened.names is None or len(opened.names) == 3

    def test_loads(self, load: Callable[..., Split]) -> None:
        """Labels count the classes; the same samples again give the same fingerprint."""
        split = load()
        assert split.labels.dtype == torch.int64, f"labels are {split.labels.dtype}"
        found = sorted(set(split.labels.tolist()))
        assert found == [0, 1, 2], f"labels are {found}, of three classes"
        assert load().fingerprint == split.fingerprint, "other samples the second time"

    def test_labels_are_left_out(self, plugin: DataForm, load: Callable[..., Split]) -> None:
        """Without labels the samples are the same, all of them −1."""
        if plugin.language:
            return
        split, plain = load(), load(labelled=False)
        assert set(plain.labels.tolist()) == {-1}, "labels are there, and were not asked for"
        same = sorted(map(_bytes, plain.tensor)) == sorted(map(_bytes, split.tensor))
        assert same, "other samples than with labels"

    def test_follows_the_models_classes(self, plugin: DataForm, path: str, load: Callable[..., Split]) -> None:
        """Labels follow the model's classes where it has those of the set in another order."""
        if plugin.language:
            return
        names = open_data(path, _source(plugin), Preparation()).names
        if names is None:  # numbers count, and have no other order
            names = ("0", "1", "2")
            assert load(classes=names).labels.tolist() == load().labels.tolist(), "numbers are other classes"
            return
        plain, turned = load(classes=names), load(classes=names[::-1])
        expected = [2 - label for label in plain.labels.tolist()]
        assert turned.labels.tolist() == expected, "labels do not follow the order of the model's classes"

    def test_renames_classes(self, plugin: DataForm, path: str, load: Callable[..., Split]) -> None:
        """``map`` renames a class of the set."""
        if plugin.language:
            return
        names = open_data(path, _source(plugin), Preparation()).names
        if names is None:
            return
        said = load(classes=(*names[1:], "renamed"), map={names[0]: "renamed"})
        expected = [(label - 1) % 3 for label in load(classes=names).labels.tolist()]
        assert said.labels.tolist() == expected, "map was not followed"

    def test_a_missing_set_is_said(self, plugin: DataForm) -> None:
        """A missing set is refused in one line that names it."""
        if not plugin.suffixes:
            return
        path = f"/nowhere/gone{plugin.suffixes[0]}"
        with pytest.raises((MergingError, OSError), match="gone"):
            open_data(path, _source(plugin), Preparation())


def _source(plugin: DataForm) -> ModelSource | None:
    return TinyLanguage() if plugin.language else TinyTexts() if plugin.texts else None


def _bytes(sample: Tensor) -> bytes:
    return sample.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
