"""``transformers:FOLDER``: models of Hugging Face's transformers, from a local folder: image and text classifiers here.

The folder is what ``save_pretrained`` writes: ``config.json``, and for text the tokenizer's files, for images perhaps
``preprocessor_config.json`` (Wolf et al. 2020, https://arxiv.org/abs/1910.03771). Of an id of the Hub these files are
fetched; nothing else is downloaded, and no code from the folder is run. Needs the extra ``text``.
"""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from merging.errors import TaskError
from merging.models.extras import needed
from merging.models.hub import beside_weights
from merging.models.offline import check_kernels, offline, reason
from merging.models.processor import transform_of
from merging.models.source import ModelSource, reproducible
from merging.models.spelling import allowed
from merging.models.stored_names import StoredNames
from merging.models.tokenizers import in_vocabulary_of, tokenizer_in
from merging.models.transform import Transform
from merging.plugins.progress import Progress, Silent
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from merging.storage.pool import ModelPool

CONFIG = "config.json"
SEQUENCE, IMAGE = "ForSequenceClassification", "ForImageClassification"


def transformers_source(folder: str, arguments: Mapping[str, Any] | None = None) -> Transformers:
    """Finds the source of a folder, by its ``config.json``.

    Args:
        folder: a folder with ``config.json``, or an id of the Hub, of which the small files are fetched.
        arguments: values in place of the configuration's own, such as ``image_size``; for causal language models also
            ``context``.

    Returns:
        :class:`merging.models.causal.TransformersCausal`, :class:`TransformersText` or :class:`TransformersImage`.

    Raises:
        TaskError: transformers is not installed, no such folder, or neither a causal language model nor a classifier.
    """
    from merging.models.causal import TransformersCausal, causal_class

    library = _library(f"transformers:{folder}")
    path, folder = beside_weights(folder)
    if not (path / CONFIG).is_file():
        raise TaskError(f"transformers:{folder}: no {CONFIG} there; name a folder that save_pretrained has written")
    try:
        with offline():
            config = library.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            config = _overridden(config, arguments or {}, f"transformers:{folder}", TransformersCausal.more)
        check_kernels(config, str(path / CONFIG))
    except TaskError:
        raise
    except Exception as error:  # damaged files and unknown architectures raise whatever they provoke
        raise TaskError(f"{path / CONFIG}: {reason(error)}") from None
    said = " ".join(config.architectures or ())
    if causal_class(config, f"transformers:{folder}"):
        return TransformersCausal(folder, config, arguments)
    allowed(f"transformers:{folder}", arguments or {}, _entries(config))  # which a classifier has no more than
    if SEQUENCE in said or (IMAGE not in said and type(config) in library.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING):
        return TransformersText(folder, config, arguments)
    if IMAGE in said or type(config) in library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return TransformersImage(folder, config, arguments)
    raise TaskError(
        f"{path / CONFIG}: '{config.model_type}' classifies neither images nor texts, and is no causal language model; "
        "a model of your own goes in as python:module:function"
    )


