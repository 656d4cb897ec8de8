"""The interface of data forms: how a set is written on disk, and what finds it there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from merging.plugins.options import Plugin

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader

KEYS: Mapping[str, Any] = MappingProxyType(
    {
        "path": str,
        "classes": Literal["own", "all"] | list[str],
        "map": dict[str, str | list[str]],
        "border": int,
        "corrupt": float,
        "upright": bool,
        "image": str,
        "label": str,
        "group": str,
        "text": str | list[str],
    }
)
"""Key that the table of a data set may hold → type of its value, as merge.toml has it."""
COMMON = ("classes", "map")
"""Keys that every set's table may have: which classes it has, and what they are called in the model."""
PICTURES = (*COMMON, "corrupt", "border", "upright")
"""Keys that the table of a set of image files may have."""


def is_parts(spec: object) -> bool:
    """Whether a table holds named sets, each a path or a table with one, rather than a set's own keys."""
    if not isinstance(spec, Mapping) or not spec or "path" in spec:
        return False
    return all(isinstance(each, str) or (isinstance(each, Mapping) and "path" in each) for each in spec.values()) and (
        not set(spec) & set(KEYS)
    )


@dataclass(frozen=True)
class DataForm(Plugin):
    """One way to write a set of samples, entered by ``@forms.register("name")``.

    Its options, if it has any, are keys of its own, which a user says in the set's table beside those of :data:`KEYS`.

    Attributes:
        written: what a user writes, such as ``file.npz:KEY``.
        suffixes: suffixes of the files that are of this form, in lower case; where they do not tell, override
            :meth:`reads`.
        keys: what a user may say of such a set besides its path and the form's own options, of :data:`KEYS`.
        texts: whether it is for models that take texts; None: for every model.
        language: whether, of those for models that take texts, it is for causal language models.
        rank: precedence among forms that read the same path: the highest one reads it; built-in ones have 0 to 5.
    """

    written: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    keys: ClassVar[tuple[str, ...]] = COMMON
    texts: ClassVar[bool | None] = False
    language: ClassVar[bool] = False
    rank: ClassVar[int] = 10

    def reads(self, path: str) -> bool:
        """Whether a path, as the user writes it, is of this form; the file may be missing."""
        return bool(self.suffixes) and Path(path).name.lower().endswith(self.suffixes)

    @abstractmethod
    def open(self, reader: Reader) -> Opened:
        """Finds the set and lists its labels, without decoding it.

        Args:
            reader: has the ``path``, what else the user said (``options``), the model's ``source``, and whether labels
                are wanted (``labelled``). ``reader.images(…)`` and ``reader.samples(…)`` make what is returned.

        Raises:
            TaskError: no such set, or another layout.
        """
