"""Texts, and pairs of texts, as token ids of a model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

from torch import Tensor

from merging.errors import TaskError
from merging.plugins.progress import Progress

COLUMN = "text"


class TextSource(Protocol):
    """A model's source that reads text, see :class:`merging.models.transformers.TransformersText`."""

    def tokenize(
        self, texts: Sequence[str], progress: Progress | None = None, *, second: Sequence[str] | None = None
    ) -> Tensor:
        """Texts, or pairs of texts, → padded token ids, int64; the first dimension counts them."""


def reads_language(source: object) -> bool:
    """Whether this is the source of a causal language model."""
    return bool(getattr(source, "reads_language", False))


def takes_texts(source: object) -> TypeGuard[TextSource]:
    """Whether this is the source of a text model."""
    return hasattr(source, "tokenize")


def text_columns(where: str, wanted: Any) -> tuple[str, ...]:
    """The names of one column of texts, or of two, of pairs of texts; none where the user names none.

    Raises:
        TaskError: three, or something else than names.
    """
    names = [wanted] if isinstance(wanted, str) else wanted or []
    plain = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not plain or len(names) > 2 or len(set(names)) < len(names):
        raise TaskError(f"{where}: text is {wanted!r}; name one column, or two for pairs of texts")
    return tuple(names)


def tokenized(where: str, columns: Sequence[Sequence[str]], source: TextSource, progress: Progress) -> Tensor:
    """Token ids of texts (one column) or pairs (two)."""
    first, second = columns[0], columns[1] if len(columns) == 2 else None
    progress.stage(f"tokenizing {where}", len(first))
    return source.tokenize(first, progress, second=second)
