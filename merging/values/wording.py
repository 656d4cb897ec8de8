"""Counts, lists, kinds and long texts in the words of a message: the first of many, what is alike, what it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


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


def alike(lines: Iterable[str], names: Iterable[str]) -> list[str]:
    """Says once what is said of many: of lines that differ in a name alone, the first with the other names.

    >>> alike(["a.pt is old", "only 9 samples", "b.pt is old"], ["a.pt", "b.pt"])
    ['a.pt is old (b.pt too)', 'only 9 samples']

    Args:
        lines: sentences, in order.
        names: what may differ in them: names of models, paths, labels of methods.
    """
    known = sorted({name for name in names if name}, key=len, reverse=True)
    name = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, known))})(?![\w-])") if known else None
    groups: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for line in lines:
        found = list(dict.fromkeys(name.findall(line))) if name else []
        one = len(found) == 1 and name is not None
        groups.setdefault(tuple(name.split(line)) if one and name else (line, ""), []).append((line, found))
    shown = []
    for said in groups.values():
        others = list(dict.fromkeys(each for _, found in said[1:] for each in found if [each] != said[0][1]))
        shown.append(said[0][0] + (f" ({some(others, 3)} too)" if others else ""))
    return shown


def of_each(said: Mapping[str, Sequence[str]], noun: str) -> list[str]:
    """Says of whom something is said: a line for each group of names of which the same is.

    >>> of_each({"a": ["found under 'key'", "prefix gone"], "b": ["found under 'key'", "prefix gone"]}, "file")
    ["both files: found under 'key'; prefix gone"]

    Args:
        said: name → what is said of it; those of whom nothing is are left out.
        noun: word for one of them.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, lines in said.items():
        if lines:
            groups.setdefault(tuple(lines), []).append(name)
    every = f"both {noun}s" if len(said) == 2 else f"all {plural(len(said), noun)}"
    return [
        f"{every if 1 < len(names) == len(said) else some(names, 3)}: {'; '.join(lines)}"
        for lines, names in groups.items()
    ]


def spent(seconds: float) -> str:
    """Writes seconds as tables show them: what took some time is never 0.0.

    >>> spent(2.34), spent(0.02), spent(0.0), spent(4321.0)
    ('2.3', '<0.1', '0.0', '4,321.0')
    """
    return "<0.1" if 0 < seconds < 0.05 else f"{seconds:,.1f}"


def lasted(seconds: float) -> str:
    """Says how long all of it took, in whole seconds; where all scores are known it is less than one.

    >>> lasted(207.6), lasted(0.6), lasted(0.3)
    ('208 s', '1 s', 'less than 1 s')
    """
    return f"{seconds:.0f} s" if seconds >= 0.5 else "less than 1 s"


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
