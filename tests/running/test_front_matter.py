"""What stands above the card of a merge, as the Hub reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import save_file

import merging
from merging.running.front_matter import front_matter, public_scores
from merging.storage.licence import Licence, agreed, told
from merging.storage.result import read_recipe
from merging.values.recipe import Ingredient
from merging.values.report import Report, Row

MIT, APACHE = Licence("mit"), Licence("apache-2.0")


def _folder(place: Path, seed: int, card: str | None) -> Path:
    place.mkdir()
    save_file({"w": torch.full((2,), float(seed))}, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if card is not None:
        (place / "README.md").write_text(card)
    return place


def _merged(tmp_path: Path, *cards: str | None) -> ModelCard:
    models = [_folder(tmp_path / f"m{number}", number, card) for number, card in enumerate(cards)]
    merging.merge(models, "uniform", output=tmp_path / "out")
    return ModelCard((tmp_path / "out" / "README.md").read_text())


def test_a_licence_that_all_have_is_taken_over(tmp_path: Path) -> None:
    own = "---\nlicense: other\nlicense_name: gemma\nlicense_link: https://example.org/x\n---\n# Mine\n"
    card = _merged(tmp_path, own, own)
    said = card.data.to_dict()
    assert said == {
        "license": "other",
        "license_name": "gemma",
        "license_link": "https://example.org/x",
        "library_name": "transformers",
        "tags": ["merge", "merging", "uniform"],
    }
    assert "All models have the licence other (gemma)" in card.text
    assert read_recipe(tmp_path / "out").names == ("m0", "m1")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("---\nlicense: apache-2.0\n---\n", "differ, and a merge has to obey each of them: mit: m0; apache-2.0: m1"),
        (None, "Not every model names a licence: mit: m0; no licence is named: m1"),
        ("---\nlicense: [oops\n---\n", "no licence is named: m1"),
        ("---\nlicense: {a: b}\n---\n", "no licence is named: m1"),
        ("- no\n- card\n", "no licence is named: m1"),
    ],
)
def test_a_conflict_is_named_and_nothing_is_stated(tmp_path: Path, second: str | None, words: str) -> None:
    card = _merged(tmp_path, "---\nlicense: mit\n---\n", second)
    assert "license" not in card.data.to_dict()
    assert words in card.text.replace("\\", "")


def test_what_a_stranger_writes_as_licence_is_text(tmp_path: Path) -> None:
    hostile = '---\nlicense: "x\\n---\\n<script>\\e[31m"\n---\n'
    card = _merged(tmp_path, hostile, hostile)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "\x1b" not in text
    assert "<script>" not in card.text
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["merge", "merging", "uniform"]


def test_a_card_without_front_matter_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _merged(tmp_path, "# Mine\n\nA model.\n", "# Mine\n")
    assert not caplog.records


def test_words_for_licences() -> None:
    assert agreed({"a": MIT, "b": MIT}) == MIT
    assert agreed({"a": MIT, "b": APACHE}) is None
    assert agreed({"a": MIT, "b": None}) is None
    assert agreed({}) is None
    assert told({"a": None}) == ""


def _report(tests: dict[str, float], samples: dict[str, int], task: str | None, tmp_path: Path) -> Report:
    models = [_folder(tmp_path / name, number, None) for number, name in enumerate("ab")]
    made = merging.merge(models, "uniform").report
    row = Row(
        strategy="uniform",
        label="uniform soup",
        held_out=0.5,
        tests=tests,
        shifted=None,
        ingredients=("a", "b"),
        evaluations=1,
        cached=0,
        forward_equivalents=1.0,
        seconds=1.0,
    )
    return replace(made, rows=(row,), task=task, samples=samples)


def test_scores_stand_there_for_whole_public_sets_alone(tmp_path: Path) -> None:
    whole = {"test": 50_000, "imagenet-v2": 9_999, "mine": 50_000}
    report = _report({"test": 0.75, "imagenet-v2": 0.5, "mine": 0.9}, whole, "imagenet-shifts", tmp_path)
    (score,) = public_scores(report)
    assert (score["dataset_type"], score["metric_value"]) == ("ILSVRC/imagenet-1k", 0.75)
    rows = [Ingredient("a", "0", "hf-hub:ours/a@" + "0" * 40), Ingredient("b", "1", "/b"), Ingredient("c", "2")]
    text = front_matter(report, rows, {"a": MIT, "b": MIT})
    said = yaml.safe_load(text.split("---\n")[1])
    assert said["base_model"] == ["ours/a"]
    assert said["base_model_relation"] == "merge"
    assert said["model-index"][0]["results"][0]["dataset"]["type"] == "ILSVRC/imagenet-1k"
    assert not public_scores(replace(report, task="digits"))
    assert not public_scores(replace(report, task=None))
    assert not public_scores(replace(report, measure="nll"))
    assert "model-index" in front_matter(report, (), {})
    assert "model-index" not in front_matter(report, (), {}, scored=False)  # an adapter that leaves some of it out
