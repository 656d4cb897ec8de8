"""Functions take a handful; values of many fields are made by name, public ones by position for one release."""

from __future__ import annotations

import ast
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import merging
from benchmarks.shape import MOST_ARGUMENTS, WIDE, arguments, fields, files, positional
from merging.values.outcome import Outcome

ROOT = Path(__file__).parents[2]
SPLIT = merging.Split.of(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
PUBLIC: dict[type[Any], tuple[Any, ...]] = {
    merging.Fisher: (64, "auto", "true", 1e-3, False, 2),
    merging.HyperParameters: (2, 1e-3),
    merging.ManifoldMix: ("paper", 0.9),
    merging.Outcome: (0.5, 3),
    merging.Split: (SPLIT.inputs, SPLIT.labels, SPLIT.fingerprint),
    merging.Task: ("t", lambda pool: pool, SPLIT),
    merging.Transform: ("t", lambda image: image, {}),
    merging.Weights: ({}, (), "own", {}, "0"),
}
"""Those that users make, with values that they may have given by position so far."""


def greedy() -> Iterator[str]:
    for path, tree in files(ROOT):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and arguments(node) > MOST_ARGUMENTS:
                yield f"{path}: {node.name}"


def test_functions_take_a_handful() -> None:
    assert not list(greedy()), "make a value of what belongs together"


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.booleans(), st.booleans(), st.booleans())
def test_arguments_are_counted(first: int, middle: int, last: int, own: bool, more: bool, named: bool) -> None:
    places = [*(["self"] if own else []), *(f"a{n}" for n in range(first)), *(["/"] if own or first else [])]
    keywords = [*(["*more"] if more else ["*"] if last else []), *(f"c{n}=0" for n in range(last))]
    text = ", ".join([*places, *(f"b{n}" for n in range(middle)), *keywords, *(["**named"] if named else [])])
    function = ast.parse(f"def one({text}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert arguments(function) == first + middle + last + more + named


def wide() -> Iterator[str]:
    for path, tree in files(ROOT):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and positional(node) and fields(node) > WIDE:
                yield f"{path}: {node.name}"


def test_values_of_many_fields_take_them_by_name() -> None:
    assert not list(wide()), "write @dataclass(…, kw_only=True)"


def test_the_search_for_them_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.project.test_shape.WIDE", 1)
    monkeypatch.setattr("tests.project.test_shape.MOST_ARGUMENTS", 7)
    assert list(wide())
    assert list(greedy())


@pytest.mark.parametrize("made", PUBLIC, ids=lambda made: made.__name__)
def test_public_ones_may_be_made_by_position_with_a_warning(made: type[Any]) -> None:
    values = PUBLIC[made]
    names = [field.name for field in dataclasses.fields(made)][: len(values)]
    with pytest.warns(
        FutureWarning, match=rf"^{made.__name__} takes its fields by name: {made.__name__}\({names[0]}=…"
    ) as told:
        old = made(*values)
    assert told[0].filename == __file__
    new = made(**dict(zip(names, values, strict=True)))
    for name in names:
        one, other = getattr(old, name), getattr(new, name)
        assert one is other or one == other
    with pytest.raises(TypeError, match="multiple values"), pytest.warns(FutureWarning):
        made(*values, **{names[0]: values[0]})
    with pytest.raises(TypeError, match=rf"{made.__name__} has \d+ fields, and 99 values"):
        made(*range(99))


@given(st.integers(2, 8), st.floats(0, 1), st.integers(1, 9))
def test_any_number_of_them_by_position(count: int, score: float, samples: int) -> None:
    values = {
        "score": score,
        "samples": samples,
        "correct": None,
        "seconds": 1.0,
        "passes": 0.5,
        "nan": 1,
        "terms": None,
        "loss": 0.25,
        "failed": "",
    }
    names = list(values)
    assert names == [field.name for field in dataclasses.fields(Outcome)]
    with pytest.warns(FutureWarning, match="by name"):
        made = Outcome(*list(values.values())[:count], **{name: values[name] for name in names[count:]})  # type: ignore[arg-type]
    assert made.to_json() == Outcome(**values).to_json()  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert again.to_json() == dataclasses.replace(made).to_json() == made.to_json()
