"""Which kind of texts a table holds, by its columns, and its rows as that kind reads them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from merging.data.columns import present, texts_in
from merging.data.reading import (
    LETTERS,
    Completions,
    Conversations,
    Documents,
    Question,
    Questions,
    Reading,
    Wanted,
    listed,
)
from merging.errors import TaskError
from merging.values.wording import some

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "documents": ("text",),
    "completions": ("prompt", "completion"),
    "conversations": ("messages",),
    "questions": ("question", "choices", "answer"),
}
"""Kind of texts → what its columns hold."""
READINGS: Mapping[str, type[Reading]] = {
    "documents": Documents,
    "completions": Completions,
    "conversations": Conversations,
    "questions": Questions,
}


def kind_of(where: str, names: Mapping[str, str], there: Sequence[str], named: Sequence[str] = ()) -> str:
    """Says what a table holds.

    Args:
        where: the table, for messages.
        names: what a column holds → its name; of choices perhaps several names, with commas.
        there: the table's columns.
        named: what the user has named a column of.

    Raises:
        TaskError: nothing, or several things; a column that the user names is not there.
    """
    columns = {key: tuple(part.strip() for part in name.split(",")) for key, name in names.items()}
    for key in named:
        for name in columns[key]:
            present(where, name, there)
    fits = [kind for kind, parts in COLUMNS.items() if all(set(columns[part]) <= set(there) for part in parts)]
    told = [kind for kind in fits if set(named) & set(COLUMNS[kind])]
    if len(found := told or fits) == 1:
        return found[0]
    if found:
        both = " and ".join(found)
        raise TaskError(
            f"{where} has columns of {both}; keep those of one, or name one in the set's table, such as "
            f"{COLUMNS[found[0]][0]} = '{columns[COLUMNS[found[0]][0]][0]}'"
        )
    for kind, parts in COLUMNS.items():
        missing = [part for part in parts if not set(columns[part]) <= set(there)]
        if len(missing) < len(parts):
            raise TaskError(
                f"{where} has a column '{names[next(iter(set(parts) - set(missing)))]}' and none called "
                f"'{names[missing[0]]}', which {kind} need; its columns are {some(list(there), 8)}"
            )
    raise TaskError(
        f"{where}: a language model takes columns 'text', 'prompt' and 'completion', 'messages', or 'question', "
        f"'choices' and 'answer'; it has {some(list(there), 8)} (text = 'NAME' in the set's table says which)"
    )


def lettered(there: Sequence[str]) -> str | None:
    """The columns of choices, where these are called A, B and so on: their names, with commas.

    >>> lettered(["question", "A", "B", "C", "answer"])
    'A,B,C'
    """
    found = list(itertools.takewhile(lambda letter: letter in there, LETTERS))
    return ",".join(found) if len(found) > 1 else None


def taken(kind: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wanted: Wanted) -> list[Any]:
    """A table's rows as its kind reads them.

    Raises:
        TaskError: a row without a value, or with one of another type.
    """
    return _TAKEN[kind](rows, names, wanted)


def _column(rows: Sequence[Mapping[str, Any]], name: str, wanted: Wanted) -> list[str]:
    return texts_in(wanted.where, name, [row.get(name) for row in rows], first=wanted.first)


def _documents(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wanted: Wanted) -> list[Any]:
    return _column(rows, names["text"], wanted)


def _completions(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wanted: Wanted) -> list[Any]:
    prompts, completions = (_column(rows, names[part], wanted) for part in ("prompt", "completion"))
    if "" in completions:
        raise TaskError(f"{wanted.row(completions.index(''))} has an empty '{names['completion']}': nothing to score")
    return list(zip(prompts, completions, strict=True))


def _conversations(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wanted: Wanted) -> list[Any]:
    return [listed_messages(row.get(names["messages"]), wanted.row(place)) for place, row in enumerate(rows)]


def _questions(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wanted: Wanted) -> list[Any]:
    asked, found = _column(rows, names["question"], wanted), []
    columns = [name.strip() for name in names["choices"].split(",")]
    for place, (question, row) in enumerate(zip(asked, rows, strict=True)):
        if row.get(names["answer"]) in (None, ""):
            raise TaskError(f"{wanted.row(place)} has no '{names['answer']}'")
        value: Any = row.get(columns[0])
        if len(columns) > 1:  # a cell without a text is a choice that this question does not have
            there = [name for name in columns if row.get(name) not in (None, "")]
            value = {"text": [row[name] for name in there], "label": there}
        choices, own = listed(value, wanted.row(place))
        found.append(Question(question, choices, row[names["answer"]], own))
    return found


def listed_messages(value: Any, row: str) -> Any:
    """A conversation as data write it: a list, or its JSON.

    Raises:
        TaskError: a text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise TaskError(f"{row}: its messages are no JSON list of {{role, content}}") from None


_TAKEN: Mapping[str, Callable[[Sequence[Mapping[str, Any]], Mapping[str, str], Wanted], list[Any]]] = {
    "documents": _documents,
    "completions": _completions,
    "conversations": _conversations,
    "questions": _questions,
}
