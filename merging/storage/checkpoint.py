"""One state dict: on disk, opened lazily, in one file or in shards, whatever their format; or in memory.

Wrappers (``{"state_dict": …}``) and prefixes (``module.``, ``_orig_mod.``) are undone and said.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import CheckpointError, near_path, refused, showable
from merging.storage.adapted import AdaptedTensors
from merging.storage.adapter_base import check_recorded, recorded_base
from merging.storage.adapter_folder import adapter_folder, read_config
from merging.storage.aligned import AlignedTensors
from merging.storage.class_names import Names
from merging.storage.companions import companions
from merging.storage.content import ContentHash, content_hash
from merging.storage.dtypes import itemsize
from merging.storage.file_hashes import REFUTED, Digest, Stamp, digest_of
from merging.storage.file_kind import SUFFIXES, format_of
from merging.storage.hub.fetching import folder_of, id_of
from merging.storage.hub.spelling import PREFIX, written
from merging.storage.in_memory import TensorsInMemory
from merging.storage.model_folder import INDEX_SUFFIX, files_of
from merging.storage.raw import Raw, has_only_finite
from merging.storage.tensor_file import TensorFile
from merging.storage.widened import WidenedTensors
from merging.storage.wrapped_names import unwrapped
from merging.values.partition import TensorInfo
from merging.values.shown import Sheet, Shown
from merging.values.wording import kind_of, plural

if TYPE_CHECKING:
    from torch import Tensor

    from merging.storage.alignment import Alignment
    from merging.storage.in_memory import InMemory


class Checkpoint(Shown):
    """A state dict on disk, opened lazily, in one file or in shards; :meth:`of` makes one of what is in memory.

    Its files are opened in their formats (:class:`merging.storage.tensor_file.TensorFile`); here their tensors get
    the model's own names.

    Args:
        path: a ``.safetensors`` file or one written by ``torch.save``; the index of a sharded one
            (``*.index.json``); or a folder with one of these, as Hugging Face's libraries save it; or an id of the
            Hub that begins with ``hf-hub:``.
        name: its name in recipes and reports; default: the file's name without its suffix, the folder's, or that of the
            model of the Hub.
        key: key of the state dict in a file of ``torch.save`` that holds several, such as ``state_dict_ema``.
        base: the model that an adapter stands on; default: where the adapter says that it lies. Other checkpoints
            have none.

    Attributes:
        hub: repository and commit (``hf-hub:org/name@commit``) where it was named by its id; else empty.
        path: the file or folder; of what is in memory ``<memory>`` and its name, for messages.
        adapted: the adapter that the path is, with its base; None of a whole model.
        aligned: the vocabulary that it is seen through, with the model; None of a model as it is.
        widened: the model as it is stored, where it is seen in wider dtypes; None of one that is not.
        files: the files that hold the tensors; none of what is in memory.
        tensors: name → (shape, dtype name), names without wrappers and prefixes, in the file's order.
        ties: groups of names that share one storage (only ``.pt`` files can say so).
        notes: what was unwrapped or ignored.
        settings: settings of the model that stand in its file: dotted name → value.
        trained: hyper-parameters of its training that stand in its file, under short names.
        classes: classes that stand beside the tensors in a file of ``torch.save``: where → index → name.

    Raises:
        CheckpointError: the file cannot be read, holds no tensors, or several sets of them, or is a pickle that wants
            to run code.
    """

    adapted: AdaptedTensors | None = None
    aligned: AlignedTensors | None = None
    widened: WidenedTensors | None = None

    def __init__(self, path: Path | str, name: str = "", key: str = "", base: Checkpoint | None = None) -> None:
        self.path = (folder_of(str(path)) if str(path).startswith(PREFIX) else None) or Path(path)
        self.path = self.path.parent if self.path.name.endswith(INDEX_SUFFIX) else self.path
        self.key = key
        of_hub = id_of(self.path)
        self.hub = "" if of_hub is None else str(of_hub)
        own = of_hub.repository.rpartition("/")[2] if of_hub is not None else Path(os.path.abspath(self.path)).name
        called = name or (own if self.path.is_dir() or of_hub is not None else stem(self.path))
        self.name = showable(called)
        if not self.path.exists():
            raise CheckpointError(f"no such checkpoint: {self.path}{near_path(self.path)}{written(str(path))}")
        adapter = adapter_folder(self.path)
        if adapter is not None:
            self._adapt(adapter, base)
            return
        self.files, expected = files_of(self.path)
        self._take(map(self._open, self.files))
        lost = [key for key in expected if key not in self._holders]
        if lost:
            raise CheckpointError(f"{self.path}: the index names tensor '{lost[0]}', which no shard holds")

    def _adapt(self, folder: Path, base: Checkpoint | None) -> None:
        """Opens the adapter that the path is, over its base."""
        files_of(folder)  # which refuses an adapter beside a whole model
        if self.key:
            raise CheckpointError(f"{self.path}: is an adapter, which has no '{self.key}'; leave the key out")
        config = read_config(folder)
        if base is None:
            base = Checkpoint(recorded_base(config))
        else:
            check_recorded(config, base)
        self.path, self.adapted = folder, AdaptedTensors(config, base)
        self.files = self.adapted.files
        self._take((self.adapted,))

    @classmethod
    def of(cls, model: InMemory, name: str = "model_0") -> Checkpoint:
        """Takes a state dict or a module that is in memory, as it is now.

        Its tensors are copied to the CPU, so that training which goes on changes nothing here; a model takes the memory
        of its tensors once more. Content hash and names are those that a file of the same tensors has.

        Args:
            model: a module, or a state dict: name → tensor.
            name: its name in recipes and reports.

        Raises:
            CheckpointError: it is something else, such as an optimizer's state dict.
        """
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"the name of a checkpoint is {kind_of(name)}; it is a text")
        made = cls.__new__(cls)
        made.name, made.key, made.files, made.hub = showable(name), "", (), ""
        held = TensorsInMemory(model, made.name)
        made.path = held.path
        made._take((held,))
        return made

    def seen_through(self, alignment: Alignment) -> Checkpoint:
        """Gives the same model with the rows of another vocabulary.

        Args:
            alignment: the vocabulary, of models among which this one is.
        """
        made = self._again()
        made.aligned = AlignedTensors(self, alignment)
        made._take((made.aligned,))
        return made

    def seen_in(self, dtypes: Mapping[str, str]) -> Checkpoint:
        """Gives the same model with some tensors in dtypes that hold all of their numbers; its hash stays the file's.

        Args:
            dtypes: name of a tensor → dtype; those that have it already stay as they are.
        """
        if all(self.tensors[name][1] == dtype for name, dtype in dtypes.items()):
            return self
        made = self._again()
        made.widened = WidenedTensors(self, dtypes)
        made._take((made.widened,))
        return made

    def _again(self) -> Checkpoint:
        """The same model, before its tensors are taken."""
        made = Checkpoint.__new__(Checkpoint)
        made.name, made.key, made.path, made.hub, made.files = self.name, self.key, self.path, self.hub, self.files
        if self.adapted is not None:
            made.adapted = self.adapted
        return made

    @property
    def as_stored(self) -> Checkpoint:
        """The model in the dtypes of its file, where it is seen in wider ones."""
        return self if self.widened is None else self.widened.model

    @property
    def stored(self) -> Mapping[str, TensorInfo]:
        """Name → (shape, dtype name) in its files, through whatever it is seen."""
        if self.widened is not None:
            return self.widened.model.stored
        return self.tensors if self.aligned is None else self.aligned.model.stored

    @property
    def in_memory(self) -> bool:
        """Whether it lies in no file."""
        return not self.files

    def _take(self, opened: Iterable[TensorFile]) -> None:
        """Takes what its files hold, and names it."""
        self.notes: tuple[str, ...] = ()
        self.settings: dict[str, Any] = {}
        self.trained: dict[str, str | float | int | bool] = {}
        self.classes: dict[str, Names] = {}
        self._opened: list[TensorFile] = []
        self._holders: dict[str, TensorFile] = {}  # key → the file that holds it
        for file in opened:
            self._add(file)
        self._stored = self._named()
        self.tensors: dict[str, TensorInfo] = {n: self._holders[key].tensors[key] for n, key in self._stored.items()}
        canonical = {key: name for name, key in self._stored.items()}
        ties = [group for held in self._opened for group in held.ties]
        self.ties = tuple(tuple(canonical[key] for key in group if key in canonical) for group in ties)

    def _open(self, file: Path) -> TensorFile:
        """Opens a file in its format, whatever its name says it is."""
        kind = format_of(file)
        if self.key and not kind.keyed:
            raise CheckpointError(f"{file}: is a {kind.format} file, which has no '{self.key}'; leave the key out")
        opened = kind(file, self.key)
        if file.suffix in SUFFIXES and file.suffix not in kind.suffixes:
            opened.notes += (f"{file.name} is a file of {kind.format} in spite of its name",)
        return opened

    def _add(self, opened: TensorFile) -> None:
        """Takes what a file holds and says."""
        twice = next((key for key in opened.tensors if key in self._holders), None)
        if twice is not None:
            raise CheckpointError(f"{self.path}: tensor '{twice}' stands in {opened.path.name} and in another shard")
        self._opened.append(opened)
        self.notes += opened.notes
        self._holders |= dict.fromkeys(opened.tensors, opened)
        self.settings |= opened.settings
        self.trained |= opened.trained
        self.classes |= opened.classes

    def _named(self) -> dict[str, str]:
        """Finds the model's own name of each key, without what wrappers of a module add."""
        lightning = any(opened.lightning for opened in self._opened)
        names, notes = unwrapped(self._holders, str(self.path), lightning=lightning)
        self.notes += notes
        for name, key in names.items():
            if 0 in self._holders[key].tensors[key][0]:
                raise CheckpointError(
                    f"{self.path}: tensor '{name}' has no elements: one rank's part of a sharded model; put the parts "
                    "together first (zero_to_fp32.py of DeepSpeed, torch.distributed.checkpoint.format_utils of FSDP)"
                )
        torn = next((name for name in names if not name.isascii() and not _is_text(name)), None)
        if torn is not None:
            raise CheckpointError(f"{self.path}: the name of tensor '{torn}' is no text; rename it and save again")
        return names

    def read(self, name: str) -> Tensor:
        """Reads one tensor to the CPU.

        Raises:
            CheckpointError: the file has changed, or its bytes for it cannot be read.
        """
        key = self._stored[name]
        try:
            return self._holders[key].read(key)
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: tensor '{name}' cannot be read ({error})") from None

    def read_bytes(self, name: str, offset: int, into: memoryview) -> None:
        """Copies some of a tensor's bytes; several threads may do so at once.

        Args:
            name: name of the tensor.
            offset: bytes from the tensor's beginning.
            into: the buffer that is filled.

        Raises:
            CheckpointError: the file has changed or cannot be read.
        """
        key = self._stored[name]
        file = self._holders[key]
        try:
            file.read_bytes(key, offset, into)
        except CheckpointError:
            raise
        except EOFError:
            raise CheckpointError(
                f"{file.path}: ends within tensor '{name}'; it has changed since it was opened"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{file.path}: tensor '{name}' cannot be read ({refused(error)})") from None

    def read_hashed(self, name: str, start: int, into: Raw, digest: ContentHash) -> None:
        """Reads some of a tensor's elements, and has them hashed as they are stored.

        Args:
            name: name of the tensor.
            start: number of the first element.
            into: the bytes that are filled.
            digest: takes what lies in the files.

        Raises:
            CheckpointError: the file has changed or cannot be read.
        """
        if self.widened is None:
            self.read_bytes(name, start * itemsize(self.tensors[name][1]), into.data)
            digest.add(name, self.tensors[name], into, start)
            return
        for first, stored in self.widened.blocks(name, start, into):
            digest.add(name, self.widened.model.tensors[name], stored, first)

    def check_unchanged(self) -> None:
        """Raises CheckpointError where a file was replaced or written to since it was opened."""
        for opened in self._opened:
            opened.check_unchanged()

    @functools.cached_property
    def extras(self) -> tuple[Path, ...]:
        """Small files that belong to the model, such as configuration and tokenizer (see :func:`companions`)."""
        return () if self.home.in_memory else companions(self.home.path).files

    @property
    def home(self) -> Checkpoint:
        """The checkpoint beside which its configuration, tokenizer and classes lie: of an adapter its base."""
        return self if self.adapted is None else self.adapted.base.home

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about its files from before they were opened; none where it is in memory."""
        return tuple(stamp for opened in self._opened for stamp in opened.stamps)

    def _sheet(self) -> Sheet:
        numbers = sum(math.prod(shape) for shape, _ in self.tensors.values())
        facts = (self.name, plural(len(self.tensors), "tensor", ","), plural(numbers, "parameter", ","))
        dtypes = "/".join(sorted({dtype for _, dtype in self.tensors.values()}))
        kind = () if self.adapted is None else (self.adapted.label,)
        return Sheet(name="Checkpoint", facts=(*facts, dtypes, *kind, f"file {self.path}"), notes=tuple(self.notes))

    def load(self) -> dict[str, Tensor]:
        """Reads the whole state dict, in the file's order."""
        return {name: self.read(name) for name in self.tensors}

    @functools.cached_property
    def hash(self) -> str:
        """Content hash (see :func:`content_hash`); the file is read once for it, unless it is remembered.

        Raises:
            CheckpointError: a floating-point tensor with NaN or infinite values (found on the same read).
        """
        return self._digest.hash

    @functools.cached_property
    def _digest(self) -> Digest:
        if self.widened is not None:
            return self.widened.model._digest
        seen = [] if self.aligned is None else [self.aligned.alignment.digest]
        found = digest_of(self.stamps, [self.key, *seen], lambda: content_hash(_Finite(self)))
        if found.refuted is not None:
            self.notes += (f"{self.path.name} {REFUTED}",)
        return found

    def refute(self, wrong: str) -> bool:
        """Takes the news that its bytes do not have that hash; whether that was remembered of it, and no longer is."""
        taken: Digest | None = vars(self).get("_digest")
        if taken is None or taken.key is None or taken.hash != wrong:
            return False
        taken.forget()
        return True


class _Finite(Mapping[str, "Tensor"]):
    """A checkpoint's tensors, read on access and refused where they hold NaN or infinite values."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._checkpoint.read(name)
        if not has_only_finite(tensor):
            raise not_finite(self._checkpoint, name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint.tensors)

    def __len__(self) -> int:
        return len(self._checkpoint.tensors)


def not_finite(checkpoint: Checkpoint, name: str) -> CheckpointError:
    """The error for a tensor of a checkpoint that holds NaN or infinite values."""
    where = f"{checkpoint.path}: tensor '{name}'"
    return CheckpointError(f"{where} holds NaN or infinite values; leave this checkpoint out")


def stem(path: Path) -> str:
    """A file's name without the suffix of a checkpoint, ``.pth.tar`` being one."""
    name = path.name.removesuffix(".tar") if path.name.endswith((".pt.tar", ".pth.tar")) else path.name
    return Path(name).stem if Path(name).suffix in (*SUFFIXES, path.suffix) else name


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: pickles may hold halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
