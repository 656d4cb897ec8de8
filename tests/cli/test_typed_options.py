"""Options as they are typed: of plug-ins by kind, of a benchmark's methods by name, over those of a file."""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from merging.cli.asking.request import over, parse_options
from merging.cli.benchmark import _asked, command

FILE = {"alpha": 0.5, "inner": "uniform", "inner.tau": 0.1, "inner.inner": "best"}
TYPED = ["soft.alpha=0.1", "soft.inner=greedy", "soft.inner.order=random", "soft.steps=3"]


@given(st.permutations(TYPED))
def test_the_order_of_options_says_nothing(typed: list[str]) -> None:
    values = parse_options(typed, ("soft",))["soft"]
    expected = {"alpha": "0.1", "inner": "greedy", "inner.order": "random", "steps": "3"}
    assert values == expected
    assert over(FILE, values) == expected, "an inner strategy that is typed takes the file's away, and its options"
    assert over(FILE, {"steps": "3"}) == FILE | {"steps": "3"}
    flags = dict.fromkeys(("task", "seed", "trust_code", "models", "base", "plugin", "key"))
    flags |= {"seeds": 1, "strategies": ("soft=wise-ft",), "partitioners": (), "options": tuple(typed)}
    with click.Context(command):
        _, methods, _ = _asked(flags)
    assert methods == {"soft": ("wise-ft", expected)}


def test_an_option_that_is_typed_twice_is_a_list() -> None:
    assert parse_options(["a.x=1", "a.x=2", "a.x=3"], ("a",)) == {"a": {"x": ["1", "2", "3"]}}