class Transformers(ModelSource):
    """Builds the module of any kind, whose state dict has the names that stand in the checkpoints.

    Args:
        folder: a folder with ``config.json``.
        config: the configuration that was read from it.
        arguments: arguments that the configuration has already taken.
    """

    auto: str
    """Name of the class in transformers that makes the model."""

    def __init__(self, folder: str, config: Any, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"transformers:{folder}", arguments)
        self.folder, _ = beside_weights(folder)
        self.config = config

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names in the order of the outputs; None where the folder has only numbers (``LABEL_0``)."""
        names = [str(self.config.id2label[number]) for number in sorted(self.config.id2label)]
        return None if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else tuple(names)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds it; ``classes`` None: as many as the folder's configuration says."""
        config = copy.deepcopy(self.config)
        if classes is not None:
            config.num_labels = classes
        return self.wrapped(self.whole(config), tensors or {})

    def whole(self, config: Any) -> Any:
        """Builds transformers' own model of a configuration, with reproducible random weights.

        Raises:
            TaskError: it cannot be built.
        """
        make = getattr(_library(self.spec), self.auto).from_config
        try:
            with offline():
                return reproducible(functools.partial(make, config, trust_remote_code=False))
        except Exception as error:  # constructors raise whatever their configuration provokes
            raise TaskError(f"{self.spec} cannot be built: {reason(error)}") from error

    @abstractmethod
    def wrapped(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> nn.Module:
        """The model under the names of the checkpoints, with one tensor as input and logits as output."""


class TransformersImage(Transformers):
    """Classifies images, which are prepared as for every other source."""

    auto = "AutoModelForImageClassification"

    def wrapped(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> nn.Module:
        """Images ``(N, 3, H, W)`` float → logits ``(N, classes)``."""
        return ImageClassifier(model, tensors)

    @functools.cached_property
    def sides(self) -> tuple[int, int] | None:
        """Gives height and width in pixels: those of the configuration, else of the folder's image processor."""
        own = getattr(self.config, "image_size", None)
        if isinstance(own, int):
            return own, own
        if isinstance(own, list | tuple):
            return int(own[0]), int(own[-1])
        try:
            return self.transform().sides
        except TaskError:  # said where pictures are made
            return None

    def transform(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Transform:
        """Gives the transform of the folder's ``AutoImageProcessor``; where it has none, of the model's type.

        A model built for another ``image_size`` gets pictures of that size.
        """
        built = self.arguments.get("image_size")
        size = built if size is None and isinstance(built, int) else size
        return transform_of(_library(self.spec), self.spec, self.folder, self.config, size, mean, std)


_OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "roberta-prelayernorm", "xmod")
"""Their positions are counted from the padding's id + 1."""


class TransformersText(Transformers):
    """Classifies texts; a sample is a row of token ids, padded, and perhaps a row of segments."""

    auto = "AutoModelForSequenceClassification"

    def build(self, pool: ModelPool) -> nn.Module:
        """Builds it for a pool; of models that are seen in one vocabulary, with that one's rows.

        Raises:
            PoolError: the checkpoints have no such head, or their vocabulary gives this tokenizer's tokens other ids.
        """
        return super(TransformersText, in_vocabulary_of(pool, self)).build(pool)

    def wrapped(self, model: Any, tensors: Mapping[str, TensorInfo]) -> nn.Module:
        """Token ids ``(N, L)`` (or with segments, ``(N, 2, L)``) int64, padded → logits ``(N, classes)``."""
        pad = self.padding
        if model.config.pad_token_id is None:  # decoders ask for it to find a text's last token
            model.config.pad_token_id = pad
        return TextClassifier(model, tensors, pad)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """Loads the folder's tokenizer, once.

        Raises:
            TaskError: there is none, or it has no padding token.
        """
        found = tokenizer_in(self.folder, self.spec)
        if found.pad_token_id is None:
            raise TaskError(f"{self.spec}: its tokenizer has no padding token; set one and save it there again")
        return found

    @property
    def padding(self) -> int:
        """The id that fills short texts up; a model without tokenizer has it in its configuration."""
        known = self.config.pad_token_id
        return int(self.tokenizer.pad_token_id if known is None else known)

    @functools.cached_property
    def longest(self) -> int:
        """Counts the tokens that the model takes at most."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and self.config.model_type in _OFFSET:
            positions -= self.padding + 1
        return int(min(limit for limit in (self.tokenizer.model_max_length, positions) if limit))

    def tokenize(
        self, texts: Sequence[str], progress: Progress | None = None, *, second: Sequence[str] | None = None
    ) -> Tensor:
        """Turns texts, or pairs of texts, into token ids.

        Args:
            texts: the texts, or the first of each pair.
            progress: told how far this is.
            second: the second of each pair.

        Returns:
            int64, shape ``(N, L)``; ``L`` is the longest text's length, at most :attr:`longest`. Where the tokenizer
            tells segments apart (BERT's pairs), ``(N, 2, L)``: ids, and the segment of each.

        Raises:
            TaskError: the folder has no tokenizer, or it pads with another id than the model expects.
        """
        tokenizer, progress = self.tokenizer, progress or Silent()
        if tokenizer.pad_token_id != self.padding:
            raise TaskError(
                f"{self.spec}: the tokenizer pads with {tokenizer.pad_token_id}, the model with {self.padding}"
            )
        rows: dict[str, list[list[int]]] = {}
        for start in range(0, len(texts), 1000):
            part = slice(start, start + 1000)
            read = tokenizer(
                list(texts[part]),
                None if second is None else list(second[part]),
                truncation=True,
                max_length=self.longest,
                return_attention_mask=False,
            )
            for key, values in read.items():
                rows.setdefault(key, []).extend(values)
            progress.advance(len(texts[part]))
        padded = tokenizer.pad(rows, padding="longest", return_attention_mask=False, return_tensors="pt")
        ids: Tensor = padded["input_ids"].to(torch.int64)
        segments: Tensor | None = padded.get("token_type_ids")
        if segments is None or (second is None and not bool(segments.any())):
            return ids
        return torch.stack([ids, segments.to(torch.int64)], dim=1)

    def decode(self, ids: Tensor) -> str:
        """A row of token ids as text, without padding and marks."""
        return str(self.tokenizer.decode(ids[0] if ids.ndim == 2 else ids, skip_special_tokens=True))

    def example(self, batch: int = 2) -> Tensor:
        """A batch of random token ids, int64, shape ``(batch, 8)``."""
        ids = torch.randint(0, int(self.config.vocab_size), (batch, 8), generator=torch.Generator().manual_seed(0))
        return ids.masked_fill(ids == self.padding, int(self.padding == 0))  # no padding: every position counts


class ImageClassifier(StoredNames):
    """Turns images into logits under the names that the files give to tensors.

    Shapes:
        images ``(N, 3, H, W)`` float, already normalised; logits ``(N, classes)``.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of a batch of images."""
        logits: Tensor = self.whole(pixel_values=images).logits
        return logits


class TextClassifier(StoredNames):
    """Turns token ids into logits under the names that the files give to tensors.

    A sample must be one tensor for the evaluator, so the attention mask is not stored: it is where the ids are not
    the padding's. (A text that contains the padding token itself is therefore read without it.)

    Shapes:
        ids ``(N, L)``, or ids and segments ``(N, 2, L)``, int64; logits ``(N, classes)``.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, TensorInfo], padding: int) -> None:
        super().__init__(model, tensors)
        self.padding = padding

    def forward(self, ids: Tensor) -> Tensor:
        """Class logits of a batch of padded texts."""
        more = {}
        if ids.ndim == 3:
            ids, more["token_type_ids"] = ids.unbind(dim=1)
        logits: Tensor = self.whole(input_ids=ids, attention_mask=(ids != self.padding).to(torch.int64), **more).logits
        return logits


def _library(spec: str) -> Any:
    return needed("transformers", f"{spec} needs Hugging Face's transformers", "text")


def _overridden(config: Any, arguments: Mapping[str, Any], spec: str, more: tuple[str, ...]) -> Any:
    """A configuration with other values.

    Raises:
        TaskError: it has no such entry, or none with such a value.
    """
    entries = _entries(config)
    allowed(spec, arguments, (*entries, *more))
    own = {key: value for key, value in arguments.items() if key in entries}
    return type(config).from_dict({**config.to_dict(), **own}) if own else config


def _entries(config: Any) -> tuple[str, ...]:
    return tuple(key for key in config.to_dict() if not key.startswith("_"))
