"""What lm-eval is asked to do, as one value: its tasks, and the settings that its command line has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import OptionError
from merging.plugins.keywords import check_kinds
from merging.values.wording import shown


def _setting(default: Any, help: str, kinds: Any = None, words: str = "") -> Any:
    return field(default=default, metadata={"help": help} | ({"takes": (kinds, words)} if kinds else {}))


_FLAG = (bool, "True or False")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The settings with which tasks of lm-eval are run.

    Attributes:
        tasks: names of tasks, groups and tags, patterns of those, and task files.
        include_path: folders of task files, which go before lm-eval's own.
        few_shot: worked examples before each sample; None: as many as the task says.
        limit: so many samples of each task; None: all.
        batch_size: samples that go through the model at once.
        device: name of the device, as for every pass.
        chat_template: put prompts into the model's chat template.
        online: what is not on this disk may be fetched.
        trust_code: task files may run code.

    Raises:
        OptionError: a value of another type, or out of its range.
    """

    tasks: Sequence[str] = _setting((), "Names of tasks, groups and tags, patterns of those, and task files.")
    include_path: Sequence[Path | str] = _setting((), "Folders of task files, which go before lm-eval's own.")
    few_shot: int | None = _setting(
        None, "Examples before each sample; default: the task's.", (int, type(None)), "a number, or None"
    )
    limit: int | None = _setting(None, "Only so many samples of each task.", (int, type(None)), "a number, or None")
    batch_size: int = _setting(8, "Samples that go through the model at once.", int, "a number")
    device: str = _setting("auto", "Device of passes: auto, cpu, cuda or mps.", str, "the name of a device")
    chat_template: bool = _setting(False, "Put prompts into the model's chat template.", *_FLAG)
    online: bool = _setting(False, "Fetch what is not on this disk.", *_FLAG)
    trust_code: bool = _setting(False, "Let task files run code.", *_FLAG)

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, kinds in (("tasks", (str, Path)), ("include_path", (str, Path))):
            object.__setattr__(self, name, _listed(name, getattr(self, name), kinds))
        for name, least in (("few_shot", 0), ("limit", 1), ("batch_size", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"`{name}` is {value}; it is {least} or more")

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of task files."""
        return tuple(Path(each).expanduser() for each in self.include_path)


def _listed(name: str, value: Any, kinds: tuple[type, ...]) -> tuple[str, ...]:
    """The texts in a value: one, or several.

    Raises:
        OptionError: it holds something else.
    """
    given = [value] if isinstance(value, kinds) else list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(each, kinds) and str(each) for each in given):
        raise OptionError(f"`{name}` is {shown(value)}; it is a name or path, or several")
    return tuple(map(str, given))
