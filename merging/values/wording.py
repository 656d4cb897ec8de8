"""Counts, lists, kinds and long texts in the words of a message: so many of a thing, the first of many, what it is."""

from __future__ import annotations

from collections.abc import Sequence


def plural(count: int, noun: str, form: str = "") -> str:
    """Writes a count with its noun.

    >>> plural(1, "model"), plural(0, "model"), plural(12_000, "sample", ",")
    ('1 model', '0 models', '12,000 samples')

    Args:
        count: number of the things.
        noun: word for one of them; several have an s.
        form: form of the number, as ``format`` takes it.
    """
    return f"{count:{form}} {noun}{'' if count == 1 else 's'}"


def some(names: Sequence[str], most: int, *, counted: bool = True) -> str:
    """Lists the first names of many, and how many there are besides.

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


def article(word: str) -> str:
    """Puts the indefinite article before a word."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


def kind_of(value: object) -> str:
    """Describes a value for a message: its type, and its shape or length where it has one; never what it holds.

    >>> kind_of(None), kind_of(0.5), kind_of([1, 2]), kind_of(dict)
    ('None', 'a float', 'a list of length 2', 'the class dict')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", "")).removeprefix("torch.")
    if dtype and isinstance(shape, tuple):
        return f"{article(kind)} of shape {list(shape)} and dtype {dtype}"
    try:
        return f"{article(kind)} of length {len(value)}"  # type: ignore[arg-type]  # most values have none
    except Exception:  # whose value it is says what its length raises
        return article(kind)


def shown(value: object) -> str:
    """A value for a message: a word or a number as it is written, anything else by its kind.

    >>> shown("fp64"), shown(3), shown([1, 2])
    ("'fp64'", '3', 'a list of length 2')
    """
    if isinstance(value, str):
        return repr(beginning(value, 60))
    if isinstance(value, bool | int | float) and len(str(value)) < 20:
        return str(value)
    return kind_of(value)
