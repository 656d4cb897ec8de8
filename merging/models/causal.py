"""Causal language models of transformers, as what scores texts: ``transformers:FOLDER`` with ``…ForCausalLM`` inside.

The folder is what ``save_pretrained`` writes for the model and for its tokenizer. The pool's checkpoints have the
tensors' names as their files have them, with or without a tied head.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from merging.errors import TaskError
from merging.models.causal_scorer import CausalScorer
from merging.models.stored_names import tied
from merging.models.tokenizers import in_vocabulary_of, text_config, tokenizer_in
from merging.models.transformers import CONFIG, Transformers
from merging.plugins.sequences import HEADER
from merging.values.partition import TensorInfo

if TYPE_CHECKING:
    from merging.storage.pool import ModelPool

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_BOTH = ("ForConditionalGeneration", "ForSeq2SeqLM")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_LARGE = 2**24
"""Tokenizers without a limit say a number of thirty digits."""


def causal_class(config: Any, spec: str) -> bool:
    """Whether a configuration says that its model is a causal language model.

    Raises:
        TaskError: it says that of a model with an encoder, of one whose tokens see those that follow, or of weights
            that are quantised.
    """
    said = " ".join(config.architectures or ())
    if config.is_encoder_decoder and any(word in said for word in (*_BOTH, *_CAUSAL)):
        raise TaskError(
            f"{spec}: {said} reads with an encoder and writes with a decoder; language models that are scored here are "
            "causal (…ForCausalLM). Merges without data need no model; a classifier's config says so in architectures"
        )
    if not any(word in said for word in _CAUSAL):
        return False
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        method = quantised.get("quant_method", "") if isinstance(quantised, Mapping) else ""
        raise TaskError(
            f"{spec}: {CONFIG} says that its weights are quantised ({method or 'quantization_config'}), which cannot "
            "be averaged; save the models dequantised, and merge those"
        )
    return True


class TransformersCausal(Transformers):
    """Scores texts by the log-likelihood of their tokens.

    Args:
        folder: a folder with ``config.json``.
        config: the configuration that was read from it.
        arguments: arguments that the configuration has already taken; and ``context``, tokens of a text that the model
            reads at once, if fewer than it can.

    Raises:
        TaskError: ``context`` is no number of tokens that the model can read.
    """

    auto = "AutoModelForCausalLM"
    reads_language = True
    """Whether its samples are rows of tokens (:class:`merging.plugins.sequences.Sequences`)."""
    more = ("context",)
    """Arguments besides the configuration's own."""

    def __init__(self, folder: str, config: Any, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, config, arguments)
        asked, most = self.arguments.get("context"), self._positions
        if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
            raise TaskError(f"{self.spec}: context is a number of tokens, such as context=1024")
        if asked is not None and most is not None and asked > most:
            raise TaskError(f"{self.spec}: context is {asked}, and the model reads {most} tokens; write at most that")

    @property
    def classes(self) -> None:
        """A language model has no classes."""

    def heads(self, tensors: Mapping[str, TensorInfo] | None = None) -> dict[str, int]:
        """No tensor's shape follows a number of classes."""
        del tensors
        return {}

    def build(self, pool: ModelPool) -> nn.Module:
        """Builds it for a pool; of models that are seen in one vocabulary, with that one's rows.

        A tied head that a checkpoint holds with other values than the embeddings is not tied, as transformers reads
        such files.

        Raises:
            PoolError: the pool's vocabulary gives this tokenizer's tokens other ids.
        """
        source = in_vocabulary_of(pool, self)
        module = source.module(None, pool.tensors)
        if all(_are_equal(pool, names) for names in tied(module) if all(name in pool.tensors for name in names)):
            return module
        apart = copy.copy(source)
        apart.config = copy.deepcopy(source.config)
        text_config(apart.config).tie_word_embeddings = apart.config.tie_word_embeddings = False
        return apart.module(None, pool.tensors)

    def module(self, classes: int | None = None, tensors: Mapping[str, TensorInfo] | None = None) -> nn.Module:
        """Builds it in float32; ``classes`` says nothing here."""
        del classes
        config = copy.deepcopy(self.config)
        config.dtype = torch.float32
        config.output_attentions = config.output_hidden_states = False
        return self.wrapped(self.whole(config), tensors or {})

    def wrapped(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> nn.Module:
        """Batches of rows of tokens, int32 ``(R, 4 + L)`` → log-likelihoods ``(N, K)``."""
        return CausalScorer(model, tensors)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """Loads the folder's tokenizer, once.

        Raises:
            TaskError: there is none.
        """
        return tokenizer_in(self.folder, self.spec)

    @property
    def padding(self) -> int:
        """Gives the id that short rows are filled up with, on the right, where nothing sees it: any would do."""
        text = text_config(self.config)
        for known in (text.pad_token_id, text.eos_token_id):
            found = known[0] if isinstance(known, list | tuple) and known else known
            if isinstance(found, int) and 0 <= found < text.vocab_size:
                return found
        return 0

    @property
    def _positions(self) -> int | None:
        """Positions that the model is made for, as far as a text's likelihood is that of the text alone.

        Rotations that change with the longest text of a batch (dynamic, LongRoPE) do so beyond the original length.
        """
        text = text_config(self.config)
        found = [getattr(text, name, None) for name in _POSITIONS]
        rotations = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
        if rotations.get("rope_type") in ("dynamic", "longrope"):
            original = rotations.get("original_max_position_embeddings")
            found.insert(0, original or getattr(text, "original_max_position_embeddings", None))
        return next((number for number in found if isinstance(number, int) and number > 0), None)

    @functools.cached_property
    def context(self) -> int:
        """Counts the tokens that the model reads at once.

        The argument ``context``, or else the positions that the configuration says and the tokenizer's own limit,
        whichever is less.

        Raises:
            TaskError: nothing says it.
        """
        asked = self.arguments.get("context")
        limits = [self._positions, int(min(self.tokenizer.model_max_length, _LARGE))] if asked is None else [asked]
        known = [limit for limit in limits if limit and limit < _LARGE]
        if not known:
            raise TaskError(f"{self.spec}: nothing says how many tokens it reads; write {self.spec}(context=1024)")
        return int(min(known))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Turns a text into token ids.

        Args:
            text: any.
            special: whether the tokenizer adds tokens of its own, such as one for the beginning.
        """
        found = self.tokenizer(text, add_special_tokens=special, return_attention_mask=False, verbose=False)
        return list(found["input_ids"])

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Gives a row of token ids as text; scored ones (``~id``) as what they stand for."""
        plain = [number if number >= 0 else ~number for number in map(int, ids)]
        return str(self.tokenizer.decode(plain))

    def example(self, batch: int = 2) -> Tensor:
        """Makes a batch of random documents of 8 tokens as the module takes it: int32, shape ``(batch, 4 + 8)``."""
        rows = int(text_config(self.config).vocab_size)
        found = torch.randint(0, rows, (batch, HEADER + 8), generator=torch.Generator().manual_seed(0))
        found[:, HEADER + 1 :] = ~found[:, HEADER + 1 :]
        found[:, 0], found[:, 1], found[:, 3] = torch.arange(batch), 0, 1
        found = found.to(torch.int32)
        found[:, 2] = torch.ones(batch).view(torch.int32)
        return found


def _are_equal(pool: ModelPool, names: Sequence[str]) -> bool:
    """Whether tensors are the same one in each checkpoint."""
    first, *others = names
    return all(torch.equal(each.read(first), each.read(name)) for each in pool.checkpoints for name in others)
