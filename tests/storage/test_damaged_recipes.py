"""Damaged recipes, and what stands beside them: the same bits, or one line that names the file; nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from merging.benchmarking.reading import read_folder
from merging.errors import FolderError, RecipeError
from merging.running.applying import apply
from merging.storage.result import read_recipe
from merging.values.recipe import _tensor_hash
from tests.conftest import Merge
from tests.golden.test_golden import HERE, NEWEST, models

GOLDEN = HERE / NEWEST
TEXT = (GOLDEN / "run" / "recipe.json").read_text(encoding="utf-8")


def put(*way: Any) -> Callable[[], bytes]:
    """The recipe with the last of these at the place that the others lead to."""

    def changed() -> bytes:
        data = within = json.loads(TEXT)
        for step in way[:-2]:
            within = within[step]
        within[way[-2]] = way[-1]
        return json.dumps(data).encode()

    return changed


def text(old: str, new: str) -> Callable[[], bytes]:
    return lambda: TEXT.replace(old, new, 1).encode()


FIRST = ("components", 0)
VOCABULARY = {"tokenizer_source": "union", "pad_to_multiple_of": None, "base": None}
DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is damaged: it is empty"),
    "white space": (lambda: b" \n", "is damaged: it is empty"),
    "cut": (lambda: TEXT[:300].encode(), "is damaged: Unterminated string"),
    "twice": (lambda: (TEXT + TEXT).encode(), "is damaged: Extra data"),
    "a key twice": (text('"coefficients"', '"coefficients": [1, 0], "coefficients"'), "'coefficients' stands twice"),
    "no text": (lambda: b'{"\xe9": 1}', "is damaged: 'utf-8' codec"),
    "deep": (lambda: b"[" * 10000, "is damaged: it is nested too deep"),
    "another thing": (lambda: b"5", ": not a recipe: 5"),
    "many digits": (text("0.5", "1" + "0" * 5000), "is damaged: Exceeds the limit"),
    "an infinite number": (text("0.5", "1e999"), "NaN or infinite"),
    "NaN": (put(*FIRST, "coefficients", 0, float("nan")), "NaN or infinite"),
    "a huge number": (put(*FIRST, "coefficients", 0, 10**400), "too large"),
    "numbers as text": (put(*FIRST, "coefficients", ["0.5", "0.5"]), "of component 'fc1' are no list of numbers"),
    "booleans": (put(*FIRST, "coefficients", [True, False]), "of component 'fc1' are no list of numbers"),
    "too many": (put(*FIRST, "coefficients", [1, 0, 0]), "component 'fc1' has 3 coefficients for 2 ingredients"),
    "too few": (put(*FIRST, "coefficients", []), "component 'fc1' has 0 coefficients for 2 ingredients"),
    "a mark": (put(*FIRST, "frozen", "no"), "frozen is 'no'"),
    "letters as tensors": (put(*FIRST, "tensors", "ab"), "tensors is 'ab'"),
    "a tensor twice": (put(*FIRST, "tensors", ["fc2.bias"]), "'fc2.bias' is in two components"),
    "no components": (put("components", []), "it has no components"),
    "no ingredients": (put("ingredients", []), "has 2 coefficients for 0 ingredients"),
    "no name": (put("ingredients", 0, {"hash": "", "file": ""}), "'name' is missing"),
    "ingredients as text": (put("ingredients", "ab"), "ingredients is 'ab'"),
    "no hash": (put("ingredients", 0, "hash", ""), "hash of ingredient 'model_1' is ''"),
    "a hash that is believed": (put("ingredients", 0, "hash", "unread:" + "0" * 64), "'unread:000"),
    "another hash": (put("ingredients", 0, "hash", "0" * 64), "ingredient 'model_1' (content 000000000000…)"),
    "no such tensor": (put(*FIRST, "tensors", ["fc1.bias", "fc1.weight", "x"]), "they have no tensor 'x' (1 such)"),
    "a tensor less": (put(*FIRST, "tensors", ["fc1.bias"]), "it lacks their tensor 'fc1.weight' (1 such)"),
    "dtypes of no tensor": (put("dtypes", {"x": ["float32", "float32"]}), "they have no tensor 'x' (1 such)"),
    "one dtype": (put("dtypes", {"fc1.bias": ["float32"]}), "dtypes is {'fc1.bias': ['float32']}"),
    "a vocabulary of nothing": (put("vocabulary", {**VOCABULARY, "models": []}), "its vocabulary is of no models"),
    "a vocabulary as text": (put("vocabulary", {**VOCABULARY, "models": ["x"]}), "'x' stands where a model should"),
    "overrides as text": (put("overrides", "x"), "overrides is 'x'"),
    "overrides nowhere": (put("overrides", {"fc1.bias": "0"}), "there is no run/overrides.safetensors"),
    "long names": (put(*FIRST, "name", "n" * 5000), ""),
}
"""What is wrong → the file, and words of the message; none: the recipe is as good as before."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "pool", tmp_path / "pool")
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_one_line(what: str, run: Path, merge: Merge) -> None:
    made, words = DAMAGED[what]
    (run / "recipe.json").write_bytes(made())
    before = sorted(run.parent.iterdir())
    ran = merge("apply", "run", "pool/model_*", "--output", "out.safetensors")
    if not words:
        assert ran.code == 0, ran.err
        assert Path("out.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
        return
    assert ran.code == 2
    assert words in ran.err
    said = ran.err.removeprefix("merging …\n")
    assert said.startswith("error: ")
    assert len(said) < 300
    assert said.count("\n") == 1
    assert sorted(run.parent.iterdir()) == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_are_read(encoding: str, run: Path) -> None:
    whole = read_recipe(run)
    (run / "recipe.json").write_text(TEXT, encoding=encoding)
    assert read_recipe(run).to_json() == whole.to_json()


def test_a_folder_is_no_recipe(run: Path) -> None:
    (run / "recipe.json").unlink()
    (run / "recipe.json").mkdir()
    with pytest.raises(RecipeError, match=r"cannot read a recipe at .*recipe\.json: Is a directory"):
        read_recipe(run)


def _overrides(run: Path, **tensors: torch.Tensor) -> None:
    named = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    save_file(named, run / "overrides.safetensors")
    hashes = {name: _tensor_hash(tensor) for name, tensor in named.items()}
    (run / "recipe.json").write_bytes(put("overrides", hashes)())


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"x": torch.ones(2)}, "they have no tensor 'x'"),
        ({"fc1_bias": torch.ones(1)}, "the recipe's overrides hold"),
        ({"fc1_bias": torch.full((8,), float("nan"))}, "fc1.bias"),
    ],
)
def test_measured_tensors_are_those_of_the_model(named: dict[str, torch.Tensor], words: str, run: Path) -> None:
    out = run.parent / "out.safetensors"
    _overrides(run, **named)
    with pytest.raises(Exception, match=words) as caught:
        apply(run, models=models(run.parent), output=out)
    assert len(str(caught.value)) < 300
    assert not out.exists()


