"""Writes docs/reference/ and docs/cli.md from what the code declares; ``--check`` says what is missing or stale.

A page a built-in plug-in: options, formula, limits, source. A plug-in that does not state these is an error, so that
no page can be empty.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.plugins.registry import STATED
from merging.plugins.strategy import WHOLE

DOCS = Path(__file__).resolve().parent
TITLES = {"task": "What it scores", "model": "What it computes", "form": "What a sample is"}
"""Above what a plug-in states as its formula, where that is none of a merge."""
GIVEN = {"recipe": "a recipe", "ensemble": "an ensemble"}
"""What a strategy gives, as a sentence says it."""
HEAD = "<!-- Written by docs/build_reference.py; change the plug-in, then run it again. -->\n"

EXIT_CODES = """\
## Exit codes

| code | when |
|---|---|
| 0 | the command has done what it was asked for |
| 1 | no result: a plug-in or merge itself failed, or its output was lost |
| 2 | a mistake that the user can mend, in one line; nothing was written |
| 3 | `--fail-unless` asked for more than tests show; all was written, the reason is one line on standard error |
| 130 | interrupted; what there was is kept |

`--fail-unless better`: better on at least one of the sets that count, worse on none of them, tested on all.
`--fail-unless not-worse`: worse on none, and tested on all. The sets that count are the plain test sets and the
average of the shifted ones; where a run has none, the samples that `--certify-split` keeps apart, else the held-out
data. Better and worse are meant at the 5 % level, after the correction for several tests, against the best single
model (in `merge evaluate`: OTHER against MODEL). Of a benchmark one method is enough.
"""


def pages() -> dict[str, str]:
    """Every generated page: path below docs/ → text.

    Raises:
        SystemExit: a plug-in that does not state its summary, formula, limits or source.
    """
    from merging.cli.describe import describe
    from merging.plugins.discovery import load_installed
    from merging.plugins.registry import PLUGINS

    load_installed()
    described = [
        describe(kind, registry[name])
        for kind, registry in PLUGINS.items()
        for name in registry
        if registry[name].__module__.startswith("merging.")
    ]
    require_statements(described)
    found = {f"reference/{entry['kind']}/{entry['name']}.md": page(entry) for entry in described}
    found |= {"reference/index.md": index(described), "cli.md": command_line(), "moved.md": moved()}
    return found | {
        "python-api.md": filled("python-api.md", "settings", settings()),
        "getting-started.md": filled("getting-started.md", "keys of [run]", run_keys()),
    }


def filled(name: str, marker: str, text: str) -> str:
    """A page written by hand, with what stands between two markers replaced."""
    before, _, rest = (DOCS / name).read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- /{marker} -->")
    if not end:
        raise SystemExit(f"docs/{name} has no <!-- {marker} --> … <!-- /{marker} -->")
    return f"{before}<!-- {marker} -->\n{text}{end}{after}"


def settings() -> str:
    """The table of a run's settings."""
    from merging.running.settings import DECLARED

    lines = ["| argument | what it is | default | allowed | when a run goes on |", "|---|---|---|---|---|"]
    for name, declared in DECLARED.items():
        spec, setting = declared.spec, declared.setting
        allowed = ", ".join(f"`{choice}`" for choice in spec.choices) or declared.describe_range().strip(" ()")
        default = f"`{declared.default!r}`" + (f": {setting.default}" if setting.default else "")
        kept = "same" if setting.header else "may change" if setting.changes else ""
        lines.append(f"| `{name}` | {spec.help} {setting.more} | {default} | {allowed} | {kept} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def run_keys() -> str:
    """What [run] of merge.toml knows."""
    from merging.cli.asking.tables import RunTable

    keys = ", ".join(f"`{key}`" for key in RunTable.model_fields)
    return textwrap.fill(keys, 120, break_on_hyphens=False) + "\n"


def moved() -> str:
    """What moved to where, and how long the old path works."""
    from merging.moved import GONE, MEMBERS, MODULES, NAMES, RENAMED

    text = """# What moved

The modules of `merging` stand in wings now ([architecture](architecture.md)); nothing but places changed. An old path
works in this release, with a `FutureWarning` that names the new one, and not in the next; type checkers know the new
paths only. Names that
`import merging` offers (`merging.ManifoldMix`, `merging.ModelPool`, …) are where
they were; import from there where you can.

## Whole modules

| old | new |
|---|---|
"""
    lines = [f"| `merging.{old}` | `merging.{new}` |" for old, new in MODULES.items()]
    lines += ["", "## Names that went elsewhere than their module", "", "| old | new |", "|---|---|"]
    for old, targets in NAMES.items():
        for new, names in targets.items():
            lines.append(f"| `merging.{old}`: {', '.join(f'`{name}`' for name in names.split())} | `merging.{new}` |")
    programs = "The makers of the built-in pool (`digits_pretraining`, `digits_render` of training) are programs of a "
    lines += ["", "## Renamed", "", "| old | new |", "|---|---|"]
    lines += [f"| `merging.{m}.{a}` | `{b}` |" for m, names in RENAMED.items() for a, b in names.items()]
    lines += ["", "## Members of what a strategy is given", "", "| old | new |", "|---|---|"]
    for thing, parts in MEMBERS.items():
        moved = {f"{thing}.{m}": f"{thing}.{part}.{m}" for part, members in parts.items() for m in members.split()}
        lines += [f"| `{old}` | `{new}` |" for old, new in (moved | GONE).items()]
    lines += ["", programs + "checkout now: `benchmarks/digits_pool`.", ""]
    return HEAD.replace("the plug-in", "merging/moved.py") + text + "\n".join(lines)


def require_statements(described: list[dict[str, Any]]) -> None:
    """Ends with the name of the first plug-in that leaves something unsaid."""
    for entry in described:
        for what in STATED:
            if not entry[what].strip():
                raise SystemExit(f"{entry['kind']} '{entry['name']}' states no {what}; declare it on its class")


def page(entry: dict[str, Any]) -> str:
    """One plug-in's page."""
    kind, name = entry["kind"], entry["name"]
    lines = [HEAD, f"# {name}", "", f"*{kind}*: {entry['summary']}.", "", entry["description"], ""]
    lines += [f"## {TITLES.get(kind, 'What it computes')}", "", "```", entry["formula"], "```", ""]
    if kind == "strategy":
        needs = ", ".join(entry["needs"]) or "nothing but the weights"
        models = "one model" if entry["min_models"] == 1 else f"{entry['min_models']} models"
        lines += [f"Needs {needs}; at least {models}; gives {GIVEN.get(entry['gives'], entry['gives'])}.", ""]
        if entry["partitioner"] != WHOLE:
            lines += [
                f"Partitioner, where none is named: [{(own := entry['partitioner'])}](../partitioner/{own}.md).",
                "",
            ]
    if entry.get("sets"):
        lines += [f"Sets: {', '.join(f'`{each}`' for each in entry['sets'])}.", ""]
    lines += _set(entry) if kind in ("model", "form") else _options(entry)
    lines += ["## Limits", "", entry["limits"], "", "## Source", "", entry["paper"], ""]
    return "\n".join(lines)


def _options(entry: dict[str, Any]) -> list[str]:
    """The options of a plug-in, and how one is given."""
    kind, name, lines = entry["kind"], entry["name"], ["## Options", ""]
    command = f"merge finetune --output pool --{kind} {name}" if kind == "regime" else f"merge run --{kind} {name}"
    if not entry["options"]:
        return [*lines, "None.", "", "```", command, "```", ""]
    lines += ["| option | type | default | allowed | |", "|---|---|---|---|---|"]
    lines += [_row(option) for option in entry["options"]]
    if any("varies" in option for option in entry["options"]):
        lines += ["", "How numbers vary, and are searched for: [concepts](../../concepts.md#numbers-that-vary)."]
    example = entry["options"][0]
    if kind == "task":  # what has no default, and does not say what leaving it out means
        asked = [o["name"] for o in entry["options"] if o["default"] is None and "none:" not in o["help"]]
        given = [f'{each} = "…"' for each in asked or [example["name"]]]
        return [*lines, "", "```toml", "[task]", f'name = "{name}"', *given, "```", ""]
    return [*lines, "", "```", f"{command} -o {kind}.{example['name']}={_example(example)}", "```", ""]


def _set(entry: dict[str, Any]) -> list[str]:
    """How a model or a set of samples is named in a merge.toml."""
    if entry["kind"] == "model":
        example = f'model = "{entry["written"]}"  # or, with arguments, {{ {entry["name"]} = "…", … }}'
        return ["## In a merge.toml", "", "```toml", "[task]", example, "```", ""]
    keys = ", ".join(f"`{key}`" for key in entry["keys"])
    said = [f"Its path is written as: {entry['written']}.", f"A table with `path` may also say {keys}"]
    lines = ["## In a merge.toml", "", *said, "([data](../../data.md)).", ""]
    if entry["options"]:
        lines += ["Such a table takes options of its own, too:", ""]
        lines += ["| option | type | default | allowed | |", "|---|---|---|---|---|"]
        lines += [*(_row(option) for option in entry["options"]), ""]
    return lines


def _row(option: dict[str, Any]) -> str:
    from merging.cli.describe import _default, _range

    allowed = _range(option).replace("|", "\\|") or "–"
    kind = str(option["type"]).replace("|", "\\|")
    return f"| `{option['name']}` | {kind} | {_default(option)} | {allowed} | {option['help']} |"


def _example(option: dict[str, Any]) -> str:
    if option["choices"]:
        return str(option["choices"][-1])
    profiles = option.get("profiles") or {}
    value = option["default"] if option["default"] is not None else next(iter(profiles.values()), None)
    if isinstance(value, (tuple, list)):
        return "'weights=weight$'" if option["name"] == "patterns" else ",".join(map(str, value))
    return "4" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def index(described: list[dict[str, Any]]) -> str:
    """The list of all pages, a table a kind."""
    lines = [
        HEAD,
        "# Reference",
        "",
        "Every built-in plug-in; `merge list` and `merge describe NAME` show the same.",
        "",
    ]
    for kind in dict.fromkeys(entry["kind"] for entry in described):
        lines += [f"## {kind.capitalize()}", "", "| name | what it does |", "|---|---|"]
        lines += [
            f"| [{e['name']}]({kind}/{e['name']}.md) | {e['summary']} |".replace("σ|", "σ")
            for e in described
            if e["kind"] == kind
        ]
        lines.append("")
    return "\n".join(lines)


IN_COMMON = """## Models, and patterns

`merge run checkpoints/*.pth --strategy greedy` is `merge run --models 'checkpoints/*.pth' --strategy greedy`, and so
it is in `check`, `benchmark`, `inspect` and `apply`: what stands alone is added to `--models`, in whatever order, and
overrules the `[pool]` of a merge.toml. A file, a folder, and a pattern in quotes will do; where a name begins with
`-`, put `--` before it. Flags that take one file (`--base`, `--task`) want a pattern quoted: what a shell makes of it
behind the first would be models.

## JSON

With `--json`, standard output is one JSON document and nothing else, in every command; news, notes and errors go to
standard error, and exit codes are the same.

| command | the document |
|---|---|
| `run` | `report.json`, the `answer`, its `folder`, the `paths` of its files, its `page`; with `--dry-run` the plan |
| `benchmark`, `report` | `benchmark.json` ([its fields](benchmark.md)), and of `benchmark` the `answer` |
| `report --published` | the rows of the table |
| `check`, `inspect`, `evaluate` | what [the Python API](python-api.md) returns, as its `to_json()` gives it |
| `finetune` | the pool: `folder`, `base`, and of each `model` file, settings and held-out score |
| `apply` | `output`, `tensors`, `models`, `content_hash` |
| `runs` | a list, an entry for each folder: `kind`, `state`, `held_out`, `test`, `difference`, `verdict`, … |
| `list`, `describe` | summaries by kind and name; one plug-in with its options |
| `init` | what was found, guessed and left out, and the file that was written |
| `new`, `completion` | the files that were written, and what to do next; the script |
| `cache` | folder, limit, and what is remembered |

Scores are fractions where they are accuracies, seconds and bytes are named so, and what is not known is `null`.

## Tab completion

| shell | once |
|---|---|
| bash | `eval "$(merge completion bash)"` in `~/.bashrc` |
| zsh | `eval "$(merge completion zsh)"` in `~/.zshrc`, below `compinit` |
| fish | `merge completion fish > ~/.config/fish/completions/merge.fish` |

Commands, flags and values are completed: names of strategies, partitioners, optimizers, objectives, regimes and tasks
(with what they do, in zsh and fish), lists (`--strategies greedy,ti<TAB>`), options (`-o strategy.<TAB>`, `-o
strategy.coefficients=<TAB>`) of the strategy that is typed or that merge.toml names, sets (`--split`), devices and
other choices, checkpoints, and folders of runs (`--resume`). Packages' plug-ins are known; a `--plugin` file on the
line is read, and not run. torch is not loaded.

## Environment variables

| variable | what it does |
|---|---|
| `MERGING_TRACEBACK` | `1`: an error of a plug-in, or one that nobody expected, ends with its whole traceback |
| `MERGING_CACHE` | folder for decoded images and what is remembered, instead of `~/.cache/merging` ([data](data.md)) |
| `MERGING_CACHE_LIMIT` | the most bytes that are remembered, such as `500MB`; the oldest-used go first |
| `MERGING_REMEMBER` | `0`: neither use nor keep scores and content hashes of other commands, as `--no-remember` |
| `OMP_NUM_THREADS`, `OMP_THREAD_LIMIT` | the most threads that `merge` takes; `--threads` says another number |
| `OMP_WAIT_POLICY` | `PASSIVE` unless it is set: idle threads leave the cores to others |
| `CUDA_VISIBLE_DEVICES` | which GPUs torch sees; `--device` chooses among cpu, cuda and mps |
| `COLUMNS`, `NO_COLOR`, `FORCE_COLOR`, `TERM` | width and colours of the terminal |
| `_MERGE_COMPLETE` | set by [tab completion](#tab-completion) |
| `MERGING_TEST_DATA`, `MERGING_DEV_FULL` | for this project's own tests: where data are; `dev-full` is installed |
| `MERGING_BROWSER` | likewise: the browser in which pages are tested, instead of the first that is found |
"""


def command_line() -> str:
    """The ``--help`` pages of ``merge`` and its commands, 100 columns wide."""
    import click

    from merging.cli.main import COMMANDS, cli

    def text(command: click.Command, name: str, parent: click.Context | None) -> str:
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
        return command.get_help(context)

    with plain_terminal():
        top = click.Context(cli, info_name="merge", terminal_width=100, max_content_width=100)
        lines = [HEAD, "# Command line", "", "```", text(cli, "merge", None), "```", ""]
        for name in COMMANDS:
            command = importlib.import_module(f"merging.cli.{name}").command
            lines += [f"## merge {name}", "", "```", text(command, name, top), "```", ""]
    lines += [IN_COMMON, EXIT_CODES]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n"))


@contextlib.contextmanager
def plain_terminal() -> Iterator[None]:
    """The same width for everybody, whatever terminal this runs in."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def differences(folder: Path, wanted: dict[str, str]) -> list[str]:
    """What is missing, stale or surplus in a docs folder, a line each."""
    said = []
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            said.append(f"missing: docs/{name}")
        elif path.read_text() != text:
            said.append(f"stale: docs/{name}")
    there = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("reference/**/*.md"))]
    return said + [f"surplus: docs/{name}" for name in there if name not in wanted]


def write(folder: Path, wanted: dict[str, str]) -> None:
    """Writes every page and removes what no plug-in asks for."""
    for path in folder.glob("reference/**/*.md"):
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def main() -> None:
    """Writes the pages, or checks them."""
    wanted = pages()
    if "--check" not in sys.argv[1:]:
        write(DOCS, wanted)
        print(f"{len(wanted)} pages written")
        return
    said = differences(DOCS, wanted)
    print("\n".join(said) or f"ok: {len(wanted)} generated pages are up to date")
    if said:
        sys.exit("run: python docs/build_reference.py")


if __name__ == "__main__":
    main()
