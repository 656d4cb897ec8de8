"""Counts, lists and long texts in the words of a message: so many of a thing, the first of many, the beginning."""

from __future__ import annotations

from collections.abc import Sequence


def plural(count: int, noun: str, form: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "model"), plural(0, "model"), plural(12_000, "sample", ",")
    ('1 model', '0 models', '12,000 samples')

    Args:
        count: of the things.
        noun: for one of them; several have an s.
        form: of the number, as ``format`` takes it.
    """
    return f"{count:{form}} {noun}{'' if count == 1 else 's'}"


def some(names: Sequence[str], most: int, *, counted: bool = True) -> str:
    """The first names of many, and how many there are besides.

    >>> some(["a", "b", "c", "d"], 2), some(["a", "b"], 2), some(["a", "b", "c"], 2, counted=False)
    ('a, b and 2 more', 'a, b', 'a, b, …')

    Args:
        names: all of them.
        most: how many are named.
        counted: the rest is counted, and else a mark alone.
    """
    rest = len(names) - most
    more = "" if rest <= 0 else f" and {rest} more" if counted else ", …"
    return ", ".join(names[:most]) + more


def beginning(text: str, most: int) -> str:
    """A text, or where it has more than ``most`` characters its beginning and a mark.

    >>> beginning("abcdef", 6), beginning("abcdefg", 6)
    ('abcdef', 'abc…')
    """
    return text if len(text) <= most else text[: most - 3] + "…"
