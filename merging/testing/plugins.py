"""What every plug-in promises, whatever its kind: a name, declared options, clear refusals."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

import pytest

from merging.errors import OptionError, UnknownNameError
from merging.plugins.naming import as_written
from merging.plugins.options import Plugin, build, options_of
from merging.plugins.registry import PLUGINS


class Contract:
    """Base of every contract. A subclass supplies the fixture ``plugin``: what is under test."""

    kind: ClassVar[str]

    @pytest.fixture
    def plugin(self) -> Any:
        """The plug-in under test; override this fixture."""
        raise NotImplementedError("override the fixture 'plugin' with your plug-in")

    def test_is_registered_under_its_name(self, plugin: Any) -> None:
        """The registry's entry under its name is this function, or this class."""
        assert plugin.name
        registry = PLUGINS[self.kind]
        registered = registry[as_written(registry, plugin.name)[0]]
        assert registered is plugin or getattr(registered, "plugin", registered) is type(plugin)

    def test_says_what_it_is(self, plugin: Any) -> None:
        """A summary of one line, and a docstring of its own."""
        assert plugin.summary.strip(), "summary is what `merge list` prints"
        assert "\n" not in plugin.summary
        assert plugin.__doc__, "it has no docstring"


class PluginContract(Contract):
    """Base of the contracts of frozen dataclasses; ``plugin`` is an instance."""

    def test_is_frozen(self, plugin: Plugin) -> None:
        """No attribute of an instance can be set."""
        assert dataclasses.is_dataclass(plugin)
        for field in ("anything", *plugin.options()):
            with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
                setattr(plugin, field, 1)

    def test_says_what_it_is(self, plugin: Plugin) -> None:
        """A summary of one line, and a docstring of its own."""
        super().test_says_what_it_is(plugin)
        assert type(plugin).__dict__.get("__doc__"), "the class has no docstring"
        assert not str(type(plugin).__doc__).startswith(type(plugin).__name__ + "("), "the class has no docstring"

    def test_every_field_is_an_option_with_help(self, plugin: Plugin) -> None:
        """No field without a declaration, no declaration without help."""
        declared = {option.name: option for option in options_of(type(plugin))}
        for field in dataclasses.fields(plugin):
            assert field.name in declared, f"declare field '{field.name}' with merging.option(…)"
            assert declared[field.name].spec.help.strip(), f"option '{field.name}' has no help"
            assert "\n" not in declared[field.name].spec.help

    def test_defaults_are_valid(self, plugin: Plugin) -> None:
        """It can be made without options, and its defaults are values that may be given."""
        default = build(type(plugin), {})
        assert build(type(plugin), default.options()) == default

    def test_options_survive_json(self, plugin: Plugin) -> None:
        """Options written as JSON make an equal instance."""
        options = json.loads(json.dumps(plugin.options(), allow_nan=False))
        assert options == plugin.options()
        assert build(type(plugin), options) == plugin

    def test_options_may_be_given_as_strings(self, plugin: Plugin) -> None:
        """The command line gives strings."""
        given = {key: str(value) for key, value in plugin.options().items() if not isinstance(value, list)}
        kept = {key: value for key, value in plugin.options().items() if isinstance(value, list)}
        assert build(type(plugin), given | kept) == plugin

    def test_unknown_option_is_refused(self, plugin: Plugin) -> None:
        """A misspelt option is an error that names it."""
        with pytest.raises(UnknownNameError, match="no_such_option"):
            build(type(plugin), {"no_such_option": 1})

    def test_options_outside_their_range_are_refused(self, plugin: Plugin) -> None:
        """Declared ranges and choices are kept."""
        for declared in options_of(type(plugin)):
            low, high = declared.spec.low, declared.spec.high
            wrong: list[Any] = [] if low is None else [low - 1]
            wrong += [] if high is None else [high + 1]
            wrong += ["no such choice"] if declared.spec.choices else []
            for value in wrong:
                with pytest.raises(OptionError, match=declared.name):
                    build(type(plugin), {declared.name: value})
