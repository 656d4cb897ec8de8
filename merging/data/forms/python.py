"""What a function of the user's own returns: ``python:module:function``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import DataForm
from merging.errors import TaskError, raised
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader


@forms.register("python")
@dataclass(frozen=True)
class FromPython(DataForm):
    """A function of your own that returns a :class:`merging.Split`, or inputs and labels, as tensors or arrays.

    Pictures (uint8, ``(N, H, W, 3)``) are brought to the model's size as arrays of other forms are.
    """

    summary: ClassVar[str] = "what a function of your own returns, for every model"
    formula: ClassVar[str] = "function() → Split, or (inputs, labels)"
    limits: ClassVar[str] = "It is run whenever the set is opened, and nothing of it is kept on disk."
    paper: ClassVar[str] = "docs/data.md"
    written: ClassVar[str] = "python:module:function"
    texts: ClassVar[bool | None] = None
    rank: ClassVar[int] = 5

    def reads(self, path: str) -> bool:
        """Whether a path begins with ``python:``."""
        return path.startswith("python:")

    def open(self, reader: Reader) -> Opened:
        """Calls the function, and takes what it returns for the set.

        Raises:
            TaskError: it fails, or returns something else than a split or tensors.
        """
        from merging.data.reader import as_split
        from merging.plugins.user_code import import_object, kind_of, running

        function = import_object(reader.path)
        with running(f"'{reader.path}'", function, error=TaskError):
            found = function()
        try:
            split = as_split(found, labelled=reader.labelled)
        except TaskError:
            raise
        except Exception as error:  # the user's function may return anything
            what = f"return a Split or (inputs, labels), not {kind_of(found)}"
            raise TaskError(f"'{reader.path}' gives no data; {what} ({raised(error, whole=True)})") from error
        return reader.samples(split)

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        del folder
        return "python:merging.data.examples:given"
