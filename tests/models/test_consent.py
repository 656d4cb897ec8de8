"""No code out of a stranger's folder is run, and nothing is fetched that nobody asked for."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import TaskError
from merging.models.catalogue import model_source
from merging.models.clip import OpenClip, clip_classifier
from merging.models.offline import offline
from tests.conftest import Merge

transformers = pytest.importorskip("transformers")

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast, BertConfig, BertForSequenceClassification
class Theirs(BertConfig):
    model_type = "theirs"
class Model(BertForSequenceClassification):
    config_class = Theirs
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 20,
    "pad_token_id": 0,
}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that anybody tried to reach; none can be."""
    tried: list[Any] = []

    def refuse(*address: Any, **more: Any) -> Any:
        tried.append((address, more))
        raise OSError("the network is not there")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda self, address: refuse(address))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def stranger(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "theirs.py").write_text(CODE.format(mark=str(folder / "PWNED")), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


MAPS = st.dictionaries(
    st.sampled_from(
        [
            "AutoConfig",
            "AutoModel",
            "AutoModelForSequenceClassification",
            "AutoModelForImageClassification",
            "AutoTokenizer",
        ]
    ),
    st.sampled_from(["theirs.Theirs", "theirs.Model", "theirs.Tokenizer", "someone/else--theirs.Model"]),
    min_size=1,
)


@settings(max_examples=25)
@given(
    MAPS,
    st.sampled_from(["theirs", "bert", "vit", "distilbert"]),
    st.sampled_from(["BertForSequenceClassification", "ViTForImageClassification", "Model"]),
    st.booleans(),
)
def test_a_folder_with_code_never_runs_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reached: list[Any],
    found: dict[str, str],
    kind: str,
    what: str,
    lists: bool,
) -> None:
    config = {"model_type": kind, "architectures": [what], "auto_map": found, **SMALL}
    mapped = {"auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None] if lists else "theirs.Tokenizer"}}
    folder = stranger(tmp_path / "model", config, mapped | {"tokenizer_class": "Tokenizer"})
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    for step in (
        lambda source: source.module(3),
        lambda source: source.transform().divided,
        lambda source: getattr(source, "tokenizer", None),
    ):
        with contextlib.suppress(TaskError):
            step(model_source(f"transformers:{folder}"))
    assert not (folder / "PWNED").exists()
    assert not reached


def test_code_is_refused_with_the_way_out(tmp_path: Path, merge: Merge, reached: list[Any]) -> None:
    config = {"model_type": "theirs", "architectures": ["Model"], "auto_map": {"AutoConfig": "theirs.Theirs"}, **SMALL}
    folder = stranger(tmp_path / "model", config)
    ran = merge("inspect", "--model", f"transformers:{folder}")
    assert ran.code == 2
    assert "code of its own" in ran.err
    assert "python:module:function" in ran.err
    assert not (folder / "PWNED").exists()
    assert not reached


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_of_the_hub_is_code(key: str, tmp_path: Path, reached: list[Any]) -> None:
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], key: "someone/kernel", **SMALL}
    with pytest.raises(TaskError, match=r"a kernel of the Hub \('someone/kernel'\), code that is never run"):
        model_source(f"transformers:{stranger(tmp_path / 'model', config)}")
    assert not reached


@pytest.mark.parametrize(
    "spec",
    [
        "open_clip:hf-hub:timm/ViT-B-16-SigLIP",
        "open_clip:local-dir:/nowhere",
        "timm:hf_hub:timm/resnet18",
        "timm:local-dir:/nowhere",
        "transformers:data/vit-base-patch16-224",
    ],
)
def test_names_of_places_are_refused_without_a_look_at_them(spec: str, merge: Merge, reached: list[Any]) -> None:
    Path("merge.toml").write_text(f'[task]\nmodel = "{spec}"\nheld_out = "data"\n', encoding="utf-8")
    Path("data/a").mkdir(parents=True)
    for arguments in (["inspect", "--model", spec], ["run", "--models", "data", "--strategy", "greedy"], ["check"]):
        ran = merge(*arguments)
        assert ran.code == 2
        assert any(words in ran.err for words in ("nothing is downloaded here", "name a folder that save_pretrained"))
    assert not reached


@pytest.mark.parametrize(
    "spec",
    [
        "google/vit-base-patch16-224@main",
        "transformers:google/vit-base-patch16-224",
        "timm:hf-hub:timm/resnet18.a1_in1k",
    ],
)
def test_an_id_is_asked_of_the_hub_and_of_nobody_else(
    spec: str, merge: Merge, reached: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    ran = merge("inspect", "--model", spec)
    assert ran.code == 2
    assert "is not in the cache" in ran.err
    assert "cannot be reached" in ran.err
    assert reached
    assert {address[0] for address, _ in reached} == {"hub.example"}


@given(
    st.sampled_from(["hf-hub:", "hf_hub:", "local-dir:", "https://", "s3://", "x:"]), st.text("abc/-_.@", max_size=12)
)
def test_no_name_with_a_place_is_looked_up(reached: list[Any], scheme: str, rest: str) -> None:
    for library in ("open_clip", "timm", "torchvision", "transformers"):
        if scheme == "hf-hub:" and library in ("timm", "transformers"):  # an id, which is asked for
            continue
        with pytest.raises(TaskError):
            model_source(f"{library}:{scheme}{rest}")
    assert not reached


def test_a_text_tower_of_the_hub_is_not_fetched(
    reached: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = OpenClip("roberta-ViT-B-32").config
    with pytest.raises(TaskError, match="nothing is downloaded here"):
        clip_classifier(config, 3, tensors=["model.text.x"])
    assert not reached


def test_a_folder_of_that_name_here_runs_no_code(
    reached: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """open_clip hands ``roberta-base`` to transformers, which takes a folder of that name before the Hub's."""
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}, **SMALL}
    folder = stranger(tmp_path / "roberta-base", config)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    with pytest.raises(TaskError):
        clip_classifier(OpenClip("roberta-ViT-B-32").config, 3, tensors=["model.text.x"])
    assert not (folder / "PWNED").exists()
    assert not reached


def test_what_the_user_runs_may_reach_the_network_as_before() -> None:
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    with offline():
        assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert before == huggingface_hub.constants.HF_HUB_OFFLINE
