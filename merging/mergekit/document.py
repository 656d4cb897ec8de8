"""YAML as its users write it, with the line of every entry; what YAML would pass over in silence is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from merging.errors import MergingError, near_path, nearest, refused, showable, unknown

Route: TypeAlias = tuple[str | int, ...]
"""Keys and places in lists that lead to an entry."""
LONGEST = 1 << 18
"""Bytes of a configuration, at most: a larger file is something else."""
MOST = 20_000
"""Entries of a configuration, at most, with those that an alias stands for counted each time."""


@dataclass(frozen=True)
class Document:
    """An entry of a file, and all below it.

    Attributes:
        file: the file, as it was named.
        value: what stands there: mappings, lists, texts, numbers, booleans, None.
        path: keys and places in lists that lead to it.
        lines: path → line in the file, from 1.
    """

    file: Path
    value: Any
    path: Route = ()
    lines: Mapping[Route, int] = field(default_factory=dict, repr=False)

    def __getitem__(self, key: str | int) -> Document:
        """The entry at a key of a mapping or a place in a list."""
        return Document(self.file, self.value[key], (*self.path, key), self.lines)

    def get(self, key: str) -> Document | None:
        """The entry at a key, or None where it is not there or empty, which YAML reads as null."""
        return self[key] if self.value.get(key) is not None else None

    def __iter__(self) -> Iterator[Document]:
        """The entries of a list."""
        return (self[place] for place in range(len(self.value)))

    @property
    def place(self) -> str:
        """The path in words.

        >>> Document(Path("a.yml"), 1, ("models", 1, "parameters", "weight")).place
        'models[1].parameters.weight'
        """
        words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return showable(words.removeprefix("."))

    @property
    def where(self) -> str:
        """File, line and path, as they begin a message."""
        line = next((self.lines[self.path[:n]] for n in range(len(self.path), 0, -1) if self.path[:n] in self.lines), 0)
        at = f"{self.file}, line {line}" if line else str(self.file)
        return f"{at}: {self.place}" if self.path else at

    def wrong(self, said: str) -> MergingError:
        """The error that says what is wrong with this entry."""
        return MergingError(f"{self.where} {said}")

    def mapping(self, what: str) -> Document:
        """This entry, which is a mapping.

        Raises:
            MergingError: it is something else.
        """
        if not isinstance(self.value, dict):
            raise self.wrong(f"is {kind(self.value)}, not {what}")
        return self

    def listed(self, what: str) -> Document:
        """This entry, which is a list that holds something.

        Raises:
            MergingError: it is something else.
        """
        if not isinstance(self.value, list) or not self.value:
            raise self.wrong(f"is {kind(self.value)}, not a list of {what}")
        return self

    def text(self, what: str) -> str:
        """The text that stands here.

        Raises:
            MergingError: something else does.
        """
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong(f"is {kind(self.value)}, not {what}")
        return self.value

    def check_keys(
        self, known: Iterable[str], refused: Mapping[str, str] | None = None, misplaced: Mapping[str, str] | None = None
    ) -> None:
        """Refuses keys that mean nothing here; mergekit passes over them in silence.

        Args:
            known: the keys that mean something.
            refused: keys that mean something to mergekit alone → why they are refused.
            misplaced: keys that mean something elsewhere → where they belong.

        Raises:
            MergingError: names the first, and the nearest right one.
        """
        known, refused = set(known), refused or {}
        for key in self.value:
            if key in refused:
                raise self[key].wrong(refused[key])
            if misplaced and key in misplaced and key not in known:
                raise self[key].wrong(f"{misplaced[key]}; mergekit passes over it in silence")
            if key not in known:
                near = [each for each in refused if each == nearest(key, refused)]
                raise unknown(f"key {self.inside(key)}:", key, known | set(near), error=MergingError)

    def inside(self, key: str) -> str:
        """The words for the place of a key, which is named apart: file, line, and what the key stands in."""
        line = self.lines.get((*self.path, key), 0)
        return f"in {self.file}" + (f", line {line}" if line else "") + (f", {self.place}" if self.path else "")


def kind(value: Any) -> str:
    """Says what a value is, in words."""
    if value is None or value in ("", [], {}):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"'{value if len(str(value)) < 120 else str(value)[:117] + '…'}'"


def read(path: Path) -> Document:
    """The document that a file holds.

    Raises:
        MergingError: it cannot be read or is no YAML, a key stands twice in a mapping, or an alias stands for what it
            is in, or for more than anybody means.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(LONGEST + 1)
    except OSError as error:
        raise MergingError(f"{path}: {refused(error)}{near_path(path)}") from None
    if len(content) > LONGEST:
        raise MergingError(f"{path}: is larger than {LONGEST >> 10} KiB, and no configuration of mergekit")
    try:
        loader = yaml.SafeLoader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            raise MergingError(f"{path}: is empty")
        lines: dict[Route, int] = {}
        _walk(path, node, (), [], lines)
        value = loader.construct_document(node)
    except yaml.composer.ComposerError as error:
        if error.context != "expected a single document in the stream":
            raise MergingError(f"{path}: no YAML: {showable(error.problem)}") from None
        raise MergingError(f"{path}: holds several documents (after '---'); write one configuration a file") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise MergingError(f"{path}{line}: no YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise MergingError(f"{path}: is nested deeper than anybody means") from None
    except (ValueError, yaml.YAMLError) as error:  # not UTF-8, characters that YAML does not allow, a 13th month
        said = " ".join(str(error).split())
        raise MergingError(f"{path}: no YAML: {said if len(said) < 160 else said[:157] + '…'}") from None
    return Document(path, value, (), lines)


def _walk(path: Path, node: yaml.Node, at: Route, above: list[yaml.Node], lines: dict[Route, int]) -> None:
    """Notes the line of each entry, and refuses keys that stand twice and aliases without an end."""
    here = f"{path}, line {node.start_mark.line + 1}"
    if node in above:
        raise MergingError(f"{here}: an alias stands for what it is in")
    if len(lines) > MOST:
        raise MergingError(f"{here}: with what its aliases stand for, the file has more than {MOST:,} entries")
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for place, below in enumerate(node.value):
            _walk(path, below, (*at, place), [*above, node], lines)
    elif isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, below in node.value:
            line = f"{path}, line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                raise MergingError(f"{line}: the key '{_scalar(key)}' is no text; put it in quotes")
            if key.value in seen and key.tag == _TEXT:
                raise MergingError(f"{line}: the key '{showable(key.value)}' stands twice in one mapping")
            seen.add(key.value)
            if key.tag == _MERGE:  # what it brings may be said again, and lies elsewhere
                for each in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                    _walk(path, each, at, [*above, node], lines)
            else:
                lines[(*at, key.value)] = key.start_mark.line + 1
                _walk(path, below, (*at, key.value), [*above, node], lines)


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def _scalar(node: yaml.Node) -> str:
    return showable(node.value) if isinstance(node, yaml.ScalarNode) else "…"
