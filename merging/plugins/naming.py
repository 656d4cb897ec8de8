"""Plug-ins by name where objects are taken: ``strategy="greedy"``, ``partitioner=merging.ClipC8`` or ``ClipC8()``."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from merging.errors import OptionError, unknown
from merging.plugins.options import build
from merging.plugins.profiles import Profile
from merging.plugins.registry import Registry
from merging.plugins.user_code import article, kind_of

P = TypeVar("P")
Meant: TypeAlias = P | type[P] | str
"""A plug-in, its class, or its registered name."""

Several: TypeAlias = Meant[P] | Sequence[Meant[P]] | Mapping[str, Meant[P]]
"""A plug-in, several of them, or a mapping that names them."""


def meant(registry: Registry[type[P]], value: object, argument: str = "") -> P:
    """The plug-in that a caller means: an object as it is; a class or named profile, made with its defaults; a name.

    Args:
        registry: the plug-ins of its kind.
        value: object, class or name.
        argument: name of the argument, for messages; default: the kind.

    Raises:
        UnknownNameError: nobody registered that name; the nearest is named.
        OptionError: it is something else, or a class that cannot be made without more.
    """
    interfaces: tuple[type[P], ...] = tuple(pkgutil.resolve_name(each) for each in registry.interfaces)
    if isinstance(value, interfaces):
        return value
    if isinstance(value, str):
        name, options = as_written(registry, value)
        return cast("P", build(cast("Any", _called(registry, name)), options)) if options else _called(registry, name)()
    if isinstance(value, type) and issubclass(value, interfaces):
        return _made(value)
    if isinstance(value, Profile) and issubclass(value.plugin or Profile, interfaces):
        return cast("P", value())
    who = interfaces[0].__name__
    raise OptionError(
        f"`{argument or registry.kind}` is {kind_of(value)}; give {article(who)}, such as {_example(registry)}, or its "
        "name"
    )


def as_written(registry: Registry[Any], text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of what a text says in place of a name: a sum of objectives is the objective of sums.

    Args:
        registry: the plug-ins of its kind.
        text: a name, or ``0.5*nll + 0.5*accuracy``.
    """
    if registry.kind == "objective" and set(text) & set("*+"):
        return "weighted-sum", {"sum": text}
    return text, {}


def spelled(registry: Registry[type[P]], value: object, argument: str = "") -> P:
    """The plug-in that a text names, with options behind a colon, ``tensorboard:folder=tb``, or a table with its name.

    Anything else means what :func:`meant` says.

    Raises:
        UnknownNameError: there is no such plug-in, or no such option; the nearest is named.
        OptionError: the options are not written like that, or a value is wrong.
    """
    found = dict[str, Any]()
    if isinstance(value, Mapping):
        found = dict(value)
        kind = _called(registry, str(found.pop("name", "")))
    elif isinstance(value, str):
        name, colon, rest = value.partition(":")
        kind = _called(registry, name)
        for part in re.split(r",(?=\w+=)", rest) if colon else ():
            key, equals, text = part.partition("=")
            if not equals or not key or key in found:
                wrong = f"says {key} twice" if key in found else "must be NAME:OPTION=VALUE,…"
                raise OptionError(f"`{argument or registry.kind}` {value!r} {wrong}, such as {_example(registry)}")
            found[key] = text
    else:
        return meant(registry, value, argument)
    return cast("P", build(cast("Any", kind), found))


def meant_or_none(registry: Registry[type[P]], value: object, argument: str = "") -> P | None:
    """The same for what may be left out: None stays None."""
    return None if value is None else meant(registry, value, argument)


def named(registry: Registry[type[P]], value: object) -> dict[str, P]:
    """Several plug-ins by their names: their own, or those that a mapping gives them.

    Args:
        registry: the plug-ins of their kind.
        value: a plug-in, its class or name; a list of these; or a mapping from names to these.

    Raises:
        MergingError: something that is none, none at all, or two of one name.
    """
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise OptionError(f"a {registry.kind} is named by {kind_of(name)}; names are texts")
        found = {name: meant(registry, each) for name, each in value.items()}
    else:
        several = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        made: list[Any] = [meant(registry, each) for each in several]
        found = {each.name: each for each in made}
        if len(found) < len(made):
            raise OptionError(f"a {registry.kind} is there twice; pass a mapping that names each of them")
    if not found:
        raise OptionError(f"a benchmark needs at least one {registry.kind}")
    return found


def _called(registry: Registry[type[P]], name: str) -> type[P]:
    """The class that has a name.

    Raises:
        UnknownNameError: nobody registered it.
    """
    from merging.plugins.discovery import load_installed

    if name not in registry:
        load_installed()
    if name in registry:
        return registry[name]
    way = f"options are given to the class: {_example(registry)}" if set(name) & set("(:=") else ""
    raise unknown(registry.kind, name, registry, way)


def _made(kind: type[P]) -> P:
    """A plug-in with its defaults.

    Raises:
        OptionError: it has an option without one, or is an interface.
    """
    if inspect.isabstract(kind):
        raise OptionError(f"{kind.__name__} is an interface; give a class that derives from it, or an object of one")
    try:
        return kind()
    except TypeError as error:
        raise OptionError(f"{kind.__name__} is a class, and cannot be made without options: {error}") from None


def _example(registry: Registry[Any]) -> str:
    return _EXAMPLES.get(registry.kind, "one of your own")


_EXAMPLES = {
    "strategy": "merging.ManifoldMix(tau=0.99)",
    "partitioner": "merging.Block(count=4)",
    "optimizer": "merging.Nevergrad(method='CMA')",
    "objective": "merging.NegativeLogLikelihood(temperature=1.0)",
    "regime": "merging.Papa()",
    "sink": "'tensorboard:folder=tb'",
}
