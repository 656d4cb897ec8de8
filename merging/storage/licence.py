"""The licence of a model, as the card beside it says, and what that means for a merge of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merging.errors import CheckpointError, showable
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import read_companion

CARD = "README.md"
_KEYS = ("license", "license_name", "license_link")
_LONGEST = 200


@dataclass(frozen=True)
class Licence:
    """A licence in the words of the Hub's cards.

    Attributes:
        license: its identifier there, such as ``apache-2.0``, or ``other``.
        name: name of a licence that has no identifier; else empty.
        link: address of its text; else empty.
    """

    license: str
    name: str = ""
    link: str = ""

    def __str__(self) -> str:
        return f"{self.license} ({self.name or self.link})" if self.name or self.link else self.license

    def to_json(self) -> dict[str, str]:
        """Gives it as a card has it."""
        found = dict(zip(_KEYS, (self.license, self.name, self.link), strict=True))
        return {key: value for key, value in found.items() if value}


def licence_of(checkpoint: Checkpoint) -> Licence | None:
    """The licence that the card in a model's folder names; None where there is none, or it says nothing."""
    if checkpoint.in_memory or not checkpoint.path.is_dir():
        return None
    card = checkpoint.path / CARD
    if not card.is_file():
        return None
    try:
        said = front_matter_of(read_companion(card).decode("utf-8", "replace"))
    except CheckpointError:
        return None
    except Exception:  # a stranger's card holds whatever YAML it likes
        return None
    first, *others = (_text(said.get(key)) for key in _KEYS)
    return Licence(first, *others) if first else None


def front_matter_of(text: str) -> dict[str, Any]:
    """Reads what a card says above its text; nothing where it has no such block, of which the library would warn.

    Raises:
        ValueError: it is no front matter; YAML's own errors too.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if REGEX_YAML_BLOCK.search(text) is None:
        return {}
    data: Any = ModelCard(text, ignore_metadata_errors=True).data
    said: dict[str, Any] = data.to_dict()
    return said


def _text(value: object) -> str:
    """A value of a card as one short line; of a list its entries."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))[:_LONGEST]
    return showable(value)[:_LONGEST] if isinstance(value, str) else ""


def agreed(found: Mapping[str, Licence | None]) -> Licence | None:
    """The licence that all models of a merge have; None where they differ, or one names none."""
    licences = set(found.values())
    return licences.pop() if len(licences) == 1 else None


def told(found: Mapping[str, Licence | None]) -> str:
    """Says which licences a merge has to obey, conflicts by name; empty where no model names one.

    Args:
        found: name of each model in the merge → its licence.
    """
    named = {name: each for name, each in found.items() if each is not None}
    if not named:
        return ""
    if (one := agreed(found)) is not None:
        return f"All models have the licence {one}, and so has the merge."
    by_licence: dict[str, list[str]] = {}
    for name, each in found.items():
        by_licence.setdefault("no licence is named" if each is None else str(each), []).append(name)
    listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in by_licence.items())
    if len(set(named.values())) > 1:
        return f"The models' licences differ, and a merge has to obey each of them: {listed}. None is stated above."
    return f"Not every model names a licence: {listed}. None is stated above."
