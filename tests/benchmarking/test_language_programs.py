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

from benchmarks.language import compare, corpus, models, tables, training
from merging.storage import atomic
from tests.conftest import Merge

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


def test_what_has_a_run_of_words_in_common_with_training_text_is_not_scored() -> None:
    quoted = "One two three, four five six seven; eight nine ten eleven twelve thirteen."
    words = "thirteen one two three four five six seven eight nine ten eleven twelve"
    assert corpus.unseen([f"It says: {quoted}", words], ["none", f"so {quoted.lower()}"]) == [words]


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


def test_pools_are_compared_and_their_record_fills_the_page(
    corpora: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: Merge
) -> None:
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "corpus").mkdir()
    for name in (*compare.DOMAINS, compare.SHIFT):
        texts = list(models._texts(corpora / f"{name.replace(compare.SHIFT, 'manuals')}_train.jsonl"))
        for part in ("held_out", "test"):
            corpus._write(tmp_path / f"corpus/{name}_{part}.jsonl", ({"text": text} for text in texts[:6]))
    for number in range(2):
        settings = models.sweep("manuals")[number] | {"steps": 2}
        models.finetune(corpora, base, "manuals", tmp_path / f"manuals/model_{number}", settings)

    def ran(*words: str) -> None:
        done = merge(*words)
        assert done.code == 0, done.err

    monkeypatch.setattr(compare, "_merge", ran)
    monkeypatch.setattr(compare, "EVOLVED", "best,task-arithmetic-searched=task-arithmetic")
    few = replace(compare.STUDIES["manuals"], methods="best,uniform,task-arithmetic-searched=task-arithmetic")
    monkeypatch.setattr(compare, "STUDIES", {"manuals": few})
    monkeypatch.setattr(compare, "BUDGET", 3)
    compare.run(tmp_path, ("manuals",), threads=1)
    record, page = tmp_path / "kept/record.json", tmp_path / "page.md"
    page.write_text(tables.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    tables.write(tmp_path, record, page)
    told = json.loads(record.read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in told["studies"]["bench_manuals"]["rows"]}
    assert rows.keys() == {"best", "uniform", "task-arithmetic-searched"}
    made = page.read_text(encoding="utf-8")
    assert f"| `uniform` | {-rows['uniform']['held_out']:.4f} | {-rows['uniform']['tests']['test']:.4f} |" in made
    assert "`task-arithmetic-searched` by CMA-ES" in made
    assert made.count(tables.MISSING) == len(tables.PARTS) - 2, "the base and one study are measured"
    assert f"{told['base']['parameters']:,} parameters" in made


def test_the_committed_page_is_what_its_record_says() -> None:
    record = json.loads(tables.RECORD.read_text(encoding="utf-8"))
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page, record) == page, "renew it: python -m benchmarks.language tables --output DIR"
    assert record["protocol"] == tables.protocol_hash(), "docs/results/protocol-language.md is another one now"
