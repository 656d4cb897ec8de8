"""Options: declared once, coerced from strings, refused with the option's and the plug-in's name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from merging.errors import OptionError, UnknownNameError
from merging.plugins.options import UNSET, Plugin, build, option, options_of
from merging.plugins.registry import Registry


@dataclass(frozen=True)
class Sample(Plugin):
    name = "sample"

    profile: str = option("one", "which defaults", choices=("one", "two"))
    share: float = option(0.5, "a share", low=0.0, high=1.0)
    count: int = option(UNSET, "a count", low=1, profiles={"one": 1, "two": 2})
    maybe: float | None = option(UNSET, "perhaps", low=0.0, profiles={"one": None, "two": 0.5})
    ties: bool = option(False, "whether")
    patterns: tuple[str, ...] = option((), "some")


def test_profiles_fill_what_is_unset() -> None:
    assert (Sample().count, Sample().maybe) == (1, None)
    assert (Sample(profile="two").count, Sample(profile="two").maybe) == (2, 0.5)
    assert Sample(profile="two", count=7, maybe=None).options()["count"] == 7
    assert Sample(profile="two", maybe=None).maybe is None


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"share": "0.25"}, "share", 0.25),
        ({"share": "0"}, "share", 0.0),
        ({"count": "3"}, "count", 3),
        ({"maybe": "none"}, "maybe", None),
        ({"maybe": "None"}, "maybe", None),
        ({"maybe": "0.1"}, "maybe", 0.1),
        ({"ties": "true"}, "ties", True),
        ({"ties": "0"}, "ties", False),
        ({"patterns": "a=b"}, "patterns", ("a=b",)),
        ({"patterns": ["a", "b"]}, "patterns", ("a", "b")),
    ],
)
def test_strings_become_values(given: dict[str, Any], field: str, value: Any) -> None:
    found = getattr(build(Sample, given), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"share": 1.5}, ("'share'", "'sample'", "1.5", "between 0 and 1")),
        ({"share": "much"}, ("'share'", "'much'", "number")),
        ({"share": float("nan")}, ("'share'",)),
        ({"count": 0}, ("'count'", "at least 1")),
        ({"count": 1.5}, ("'count'", "integer")),
        ({"count": None}, ("'count'",)),
        ({"ties": "perhaps"}, ("'ties'", "boolean")),
        ({"profile": "three"}, ("'profile'", "three")),
        ({"profile": "tow"}, ("did you mean 'two'",)),
    ],
)
def test_wrong_values_are_refused_in_one_line(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as caught:
        build(Sample, given)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'shar'; did you mean 'share'\?"):
        build(Sample, {"shar": 0.5})
    with pytest.raises(UnknownNameError, match=r"'SHARE'; did you mean 'share'\?"):
        build(Sample, {"SHARE": 0.5})


def test_bounds_are_inclusive() -> None:
    assert build(Sample, {"share": 0.0}).share == 0.0
    assert build(Sample, {"share": 1.0}).share == 1.0


def test_plugins_are_values() -> None:
    assert Sample(share=0.25) == build(Sample, {"share": "0.25"})
    assert hash(Sample()) == hash(Sample())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample().share = 1.0  # type: ignore[misc]
    assert dataclasses.replace(Sample(), share=1.0).share == 1.0


def test_a_field_that_is_no_option_is_said_when_the_class_is_registered() -> None:
    registry: Registry[type[Plugin]] = Registry("sample", "merging.samples")
    with pytest.raises(OptionError, match=r"field 'lost' of .*Mine is no option: declare it with .*option\(.*ClassVar"):

        @registry.register("mine")
        @dataclass(frozen=True)
        class Mine(Plugin):
            kept: int = option(1, "kept")
            lost: int = 2

    assert "mine" not in registry


def test_a_field_that_is_no_option_is_said_when_one_is_made() -> None:
    @dataclass(frozen=True)
    class Mine(Plugin):
        lost: dict[str, int] = dataclasses.field(default_factory=dict)

    @dataclass(frozen=True)
    class Child(Mine):
        k: int = option(1, "its own is declared, the inherited one is not")

    for kind in (Mine, Child):
        with pytest.raises(OptionError, match=rf"field 'lost' of .*{kind.__name__} is no option"):
            kind()


def test_an_option_of_a_class_that_is_no_dataclass_is_said() -> None:
    class Mine(Plugin):
        k: int = option(3, "how many")

    class Plain(Plugin):
        limit: int = 3

    for kind, field in ((Mine, "k"), (Plain, "limit")):
        with pytest.raises(OptionError, match=rf"{kind.__name__} has a field '{field}', but is no dataclass: write"):
            kind()


def test_what_nobody_can_set_needs_no_declaration() -> None:
    @dataclass(frozen=True)
    class Mine(Plugin):
        shared: ClassVar[int] = 3
        seen: int = dataclasses.field(default=0, init=False)

    class Renamed(Sample):
        name = "renamed"

    assert Mine().options() == {}
    assert Renamed(share=1.0).options() == Sample(share=1.0).options()


def test_declarations_can_be_listed() -> None:
    assert [declared.name for declared in options_of(Sample)] == [
        "profile",
        "share",
        "count",
        "maybe",
        "ties",
        "patterns",
    ]
    assert Sample().options()["patterns"] == []