def test_a_damaged_file_of_measured_tensors_is_named(run: Path) -> None:
    _overrides(run, x=torch.ones(2))
    (run / "overrides.safetensors").write_bytes(b"damaged")
    with pytest.raises(RecipeError, match=r"overrides\.safetensors is damaged: "):
        read_recipe(run)
    (run / "recipe.json").write_text(TEXT, encoding="utf-8")
    assert not read_recipe(run).overrides, "a file that no recipe names"


def test_a_report_names_the_recipe_that_is_damaged(run: Path) -> None:
    """And does without one that a newer version has written, or its tensors, or a journal that cannot be read."""
    (run / "recipe.json").write_bytes(put(*FIRST, "coefficients", ["x", "y"])())
    with pytest.raises(FolderError, match=r"run/recipe\.json: not a recipe: the coefficients of component 'fc1'"):
        read_folder(run)
    (run / "recipe.json").write_text('{"format": "merging-recipe/2"}')
    assert all(row.coefficients is None for row in read_folder(run).rows)
    (run / "recipe.json").write_bytes(put("overrides", {"x": "0"})())
    assert any(row.coefficients is not None for row in read_folder(run).rows)
    journal = (run / "events.jsonl").read_text(encoding="utf-8")
    assert any(row.trace for row in read_folder(run).rows)
    (run / "events.jsonl").write_text(journal.replace('"event":"strategy","name"', '"event":"strategy","nome"'))
    assert not any(row.trace for row in read_folder(run).rows)
