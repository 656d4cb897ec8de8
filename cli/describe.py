"""``merge describe NAME``: a plug-in's options, defaults, ranges and paper."""

from __future__ import annotations

import inspect
from typing import Any

import click

from merging.cli.asking.options import shared


@click.command("describe")
@click.argument("name")
@shared("plugin", "as_json")
def command(name: str, plugin: tuple[str, ...], as_json: bool) -> None:
    """Options, defaults, ranges and paper of one plug-in, of whatever kind."""
    from merging.cli.showing.screen import print_json, warn
    from merging.errors import unknown
    from merging.plugins.discovery import load_all
    from merging.plugins.registry import PLUGINS

    warn(load_all(plugin))
    found = [(kind, registry[name]) for kind, registry in PLUGINS.items() if name in registry]
    if not found:
        everything = [entry for registry in PLUGINS.values() for entry in registry]
        raise unknown("plug-in", name, everything, "see: merge list")
    described = [describe(kind, plugin_class) for kind, plugin_class in found]
    if as_json:
        print_json(described[0] if len(described) == 1 else described)
    else:
        for entry in described:
            _print(entry)


def describe(kind: str, plugin: Any) -> dict[str, Any]:
    """Everything a plug-in declares, as JSON-ready values."""
    from merging.plugins.functions import parameters_of
    from merging.plugins.options import UNSET, Plugin, options_of
    from merging.plugins.profiles import Profile

    options = []
    declares = isinstance(plugin, Profile) or (isinstance(plugin, type) and issubclass(plugin, Plugin))
    for declared in options_of(plugin) if declares else parameters_of(plugin) if kind == "task" else ():
        spec = declared.spec
        entry = {
            "name": declared.name,
            "type": _type(declared.type if spec.varies is None else declared.number),
            "default": None if declared.default is UNSET else declared.default,
            "low": spec.low,
            "high": spec.high,
            "choices": list(spec.choices),
            "help": spec.help,
        }
        if spec.profiles is not None:
            entry["profiles"] = dict(spec.profiles)
        if spec.varies is not None:
            entry["varies"] = spec.varies
        options.append(entry)
    data = {
        "kind": kind,
        "name": plugin.name,
        "summary": plugin.summary,
        "description": inspect.cleandoc(plugin.__doc__ or "").partition("\nArgs:\n")[0].rstrip(),
        "paper": plugin.paper,
        "formula": plugin.formula,
        "limits": plugin.limits,
        "defined_in": plugin.__module__,
        "options": options,
    }
    if kind == "strategy":
        data |= {"needs": sorted(plugin.needs), "min_models": plugin.min_models, "gives": plugin.gives}
        data |= {"partitioner": _partitioner(plugin)}
    if kind == "task":
        data |= {"sets": list(getattr(plugin, "sets", ()))}
    if kind == "form":
        data |= {"written": plugin.written, "keys": list(plugin.keys)}
    if kind == "model":
        data |= {"written": getattr(plugin, "written", "") or f"{plugin.name}:NAME"}
    return data


def _partitioner(strategy: Any) -> str:
    """Name of the partitioner that a strategy uses where nobody names one; that of most, where it cannot be asked."""
    from merging.errors import MergingError
    from merging.plugins.options import build
    from merging.plugins.strategy import WHOLE, own_partitioner

    try:
        return own_partitioner(build(strategy, strategy.example_options))
    except MergingError:  # described all the same; a run says what is wrong with it
        return WHOLE


def _type(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).replace("NoneType", "none").replace("pathlib.Path", "path")


def _print(data: dict[str, Any]) -> None:
    from merging.cli.showing.entries import show_entries
    from merging.cli.showing.screen import Screen, marked
    from merging.plugins.strategy import WHOLE
    from merging.values.wording import plural

    console = Screen()
    console.print(marked("[bold]{}[/] ({}): {}", data["name"], data["kind"], data["summary"]), highlight=False)
    console.print(f"\n{_flowing(data['description'])}", highlight=False)
    for title in ("formula", "limits", "paper"):
        if data[title]:
            console.print(f"\n{title.capitalize()}: {data[title]}", highlight=False)
    if "needs" in data:
        needs = ", ".join(data["needs"]) or "weights only"
        console.print(f"Needs: {needs}; at least {plural(data['min_models'], 'model')}.", highlight=False)
        if data["partitioner"] != WHOLE:
            console.print(f"Partitioner, where none is named: {data['partitioner']}.", highlight=False)
    if data.get("sets"):
        console.print(f"\nSets: {', '.join(data['sets'])}", highlight=False)
    if "written" in data:
        console.print(f"\nWritten: {data['written']}", highlight=False)
    if "keys" in data:
        console.print(f"Besides its path a set may say: {', '.join(data['keys'])}", highlight=False)
    if data["kind"] == "model" or (data["kind"] == "form" and not data["options"]):
        return
    if not data["options"]:
        console.print("\nNo options.")
        return
    shown = []
    for entry in data["options"]:
        limits = f"; {_range(entry)}" if _range(entry) else ""
        said = marked("{} [dim](default {}{})[/]", entry["help"], _default(entry), limits)
        shown.append((marked("[bold]{}[/]", entry["name"]), [said]))
    in_a_set = "in the table of a set: { path = …, NAME = … }"
    ways = {"task": "in [task] of a merge.toml", "form": in_a_set, "sink": f"with --sink {data['name']}:NAME=VALUE,…"}
    where = ways.get(data["kind"], f"with -o {data['kind']}.NAME=VALUE")
    console.print(f"\nOptions, set {where}:", highlight=False)
    show_entries(console, shown)
    if any("varies" in entry for entry in data["options"]):
        from merging.plugins.varying import FORMS

        console.print(f"\n{FORMS}", highlight=False)


def _flowing(text: str) -> str:
    """A description whose paragraphs are a line each, for any screen; lists and code stay as they are."""
    paragraphs = text.split("\n\n")
    plain = [all(line[:1].isalnum() or line[:1] in "(`'\"" for line in each.splitlines()) for each in paragraphs]
    return "\n\n".join(
        " ".join(each.splitlines()) if prose else each for each, prose in zip(paragraphs, plain, strict=True)
    )


def _default(entry: dict[str, Any]) -> str:
    profiles = entry.get("profiles")
    if profiles is None:
        return _plain(entry["default"])
    values = {_plain(value) for value in profiles.values()}
    return values.pop() if len(values) == 1 else ", ".join(f"{_plain(v)} in {name}" for name, v in profiles.items())


def _plain(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(entry: dict[str, Any]) -> str:
    if entry["choices"]:
        return " | ".join(entry["choices"])
    from merging.plugins.varying import WAYS

    low, high = entry["low"], entry["high"]
    ways = [WAYS[entry["varies"]]] if "varies" in entry else []
    if low is None and high is None:
        return "; ".join(ways) or ("true | false" if entry["type"] == "bool" else "")
    return "; ".join([f"{'' if low is None else f'{low:g}'} … {'' if high is None else f'{high:g}'}".strip(), *ways])
