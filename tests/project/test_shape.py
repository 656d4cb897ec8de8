"""Values of many fields are made by name; public ones may be made by position for one release."""

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
from benchmarks.shape import WIDE, fields, files, positional
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


def wide() -> Iterator[str]:
    for path, tree in files(ROOT):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and positional(node) and fields(node) > WIDE:
                yield f"{path}: {node.name}"


def test_values_of_many_fields_take_them_by_name() -> None:
    assert not list(wide()), "write @dataclass(…, kw_only=True)"


def test_the_search_for_them_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.project.test_shape.WIDE", 1)
    assert list(wide())


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


@given(st.integers(2, 7), st.floats(0, 1), st.integers(1, 9))
def test_any_number_of_them_by_position(count: int, score: float, samples: int) -> None:
    values = {
        "score": score,
        "samples": samples,
        "correct": None,
        "seconds": 1.0,
        "passes": 0.5,
        "nan": 1,
        "terms": None,
    }
    names = list(values)
    assert names == [field.name for field in dataclasses.fields(Outcome)]
    with pytest.warns(FutureWarning, match="by name"):
        made = Outcome(*list(values.values())[:count], **{name: values[name] for name in names[count:]})  # type: ignore[arg-type]
    assert made.to_json() == Outcome(**values).to_json()  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert again.to_json() == dataclasses.replace(made).to_json() == made.to_json()
