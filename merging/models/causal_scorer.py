"""Log-likelihoods of batches of tokens, by a causal language model under the names of its files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from merging.errors import TaskError
from merging.models.decoder import Decoder
from merging.models.stored_names import StoredNames
from merging.models.tokenizers import text_config
from merging.plugins.sequences import ABSENT, HEADER
from merging.values.partition import TensorInfo

State: TypeAlias = tuple[Tensor, Tensor]
"""Hidden states, and the batch that they are of: what goes from step to step."""
_LOGITS = {"cpu": 2**26, "cuda": 2**29}
"""Bytes of logits, in float32, that are in memory at once."""


class CausalScorer(StoredNames):
    """Sums the log-likelihoods of the scored tokens of each text.

    Rows are filled up on the right, so that no token sees what is not its own, and no mask is needed. A row's last
    token is only predicted: rows may be one token longer than the model takes. The head runs only for positions before
    scored tokens, so many at a time that their logits take little memory; log-softmax and sums are in float32 and
    float64.

    Shapes:
        batch int32 ``(R, 4 + L)``, as :meth:`merging.plugins.sequences.Sequences.collated` gives it; outputs float32
        ``(N, K)``, ``ABSENT`` where a sample has no row for an output.

    Args:
        model: a model of transformers with a head for language modelling.
        tensors: tensors of the checkpoints.

    Raises:
        TaskError: a token's likelihood depends on those that follow it.
    """

    exact: frozenset[str] = frozenset()
    """No weight stays in fp32 where the rest runs in 16 bits; rotary frequencies, which no file holds, do."""

    def __init__(self, model: nn.Module, tensors: Mapping[str, TensorInfo]) -> None:
        decoder = Decoder(model)
        if decoder.causal is False:
            raise TaskError(
                f"{type(model).__name__} sees the tokens that follow, so it gives no likelihood of a text; language "
                "models here are causal (…ForCausalLM)"
            )
        super().__init__(model, tensors)
        self.decoder = decoder

    def train(self, mode: bool = True) -> CausalScorer:
        """Sets the mode of the model."""
        super().train(mode)
        self.decoder.train(mode)
        return self

    def forget(self) -> None:
        """Keeps nothing of earlier passes; no output depends on it."""
        self.decoder.forget()

    def forward(self, batch: Tensor) -> Tensor:
        """Gives the outputs of a batch."""
        found: Any = batch
        for step in self.forward_steps():
            found = step(found)
        return found  # type: ignore[no-any-return]

    def forward_steps(self) -> list[Callable[[Any], Any]]:
        """Gives functions whose chain is the forward pass: embedding, each block, choice of positions, head."""
        if not self.decoder.blocks:
            return [self._undivided]
        blocks = [functools.partial(self._block, number) for number in range(len(self.decoder.blocks))]
        return [self._enter, *blocks, _chosen, self._leave]

    def _enter(self, batch: Tensor) -> State:
        return self.decoder.enter(_inputs(batch)), batch

    def _block(self, number: int, state: State) -> State:
        hidden, batch = state
        return self.decoder.block(number, hidden, _inputs(batch)), batch

    def _leave(self, state: State) -> Tensor:
        hidden, batch = state
        rows, places, tokens = _scored(batch)
        vocabulary = text_config(self.whole.config).vocab_size
        size = max(1, _LOGITS.get(hidden.device.type, _LOGITS["cpu"]) // (4 * vocabulary))
        parts = [
            self._likelihoods(some, wanted, again=len(hidden) > size)
            for some, wanted in zip(hidden.split(size), tokens.split(size), strict=True)
        ]
        return _summed(torch.cat(parts), rows, places, batch)

    def _likelihoods(self, hidden: Tensor, tokens: Tensor, *, again: bool) -> Tensor:
        """Log-likelihoods ``(n,)`` of tokens, from the hidden states before them; ``again`` keeps no logits."""

        def run(some: Tensor) -> Tensor:
            return -cross_entropy(self.decoder.leave(some).float(), tokens, reduction="none")

        if again and torch.is_grad_enabled():
            found: Tensor = checkpoint(run, hidden, use_reentrant=False)
            return found
        return run(hidden)

    def _undivided(self, batch: Tensor) -> Tensor:
        """The same by the model's own logits, a few rows at a time."""
        rows, places, tokens = _scored(batch)
        ids, found = _inputs(batch), []
        vocabulary = text_config(self.whole.config).vocab_size
        size = max(1, _LOGITS.get(ids.device.type, _LOGITS["cpu"]) // (4 * vocabulary * ids.shape[1]))
        for start in range(0, len(ids), size):
            held = (rows >= start) & (rows < start + size)
            logits = self.decoder(ids[start : start + size])[rows[held] - start, places[held]]
            found.append(-cross_entropy(logits.float(), tokens[held], reduction="none"))
        return _summed(torch.cat(found), rows, places, batch)


def _inputs(batch: Tensor) -> Tensor:
    """Token ids ``(R, L - 1)`` that the model reads: all but the last, after which nothing is predicted."""
    tokens = batch[:, HEADER : max(batch.shape[1] - 1, HEADER + 1)]
    return torch.where(tokens < 0, ~tokens, tokens).long()


def _scored(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, place before it, and id of each scored token."""
    following = batch[:, HEADER + 1 :]
    rows, places = torch.nonzero(following < 0, as_tuple=True)
    return rows, places, (~following[rows, places]).long()


def _chosen(state: State) -> State:
    hidden, batch = state
    rows, places, _ = _scored(batch)
    return hidden[rows, places], batch


def _summed(likelihoods: Tensor, rows: Tensor, places: Tensor, batch: Tensor) -> Tensor:
    """Sums of log-likelihoods by row, times its weight, by output: always added in the same order."""
    wide = torch.float32 if batch.device.type == "mps" else torch.float64
    table = torch.zeros(len(batch), max(batch.shape[1] - HEADER - 1, 1), dtype=wide, device=batch.device)
    table = table.index_put((rows, places), likelihoods.to(wide))
    by_row = table.sum(1) * batch[:, 2].contiguous().view(torch.float32).to(wide)
    samples, outputs = int(batch[-1, 0]) + 1, int(batch[0, 3])
    slots = batch[:, 0].long() * outputs + batch[:, 1]
    mine = slots == torch.arange(samples * outputs, device=batch.device)[:, None]
    found = torch.where(mine, by_row, 0.0).sum(1).masked_fill(~mine.any(1), ABSENT)
    return found.float().view(samples, outputs)
