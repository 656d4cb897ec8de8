"""What was found in a folder, and the merge.toml that says so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import showable
from merging.looking.guessing.checkpoints import as_patterns
from merging.looking.guessing.pools import FoundPool
from merging.models.spelling import divided
from merging.values.wording import plural, some

WIDTH = 100
"""Characters of a comment's line."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of merge.toml.

    Attributes:
        key: its key.
        value: its value.
        why: says what it is and how it was found.
        others: lines that could stand in its place → what speaks for them.
        guessed: why it may be wrong; empty where it was proven or said by a file or the user.
        place: whether the value is a path.
    """

    key: str
    value: Any
    why: Sequence[str] = ()
    others: Mapping[str, str] = field(default_factory=dict)
    guessed: str = ""
    place: bool = False


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """All that a merge.toml will say.

    Attributes:
        folder: the folder that was looked into, as it was given.
        pool: the checkpoints.
        task: lines of [task]; empty where there are no data.
        shifts: lines of [task.shifts].
        run: lines of [run].
        notes: what else the user should know, a sentence each.
        scores: guess in words → share of held-out samples that one model has right under it.
    """

    folder: str
    pool: FoundPool
    task: Sequence[Entry] = ()
    shifts: Sequence[Entry] = ()
    run: Sequence[Entry] = ()
    notes: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def guessed(self) -> tuple[Entry, ...]:
        """The lines that may be wrong."""
        return tuple(entry for entry in (*self.task, *self.shifts, *self.run) if entry.guessed)

    def text(self, output: Path) -> str:
        """The file, in TOML; paths are relative to the folder that it lies in.

        Args:
            output: the path that it will be written to.
        """
        at = output.absolute().parent
        here = "this folder" if str(self.folder) == "." else self.folder
        said = f"Written by merge init for {here}. Every line may be changed; merge check says whether all of it fits."
        parts = [_comment(said)]
        if self.task:
            parts.append(_table("task", self.task, at))
        if self.shifts:
            texts = any(entry.key == "objective" for entry in self.run)
            what = "Other texts" if texts else "Sets of other kinds with the same classes"
            comment = _comment(f"{what}: is the merge better there as well?")
            parts.append(comment + _table("task.shifts", self.shifts, at))
        parts.append(_table("pool", list(self.pool_entries(at)), at))
        parts.append(_table("run", self.run, at))
        if self.notes:
            parts.append("".join(_comment(note) for note in self.notes))
        return "\n".join(parts)

    def pool_entries(self, at: Path) -> Iterator[Entry]:
        """The lines of [pool].

        Args:
            at: the folder that paths are relative to.
        """
        pool = self.pool
        paths = [checkpoint.path for checkpoint in pool.models]
        named = _patterns(paths, at)
        key = {"key": pool.key} if pool.key else {}
        why = [f"{plural(len(paths), 'checkpoint')} with the same {len(pool.tensors)} tensors."]
        others = {}
        if pool.keys:
            other = [{"path": path, "key": pool.keys[0]} for path in named]
            others[f"models = {toml(other)}"] = "their averages (EMA), which these files hold too"
            why.append(f"'{pool.key}' are the trained weights.")
        for reason, left in pool.left_out.items():
            why.append(f"Left out, {reason}: {some([str(path) for path in left], 3)}.")
        models = [{"path": path, **key} if key else path for path in named]
        yield Entry(key="models", value=models, why=why, others=others, guessed=pool.guessed)
        if pool.base is not None:
            where = _relative(str(pool.base.path), at)
            value = {"path": where, "key": pool.base.key} if pool.base.key else where
            yield Entry(
                key="base",
                value=value,
                why=["The model that the others were fine-tuned from; some strategies need it."],
                guessed=pool.base_why if pool.base_guessed else "",
            )

    def to_json(self, output: Path) -> dict[str, Any]:
        """The same as JSON: files, the keys of each table, what was guessed."""
        at = output.absolute().parent
        return {
            "file": str(output),
            "folder": self.folder,
            "models": [str(checkpoint.path) for checkpoint in self.pool.models],
            "base": None if self.pool.base is None else str(self.pool.base.path),
            "left_out": {why: [str(path) for path in paths] for why, paths in self.pool.left_out.items()},
            "task": {entry.key: moved(entry, at) for entry in self.task}
            | ({"shifts": {entry.key: moved(entry, at) for entry in self.shifts}} if self.shifts else {}),
            "pool": {entry.key: entry.value for entry in self.pool_entries(at)},
            "run": {entry.key: entry.value for entry in self.run},
            "alternatives": {entry.key: dict(entry.others) for entry in (*self.task, *self.run) if entry.others},
            "guessed": {entry.key: entry.guessed for entry in self.guessed}
            | ({"models": self.pool.guessed} if self.pool.guessed else {})
            | ({"base": self.pool.base_why} if self.pool.base_guessed else {}),
            "scores": dict(self.scores),
            "notes": list(self.notes),
        }


def moved(entry: Entry, at: Path) -> Any:
    """The value of a line, its path relative to a folder."""
    value = entry.value
    if entry.key == "model" and isinstance(value, str) and value.startswith("transformers:"):
        return "transformers:" + _relative(value.partition(":")[2], at)
    if not entry.place:
        return value
    if isinstance(value, Mapping):
        return {**value, "path": _relative(value["path"], at)}
    return _relative(value, at) if isinstance(value, str) else value


def _patterns(paths: Sequence[Path], at: Path) -> list[str]:
    """The checkpoints as they are named in the file: by a pattern where one matches these and no others."""
    relative = [Path(_relative(str(path), at)) for path in paths]
    if at == Path.cwd():
        return as_patterns(relative)
    before = Path.cwd()
    os.chdir(at)
    try:
        return as_patterns(relative)
    finally:
        os.chdir(before)


def _relative(path: str, at: Path) -> str:
    """A path as seen from a folder; one that leads far up stays as it is."""
    absolute = os.path.abspath(os.path.expanduser(path))
    short = os.path.relpath(absolute, at)
    return absolute if short.startswith(os.path.join("..", "..")) else short


def _table(name: str, entries: Sequence[Entry], at: Path) -> str:
    """A table; lines with comments of their own stand apart."""
    text = f"[{name}]\n"
    for number, entry in enumerate(entries):
        text += ("\n" if number and entry.why else "") + _lines(entry, at)
    return text


def _lines(entry: Entry, at: Path) -> str:
    """A line of the file with its comments above it and the other lines that could stand there below."""
    text = "".join(_comment(line) for line in entry.why if line)
    value = moved(entry, at)
    mark = f"  # guessed: {_safe(entry.guessed)}; check" if entry.guessed else ""
    if len(mark) > WIDTH:
        text, mark = text + _comment(f"guessed: {entry.guessed}; check"), "  # guessed, see above; check"
    written = toml(value)
    if isinstance(value, list) and len(written) > WIDTH:
        written = "[\n" + "".join(f"    {toml(each)},\n" for each in value) + "]"
    text += f"{_key(entry.key)} = {written}{mark}\n"
    for other, why in entry.others.items():
        text += f"# {_safe(other)}" + (f"  # {_safe(why)}" if why else "") + "\n"
    return text


def _comment(text: str) -> str:
    """A comment of as many lines as it takes."""
    lines, line = list[str](), "#"
    for word in _safe(text).split(" "):
        if len(line) + 1 + len(word) > WIDTH and line != "#":
            lines.append(line)
            line = "#"
        line += f" {word}"
    return "\n".join([*lines, line]) + "\n"


def _safe(text: str) -> str:
    """A text that ends no comment: names of files may hold anything."""
    return showable(text).encode("utf-8", "backslashreplace").decode()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)


def toml(value: Any) -> str:
    """A value as TOML writes it on one line.

    >>> toml({"path": "a b.csv", "n": [1, 0.5], "on": True})
    '{ path = "a b.csv", n = [1, 0.5], on = true }'
    """
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def model_value(spec: str) -> str | dict[str, Any]:
    """A model as merge.toml has it: its name, or a table where it has arguments.

    >>> model_value("timm:vit_tiny_patch16_224(img_size=64)")
    {'timm': 'vit_tiny_patch16_224', 'img_size': 64}
    """
    name, arguments = divided(spec)
    source, _, rest = name.partition(":")
    return {source: rest, **arguments} if arguments else spec
