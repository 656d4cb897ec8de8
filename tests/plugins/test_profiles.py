"""Profiles that are reached by a name of their own, of anybody's strategy."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

import merging
from merging.errors import MergingError, NameTakenError, OptionError, UnknownNameError
from merging.plugins.naming import meant
from merging.plugins.options import UNSET, build, option, options_of
from merging.plugins.profiles import Profile
from merging.plugins.registry import Registry, optimizers, strategies
from merging.testing.plugins import PluginContract


@dataclass(frozen=True)
class Two(merging.MixStrategy):
    """A mean that may be called by another name."""

    summary: ClassVar[str] = "one"
    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "double": Profile(label="twice", summary="two", fixed=("times",), description="Twice as much.")
    }
    profile: str = option("single", "which", choices=("single", "double", "nameless"))
    times: int = option(UNSET, "how often", low=1, profiles={"single": 1, "double": 2, "nameless": 3})
    more: int = option(UNSET, "what else", profiles={"single": 5, "double": 6, "nameless": 7}, later=True)

    def default_partitioner(self) -> str:
        return "layer" if self.profile == "double" else super().default_partitioner()

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """The mean."""
        return problem.mean(range(len(problem.pool)))


@pytest.fixture
def registered() -> None:
    strategies.register("single")(Two)


@pytest.mark.usefixtures("registered")
class TestContract(PluginContract):
    kind = "strategy"

    @pytest.fixture
    def plugin(self) -> merging.MixStrategy:
        return meant(strategies, "double")


@pytest.mark.usefixtures("registered")
def test_the_name_stands_for_the_profile() -> None:
    made = meant(strategies, "double")
    assert made == Two(profile="double")
    assert (type(made), made.name, made.label, made.summary) == (Two, "double", "twice", "two")
    assert (Two().name, Two().label, Two(profile="nameless").name) == ("single", "", "single")
    assert pickle.loads(pickle.dumps(made)).name == "double"  # noqa: S301 (our own bytes)
    assert dataclasses.replace(made, more=9).name == "double"
    entry = strategies["double"]
    assert meant(strategies, entry).name == "double"
    with pytest.raises(OptionError, match="`optimizer` is a Profile"):
        meant(optimizers, entry)
    assert (entry.min_models, entry.__doc__, entry.__module__) == (1, "Twice as much.", __name__)
    with pytest.raises(UnknownNameError, match="did you mean 'double'"):
        meant(strategies, "duoble")


@pytest.mark.usefixtures("registered")
def test_options_beside_the_name() -> None:
    assert [(each.name, each.default) for each in options_of(strategies["double"])] == [("more", 6)]
    assert build(strategies["double"], {"more": "8"}).options() == {"profile": "double", "times": 2, "more": 8}
    assert build(strategies["double"], build(strategies["double"], {}).options()) == Two(profile="double")
    with pytest.raises(OptionError, match=r"'times' of 'double' is 1, but the name says 2; for another value name 's"):
        build(strategies["double"], {"times": 1})
    with pytest.raises(OptionError, match="'profile' of 'double' is 'single', but it is a profile itself"):
        build(strategies["double"], {"profile": "single"})
    with pytest.raises(OptionError, match="option 'more' of 'double' is 'x'"):
        build(strategies["double"], {"more": "x"})
    with pytest.raises(UnknownNameError, match="unknown option of 'double' 'mroe'"):
        build(strategies["double"], {"mroe": 1})


@pytest.mark.usefixtures("registered")
def test_what_came_later_is_left_out_at_its_default() -> None:
    assert Two().options() == {"profile": "single", "times": 1}
    assert Two(more=6).options()["more"] == 6
    assert Two(profile="nameless").options()["more"] == 7, "another profile says all"


@pytest.mark.usefixtures("registered")
def test_a_derived_class_has_none_of_the_names() -> None:
    @strategies.register("third")
    @dataclass(frozen=True)
    class Third(Two):
        """Another one."""

    assert Third(profile="double").name == "third"
    assert strategies["double"].plugin is Two  # type: ignore[attr-defined]


def fresh() -> Registry[type[merging.MixStrategy]]:
    return Registry("strategy", "merging.strategies", "merging.plugins.strategy:MixStrategy")


def declared(**profiles: Profile) -> type[merging.MixStrategy]:
    @dataclass(frozen=True)
    class Other(merging.MixStrategy):
        """Another one."""

        named_profiles: ClassVar[Mapping[str, Profile]] = profiles
        profile: str = option("a", "which", choices=("a", "double"))

        def mix(self, problem: merging.Problem) -> merging.Recipe:
            return problem.single(0)

    return Other


def test_taken_names_are_refused() -> None:
    own = fresh()
    own.register("single")(Two)
    with pytest.raises(NameTakenError, match=r"'double' of .*Other is already registered by .*Two"):
        own.register("other")(declared(double=Profile()))
    assert list(own) == ["double", "single"], "nothing was entered"
    with pytest.raises(NameTakenError, match=r"'double' of .*Other is already registered by .*Two"):
        own.register("double")(declared())
    with pytest.raises(NameTakenError, match="has a profile of that name as well"):
        fresh().register("double")(declared(double=Profile()))


def test_profiles_that_are_none_are_refused() -> None:
    with pytest.raises(OptionError, match="names a profile 'x', but has no option 'profile' with that choice"):
        fresh().register("other")(declared(x=Profile()))
    with pytest.raises(OptionError, match="fixes 'nothing', which is no option"):
        fresh().register("other")(declared(double=Profile(fixed=("nothing",))))
    for given in (None, ["double"], {"double": {"label": "x"}}):
        wrong = declared()
        wrong.named_profiles = given  # type: ignore[assignment]
        with pytest.raises(OptionError, match=r"named_profiles of .*Other must map names to profiles"):
            fresh().register("other")(wrong)
    with pytest.raises(MergingError, match="'a b' is no name for a strategy"):
        fresh().register("other")(declared(**{"a b": Profile()}))
    with pytest.raises(OptionError, match="once its class is registered"):
        Profile()()


def test_a_class_that_is_entered_anew_loses_old_names() -> None:
    own = fresh()
    own.register("other")(first := declared(double=Profile()))
    assert list(own) == ["double", "other"]
    first.named_profiles = {}
    own.register("other")(first)
    assert list(own) == ["other"]
