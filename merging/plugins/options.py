"""Options, declared once on the field: type, default, range, help; of plug-ins, and of what a run is told.

The command line, ``merge.toml``, ``merge describe`` and the documentation all read this declaration.
"""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
from abc import ABC
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_origin, get_type_hints

import pydantic

from merging.errors import MergingError, OptionError, unknown
from merging.plugins.profiles import Profile
from merging.plugins.user_code import running
from merging.plugins.varying import checked, entries_of, texts_of
from merging.values.wording import shown


class _Unset:
    def __repr__(self) -> str:
        return "<profile>"


UNSET: Any = _Unset()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The spelling and the keeping of an option that is a setting of a whole run: its flag, its place in the journal.

    Attributes:
        flag: Word of its flag, where that is not its name.
        metavar: Word for its value in ``--help``; without one, its choices are listed there.
        switch: Sides of a boolean that the command line offers: ``on``, ``off`` or ``both``.
        said: Line of help of that flag, where a flag switches off what the setting is.
        default: Its default in words, where the value alone does not say it.
        more: Sentence that the documentation adds to the line of help.
        header: Whether a run's journal begins with it: a run that goes on must have the same.
        changes: Whether it may be another one when a run goes on.
        silent: Whether a request in which nobody gave it holds null in its place, not the default.
    """

    flag: str = ""
    metavar: str = ""
    switch: Literal["on", "off", "both"] = "both"
    said: str = ""
    default: str = ""
    more: str = ""
    header: bool = False
    changes: bool = False
    silent: bool = False


@dataclass(frozen=True, kw_only=True)
class OptionSpec:
    """The declaration of an option: a line of help, and the values that it may have.

    ``low`` and ``high`` are inclusive; ``profiles`` maps a profile to a default; ``later`` says that plug-ins were
    written down before there was this option; ``setting`` is there where the field is one of a whole run's; ``varies``
    says between what its numbers may differ (:mod:`merging.plugins.varying`).
    """

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    profiles: Mapping[str, Any] | None = None
    later: bool = False
    setting: Setting | None = None
    varies: Literal["components", "models", "whole"] | None = None


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    profiles: Mapping[str, Any] | None = None,
    later: bool = False,
    setting: Setting | None = None,
) -> Any:
    """Declares an option of a plug-in, or a setting of a run.

    Args:
        default: the value when the user says nothing; ``UNSET`` where ``profiles`` decide.
        help: one line.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the values allowed, for strings.
        profiles: default per profile; the class then has an option called ``profile``.
        later: the plug-in had no such option once. At its default it is left out of what is written, so that runs and
            benchmarks from before go on.
        setting: how a setting of a run is spelt and where it is kept; plug-ins leave this out.
    """
    spec = OptionSpec(
        help=help, low=low, high=high, choices=tuple(choices), profiles=profiles, later=later, setting=setting
    )
    return dataclasses.field(default=default, metadata={"option": spec})


def varying_option(
    default: Any,
    help: str,
    by: Literal["components", "models", "whole"],
    *,
    low: float | None = None,
    high: float | None = None,
    profiles: Mapping[str, Any] | None = None,
    later: bool = False,
) -> Any:
    """Declares a number of a strategy that need not be one number; its field has the type ``Varying``.

    The strategy reads it with :func:`merging.numbers_of` (:func:`merging.mixing.varying.number_of` for ``whole``).

    Args:
        default: the value when the user says nothing; ``UNSET`` where ``profiles`` decide.
        help: one line.
        by: what its numbers may differ between: ``components``, which ramps over depth do too, ``models`` besides, or
            nothing (``whole``). All of them may be searched for.
        low: smallest number allowed.
        high: largest number allowed.
        profiles: default per profile.
        later: the plug-in had no such option once, as in :func:`option`.
    """
    spec = OptionSpec(help=help, low=low, high=high, profiles=profiles, later=later, varies=by)
    return dataclasses.field(default=default, metadata={"option": spec})


@dataclass(frozen=True)
class Declared:
    """Base of values whose fields are declared with :func:`option`, and checked when one is made.

    Raises:
        OptionError: a value of the wrong type or outside its range, or a field that is not declared.
    """

    def __post_init__(self) -> None:
        profile_first = sorted(options_of(type(self)), key=lambda each: each.name != "profile")  # others ask for it
        for declared in profile_first:
            value = getattr(self, declared.name)
            if value is UNSET:
                value = declared.default_in(getattr(self, "profile", None))
            object.__setattr__(self, declared.name, declared.check(value, self.called(declared.name)))

    def called(self, option: str) -> str:
        """The words by which an error message names one of these values, such as ``budget`` in backquotes."""
        return f"`{option}`"

    def options(self) -> dict[str, Any]:
        """The resolved options, as plain values that JSON can hold; a later one only where it is not at its default."""
        declared = options_of(type(self))
        usual = next((each.default for each in declared if each.name == "profile"), None)
        same = getattr(self, "profile", None) == usual
        values = {each.name: getattr(self, each.name) for each in declared}
        left = [
            each.name
            for each in declared
            if each.spec.later and (same or each.default is not UNSET) and values[each.name] == each.usual(usual)
        ]
        return {name: _plain(value) for name, value in values.items() if name not in left}

    @classmethod
    def keywords(cls) -> dict[str, tuple[Any, str]]:
        """Name → default and help of each option, for functions that take them by keyword."""
        return {
            declared.name: (declared.default, f"{declared.spec.help} {declared.setting.more}".rstrip())
            for declared in options_of(cls)
        }


@dataclass(frozen=True)
class Plugin(Declared, ABC):
    """Base of every plug-in: a frozen dataclass whose fields are its options, checked when it is made.

    Raises:
        OptionError: a value of the wrong type or outside its range, or a field that is no option.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    """The formula of what it computes, a line or two of plain text, for ``merge describe`` and its reference page."""
    limits: ClassVar[str] = ""
    """Sentences on where it does not apply, what it costs and what to expect."""
    example_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options with which the contract tests run it, where the defaults alone cannot work on any model."""
    named_profiles: ClassVar[Mapping[str, Profile]] = MappingProxyType({})
    """Choices of its option ``profile`` that are names of their own, and what these state otherwise."""

    def __post_init__(self) -> None:
        own = self._named()
        for key, value in {} if own is None else own.stated().items():
            object.__setattr__(self, key, value)
        super().__post_init__()
        for fixed in () if own is None else own.fixed:
            value, meant = getattr(self, fixed), _option(type(self), fixed).default_in(own.name if own else None)
            if value != meant:
                raise OptionError(
                    f"{self.called(fixed)} is {shown(value)}, but the name says {shown(meant)}; for another value name "
                    f"'{type(self).name}'"
                )

    def _named(self) -> Profile | None:
        """The profile that this plug-in is named after; of the names of its very class, which a derived one has not."""
        profile = getattr(self, "profile", None)
        found = vars(type(self)).get("named_profiles", {}).get(profile) if isinstance(profile, str) else None
        return None if found is None else found.bound(type(self), profile)

    def called(self, option: str) -> str:
        """The words by which an error message names an option: option and plug-in, both in quotes."""
        return f"option '{option}' of '{self.name or type(self).__name__}'"


@dataclass(frozen=True)
class Option:
    """One declared option of one class: name, type, default and declaration."""

    name: str
    type: Any
    default: Any
    spec: OptionSpec

    def default_in(self, profile: str | None) -> Any:
        """The default under a profile (the declared default where profiles say nothing)."""
        if self.spec.profiles is None or profile is None:
            return self.default
        return self.spec.profiles.get(profile)

    def usual(self, profile: str | None) -> Any:
        """The value where nobody gives any, in the profile that is the default; ``profile`` itself has that one."""
        return self.default_in(profile) if self.default is UNSET else self.default

    @property
    def plugin(self) -> type[Plugin] | None:
        """The class of plug-ins that may be its value, where it is one itself (a strategy on top of another)."""
        kinds = [self.type, *getattr(self.type, "__args__", ())]
        return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Plugin)), None)

    def check(self, value: Any, where: str) -> Any:
        """Coerces and checks a value; strings from the command line are accepted for every type.

        Args:
            value: what was given.
            where: what messages call this option.

        Raises:
            OptionError: it has the wrong type, or is outside the range.
        """
        if isinstance(value, str) and value.lower() == "none" and self._allows_none():
            value = None
        if self.spec.varies is not None:
            return None if value is None and self._allows_none() else self._varied(value, where)
        if self.plugin is not None:
            if get_origin(self.type) is tuple:
                several = value if isinstance(value, list | tuple) else [value]
                said = [each for each in several if not (isinstance(each, str) and each == "none")]
                return tuple(self._one_of_several(each, where) for each in said)
            return value if value is None else self._meant(value, where)
        if get_origin(self.type) is tuple:
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, list | tuple | set | frozenset):  # what has items is not yet a list of them
                raise OptionError(f"{where} is {shown(value)}, but must be a list")
        if self.spec.choices and not (value is None and self._allows_none()):
            if not isinstance(value, str):
                raise OptionError(f"{where} is {shown(value)}, but must be one of {', '.join(self.spec.choices)}")
            if value not in self.spec.choices:
                raise unknown(f"value for {where}:", value, self.spec.choices, error=OptionError)
        return self._valid(value, where)

    def _varied(self, value: Any, where: str) -> Any:
        """A number, or the entries of what varies.

        Raises:
            OptionError: it is neither, or one of its numbers is outside the range.
        """
        by, texts = self.spec.varies, texts_of(value)
        if by is None or texts is None:
            return self._valid(value, where)
        if not texts:
            raise OptionError(f"{where} is empty, but must be a number or entries such as COMPONENT=NUMBER")
        found = checked(texts, by, self.spec.low, self.spec.high, (where, self.describe_range(), self._valid))
        only = entries_of(found)[0]
        whole = len(found) == 1 and not (only.model or only.component) and isinstance(only.value, float)
        return only.value if whole else found

    def _valid(self, value: Any, where: str) -> Any:
        """A value of the declared type, within the range; of what varies, one number.

        Raises:
            OptionError: it is none.
        """
        try:
            return self._adapter().validate_python(value)
        except pydantic.ValidationError as error:
            first, allowed = first_fault(error), self.describe_range()
            if first.kind in ("greater_than_equal", "less_than_equal"):
                raise OptionError(f"{where} is {shown(value)}, but must be {allowed.strip(' ()')}") from None
            reason = first.words.removeprefix("Input should be ")
            raise OptionError(f"{where} is {shown(value)}, but must be {reason}{allowed}") from None

    def _meant(self, value: Any, where: str) -> Plugin:
        """The plug-in itself, or the one that a name or class stands for.

        Raises:
            OptionError: it stands for none.
        """
        from merging.plugins.naming import meant  # which knows all kinds, and they their options
        from merging.plugins.registry import KINDS

        wanted: Any = self.plugin
        if isinstance(value, wanted):
            return cast("Plugin", value)
        for registry in KINDS.values():
            if isinstance(value, str | type) and wanted in map(pkgutil.resolve_name, registry.interfaces):
                found: Plugin = meant(registry, value, self.name)
                return found
        raise OptionError(f"{where} is {shown(value)}, but must be a {wanted.__name__}, made from its class")

    def _one_of_several(self, value: Any, where: str) -> Plugin:
        """The same where several are taken: a name may have options behind a colon, or stand in a table with them.

        Raises:
            OptionError: it stands for none.
        """
        from merging.plugins.naming import spelled
        from merging.plugins.registry import sinks

        wanted: Any = self.plugin
        if isinstance(value, str | Mapping | type) and wanted in map(pkgutil.resolve_name, sinks.interfaces):
            return cast("Plugin", spelled(sinks, value, self.name))
        return self._meant(value, where)

    @property
    def setting(self) -> Setting:
        """Spelling and keeping of a setting of a run; the defaults of :class:`Setting` where none was declared."""
        return self.spec.setting or Setting()

    def describe_range(self) -> str:
        """``' (between 0 and 1)'``, or nothing where there is no range."""
        low, high = self.spec.low, self.spec.high
        if low is not None and high is not None:
            return f" (between {low:g} and {high:g})"
        return f" (at least {low:g})" if low is not None else f" (at most {high:g})" if high is not None else ""

    def _allows_none(self) -> bool:
        return type(None) in getattr(self.type, "__args__", ())

    @property
    def number(self) -> Any:
        """The type of one of its numbers, where it varies; with none, where none is allowed."""
        return float | None if self._allows_none() else float

    @property
    def annotation(self) -> Any:
        """The type of its values with its range, for pydantic; of choices the type alone."""
        bounded = pydantic.Field(ge=self.spec.low, le=self.spec.high)
        number = self.spec.low is not None or self.spec.high is not None
        kind = self.type if self.spec.varies is None else float
        return Annotated[kind, bounded] if number else kind

    def _adapter(self) -> pydantic.TypeAdapter[Any]:
        return pydantic.TypeAdapter(self.annotation, config=pydantic.ConfigDict(allow_inf_nan=False))


class Fault(NamedTuple):
    """A mistake in a value: where it is, how pydantic calls it, and its words."""

    place: tuple[str, ...]
    kind: str
    words: str


def first_fault(error: pydantic.ValidationError) -> Fault:
    """The first thing that pydantic finds wrong; one line says one thing."""
    first = error.errors()[0]
    return Fault(tuple(str(part) for part in first["loc"]), first["type"], first["msg"])


def options_of(plugin: type[Any] | Profile) -> tuple[Option, ...]:
    """The declared options of a class, in the order of its fields; of a profile those that its name leaves open.

    Raises:
        OptionError: the class has a field that nobody could set: it is no option, or the class is no dataclass.
    """
    if isinstance(plugin, Profile):
        return plugin.options()
    check_fields(plugin)
    with running(f"the types of the fields of {plugin.__qualname__}", plugin, "to be read", OptionError):
        hints = get_type_hints(plugin)
    return tuple(
        Option(field.name, hints[field.name], field.default, field.metadata["option"])
        for field in dataclasses.fields(plugin)
        if "option" in field.metadata
    )


def check_fields(plugin: type[Any]) -> None:
    """Refuses a class with a field that is no option: no command, file or report would know it.

    Raises:
        OptionError: it names class and field, and says what to write.
    """
    fields = {field.name: field for field in dataclasses.fields(plugin)}
    own = [name for name, kind in inspect.get_annotations(plugin).items() if "ClassVar" not in str(kind)]
    lost = next((name for name in own if name not in fields), None)
    if lost is not None:
        raise OptionError(
            f"{plugin.__qualname__} has a field '{lost}', but is no dataclass: write @dataclass(frozen=True) above it"
        )
    for name, field in fields.items():
        if field.init and "option" not in field.metadata:
            raise OptionError(
                f"field '{name}' of {plugin.__qualname__} is no option: declare it with merging.option(default, help), "
                "or as a ClassVar where nobody is to set it"
            )


P = TypeVar("P", bound=Plugin)


Nested: TypeAlias = Callable[[str, Mapping[str, Any]], Plugin]
"""Makes the plug-in that is an option's value, from its name and its own options."""


