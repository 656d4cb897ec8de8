"""What a repository of the Hub holds, and which of its files a model is: known before anything large is fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from merging.errors import DAMAGED, CheckpointError, nearest, raised
from merging.storage.hub.spelling import PREFIX, HubId
from merging.storage.model_folder import (
    COMPANIONS,
    INDEX_SUFFIX,
    LOADED,
    SMALL,
    foreign_names,
    is_shard,
    names_weights,
)
from merging.storage.tensor_file import FORMATS
from merging.values.wording import some

CARD = "README.md"
"""Says the licence; it is fetched, and goes along with nothing."""
ADAPTER = "adapter_config.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Listing:
    """A repository at one commit.

    Attributes:
        asked: the id that was written.
        pinned: repository and commit.
        sizes: name of each file at the top → bytes; None where the Hub does not say.
    """

    asked: HubId
    pinned: HubId
    sizes: Mapping[str, int | None]

    def beside(self) -> list[str]:
        """The small files that belong to a model, as far as there are any, and the card."""
        return [name for name in (*COMPANIONS, CARD) if name in self.sizes and (self.sizes[name] or 0) <= SMALL]

    def weights(self, read: Callable[[str], Path]) -> list[str]:
        """The files of the model's tensors, those that libraries would load; of an adapter its files.

        Args:
            read: fetches a small file, the index of shards, and says where it lies.

        Raises:
            CheckpointError: there are none, several, or not all.
        """
        if self.asked.files:
            return [self._named()]
        whole = next((name for names in LOADED for name in names if name in self.sizes), None)
        if ADAPTER in self.sizes:
            if whole is not None:
                raise CheckpointError(
                    f"{self.asked}: an adapter ({ADAPTER}) lies beside {whole}, and libraries load both; put it into "
                    "its base (merge_and_unload of PEFT)"
                )
            adapter = next((name for name in ADAPTERS if name in self.sizes), None)
            if adapter is not None:
                return [ADAPTER, adapter]
        indices = sorted((n for n in self.sizes if n.endswith(INDEX_SUFFIX)), key=lambda n: ("safetensors" not in n, n))
        chosen = whole or next(iter(indices), None) or self._only()
        return [chosen, *self._shards(read(chosen))] if chosen.endswith(INDEX_SUFFIX) else [chosen]

    def _named(self) -> str:
        """The file that was asked for.

        Raises:
            CheckpointError: it is not there.
        """
        found = next((name for name in self.asked.files if name in self.sizes), None)
        if found is None:
            near = nearest(self.asked.files[0], self.sizes)
            there = f"; did you mean '{near}'?" if near else f" (it holds {some(sorted(self.sizes), 6)})"
            raise CheckpointError(f"{self.asked}: there is no such file{there}")
        return found

    def _only(self) -> str:
        """The one file of weights under a name that no library looks for.

        Raises:
            CheckpointError: there is none, or there are several.
        """
        files = sorted(filter(names_weights, self.sizes))
        safe = tuple(suffix for known in FORMATS if known.safe for suffix in known.suffixes)
        files = [name for name in files if name.endswith(safe)] or files
        if len(files) == 1 and not is_shard(files[0]):
            return files[0]
        if files and all(map(is_shard, files)):
            raise CheckpointError(f"{self.asked}: holds {some(files, 3)} and not their index (*{INDEX_SUFFIX})")
        if files:
            raise CheckpointError(
                f"{self.asked}: holds {len(files)} checkpoints ({some(files, 4)}) and no index; name one: "
                f"{PREFIX}{self.asked.repository}#{files[0]}"
            )
        kind = foreign_names(self.sizes)
        raise CheckpointError(
            f"{self.asked}: is {kind}" if kind else f"{self.asked}: holds no weights ({some(sorted(self.sizes), 6)})"
        )

    def _shards(self, index: Path) -> list[str]:
        """The files that an index names, all of which are there.

        Raises:
            CheckpointError: one is not, or the file is no index.
        """
        try:
            names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
        except DAMAGED as error:
            raise CheckpointError(
                f"{self.asked}: {index.name} is no index of shards ({raised(error, whole=True)})"
            ) from None
        lost = [name for name in names if name not in self.sizes]
        if lost or not names:
            raise CheckpointError(
                f"{self.asked}: {index.name} names {lost[0] if lost else 'no files'}, which is not there"
            )
        return names
