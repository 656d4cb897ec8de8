"""Profiles of a plug-in that have a name of their own: ``affine`` is the class ``learned`` with other defaults.

A class with an option ``profile`` lists in ``named_profiles`` those of its profiles that are reached by name. The
registry enters each of them beside the class, and the name stands for it wherever names are taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError
from merging.values.wording import shown

if TYPE_CHECKING:
    from merging.plugins.options import Option, Plugin

STATED = ("label", "summary", "paper", "formula", "limits")
"""Facts that a profile may state otherwise than its class."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A profile of a plug-in under a name: what it states otherwise than its class, and what it is by definition.

    Declared in the class's ``named_profiles``; what the registry holds is bound to the class, and makes plug-ins too.

    Attributes:
        label: The name in tables; empty: what the class states, as for the facts below.
        summary: One line for ``merge list``.
        paper: The source that describes it.
        formula: What it computes.
        limits: Sentences on what it costs and where it does not apply.
        description: What its page says first; empty: the class's docstring.
        fixed: Options that nobody may set otherwise, because they make the profile what its name says.
        name: The name, once it is bound.
        plugin: The class, once it is bound.
    """

    label: str = ""
    summary: str = ""
    paper: str = ""
    formula: str = ""
    limits: str = ""
    description: str = ""
    fixed: tuple[str, ...] = ()
    name: str = ""
    plugin: type[Plugin] | None = None

    def bound(self, plugin: type[Plugin], name: str) -> Profile:
        """Binds a declared profile to its class, whose statements it takes where it makes none.

        Raises:
            OptionError: the class has no such profile, or no such option to fix.
        """
        from merging.plugins.options import options_of

        options = {option.name: option for option in options_of(plugin)}
        if "profile" not in options or name not in options["profile"].spec.choices:
            raise OptionError(
                f"{plugin.__qualname__} names a profile '{name}', but has no option 'profile' with that choice"
            )
        for fixed in self.fixed:
            if fixed not in options:
                raise OptionError(f"profile '{name}' of {plugin.__qualname__} fixes '{fixed}', which is no option")
        stated = {key: getattr(self, key) or getattr(plugin, key, "") for key in STATED}
        found = dataclasses.replace(self, name=name, plugin=plugin, **stated)
        for key in ("__module__", "__qualname__", "__name__"):
            object.__setattr__(found, key, getattr(plugin, key))
        object.__setattr__(found, "__doc__", self.description or plugin.__doc__)
        return found

    def __getattr__(self, name: str) -> Any:
        """Whatever else its class states: what it needs, what it gives."""
        plugin = self.__dict__.get("plugin")
        if plugin is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(plugin, name)

    def __call__(self, **given: Any) -> Plugin:
        """Makes the plug-in in this profile, with other options where they are given.

        Raises:
            OptionError: another profile is asked for, or an option that the name fixes is given otherwise.
        """
        if self.plugin is None:
            raise OptionError("a profile makes plug-ins once its class is registered")
        if given.get("profile", self.name) != self.name:
            raise OptionError(
                f"option 'profile' of '{self.name}' is {shown(given['profile'])}, but it is a profile itself; "
                f"name '{self.plugin.name}' for the others"
            )
        return self.plugin(**{**given, "profile": self.name})

    def stated(self) -> Mapping[str, str]:
        """The facts that plug-ins of this profile have instead of their class's."""
        return {"name": self.name, **{key: getattr(self, key) for key in STATED}}

    def options(self) -> tuple[Option, ...]:
        """The options that may be set beside the name, with the profile's defaults."""
        from merging.plugins.options import options_of

        if self.plugin is None:
            return ()
        return tuple(
            dataclasses.replace(
                option,
                default=option.default_in(self.name),
                spec=dataclasses.replace(option.spec, profiles=None),
            )
            for option in options_of(self.plugin)
            if option.name not in ("profile", *self.fixed)
        )

    def said(self) -> frozenset[str]:
        """Options that are said by the name alone; they may be given, if what is given is the same."""
        return frozenset({"profile", *self.fixed})