def _option(plugin: type[Any], name: str) -> Option:
    return next(each for each in options_of(plugin) if each.name == name)


def build(plugin: type[P], given: Mapping[str, Any], nested: Nested | None = None) -> P:
    """Makes a plug-in from named options.

    Args:
        plugin: its class.
        given: name → value. The options of a plug-in that is itself an option follow a dot (``inner.tau``), or stand
            in a mapping with its ``name``.
        nested: makes such a plug-in from its name.

    Raises:
        UnknownNameError: an option that the plug-in does not have; the nearest one is named.
        OptionError: a value of the wrong type or outside its range.
    """
    declared = {option.name: option for option in options_of(plugin)}
    said: Collection[str] = plugin.said() if isinstance(plugin, Profile) else ()
    values, deeper = dict[str, Any](), dict[str, dict[str, Any]]()
    for key, value in given.items():
        head, dot, rest = key.partition(".")
        if key in said:
            values[key] = value
            continue
        varies = dot and head in declared and declared[head].spec.varies is not None
        if head not in declared or (dot and declared[head].plugin is None and not varies):
            raise unknown(f"option of '{plugin.name}'", key, declared, f"see: merge describe {plugin.name}")
        if varies:
            values[head] = _placed(values.get(head), rest, value, f"option '{head}' of '{plugin.name}'")
        elif isinstance(values.get(head), Mapping) and declared[head].spec.varies is not None:
            _placed(value, next(iter(values[head])), value, f"option '{head}' of '{plugin.name}'")
        elif dot:
            deeper.setdefault(head, {})[rest] = value
        else:
            values[key] = value
    for name in [name for name in declared if declared[name].plugin is not None]:
        inner = values.get(name)
        own = deeper.pop(name, {})
        if inner is None and "name" in own:  # a table in a file, taken apart
            inner = own.pop("name")
        if isinstance(inner, Mapping):
            own = {key: value for key, value in inner.items() if key != "name"} | own
            inner = str(inner.get("name"))
        if own and (not isinstance(inner, str) or inner.lower() == "none"):
            raise OptionError(
                f"option '{name}.{next(iter(own))}' of '{plugin.name}' belongs to no plug-in: say {name}=…"
            )
        if isinstance(inner, str) and inner.lower() != "none" and nested is not None:
            values[name] = nested(inner, own)
    try:
        return plugin(**values)
    except MergingError:
        raise
    except Exception:  # a class without its method, or with checks of its own
        with running(f"plug-in '{plugin.name}'", plugin, "while it was made"):
            raise


def _placed(before: Any, place: str, value: Any, where: str) -> dict[str, Any]:
    """A number for one place, given after a dot (``density.head = 0.7``), with those that were given so before it.

    Raises:
        OptionError: the option is given without a dot too.
    """
    if before is not None and not isinstance(before, Mapping):
        raise OptionError(f"{where} is given alone and by place ('{place}'); write a list, such as 0.5, {place}=0.7")
    return {**(before or {}), place: value}


def _plain(value: Any) -> Any:
    if isinstance(value, Plugin):
        return {"name": value.name, **value.options()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
