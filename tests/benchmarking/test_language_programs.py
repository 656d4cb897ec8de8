"""The programs of benchmarks/language, at a size that takes seconds: from documents to fine-tuned pools."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.language import corpus, models, training
from merging.storage import atomic

DOCS = Path(__file__).parents[2] / "docs"
SHAPE = models.SHAPE | {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
FEW = training.Recipe(steps=6, rate=1e-2, batch=2, length=32)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora of this project's pages."""
    folder, seen = tmp_path_factory.mktemp("corpora"), set[str]()
    for domain, page in {"general": "concepts.md", "manuals": "data.md", "essays": "methods.md"}.items():
        samples = corpus._samples((DOCS / page).read_text(encoding="utf-8"), seen)
        corpus._write(folder / f"{domain}_train.jsonl", ({"text": text} for text in samples))
    return folder


@pytest.fixture(scope="module")
def base(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    models.make_tokenizer(corpora, folder, 300)
    models.pretrain(corpora, folder, FEW, SHAPE | {"num_attention_heads": 2, "num_key_value_heads": 2})
    return folder


def test_documents_are_in_one_part_and_paragraphs_once(corpora: Path) -> None:
    texts = [text for file in sorted(corpora.iterdir()) for text in models._texts(file)]
    assert all(corpus.LENGTH[0] <= len(text) <= corpus.LENGTH[1] for text in texts)
    paragraphs = [part for text in texts for part in text.split("\n\n") if len(part) == len(part.strip()) > 40]
    assert len(paragraphs) == len(set(paragraphs))
    parts = {corpus._part("manuals", f"perl{number}") for number in range(100)}
    assert parts == {"train", "held_out", "test"}
    asked = list(corpus._questions(texts, np.random.default_rng(0)))
    assert all(len(set(row["choices"])) == 4 for row in asked)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's
def test_a_base_and_a_pool_are_trained(corpora: Path, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra dev-full has peft")
    told = json.loads((base / "training.json").read_text())
    assert told["loss"] < math.log(300)
    settings = models.sweep("essays")[0] | {"steps": 2}
    assert settings["rank"], "essays are learned by adapters"
    models.finetune(corpora, base, "essays", tmp_path / "adapter", settings)
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()
    models.finetune(corpora, base, "manuals", tmp_path / "whole", models.sweep("manuals")[0] | {"steps": 2})
    assert load_file(tmp_path / "whole/model.safetensors").keys() == load_file(base / "model.safetensors").keys()


def test_a_run_that_was_killed_goes_on_with_the_same_bits(
    corpora: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(training, "EVERY", 2)
    tokens = models.encoded(corpora, base, "manuals")
    whole, killed = (AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    training.train(whole, tokens, FEW, tmp_path / "whole.pt")

    class Killed(BaseException): ...

    saved = atomic.save_torch

    def once(*given: object) -> None:
        saved(*given)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(atomic, "save_torch", once)
    with pytest.raises(Killed):
        training.train(killed, tokens, FEW, tmp_path / "killed.pt")
    monkeypatch.setattr(atomic, "save_torch", saved)
    again = AutoModelForCausalLM.from_pretrained(base)
    training.train(again, tokens, FEW, tmp_path / "killed.pt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert not (tmp_path / "killed.pt").exists()
    assert replace(FEW, seed=1) != FEW
