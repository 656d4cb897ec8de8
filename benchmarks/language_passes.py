"""The evaluator on documents against a bare forward loop over the same batches of tokens.

``python -m benchmarks.language_passes --json``. The bare loop is what a user would write: transformers' own model,
token ids, and a cross-entropy of its logits, whose sum it keeps; same weights, batches, threads and dtype, in inference
mode. The evaluator mixes a new point for each pass and scores. Exact savings are off.
Bar: speed ≥ 0.95 of the loop's; losses a token equal to 1e-5 in fp32.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.common import chosen, evaluator, json_option, only_option, pairs, pairs_option, show, trials
from benchmarks.random_llama import SIZES, documents, llamas, task_of
from merging.partitioners.block import Block
from merging.plugins.sequences import HEADER
from merging.values.recipe import Recipe

DOCUMENTS = {"5 M": 48, "25 M": 16, "200 M": 4}


def measure(size: str, folder: Path, count: int, precision: str) -> dict[str, Any]:
    """One subject's row."""
    stored = torch.bfloat16 if precision == "bf16" else torch.float32
    pool, source = llamas(folder, size, stored)
    task = task_of(source, documents(DOCUMENTS[size], int(SIZES[size]["vocab_size"]), 64, 512))
    made = evaluator(pool, task, Block(), precision=precision, cache_memory=0)
    live, split = made.scorer.live, task.held_out  # type: ignore[attr-defined]
    borders = split.cuts(made.numerics.batch)
    batches = [_bare(split.sequences[a:b].collated(), live.device) for a, b in itertools.pairwise(borders)]
    model = live.module.whole

    def loop() -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=live.device)
        with torch.inference_mode():
            for ids, targets in batches:
                logits = model(input_ids=ids, use_cache=False).logits
                total += cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
        return total.cpu()  # a GPU has done all of it then; the evaluator waits for its scores too

    outcome = made.evaluate(Recipe.single(pool.ingredients[0], made.keys.partition))
    tokens = float(split.labels.sum())
    apart = abs(float(loop()) / tokens + outcome.score)
    found = pairs(loop, trials(made), count)  # the loop runs with the weights of the trial before
    return {
        "subject": f"Llama of {size}",
        "dtype": made.numerics.dtype,
        "threads": made.numerics.threads,
        "tokens": int(tokens),
        "batch": made.numerics.batch,
        "speed": found.pop("quotient"),
        "loss_apart": apart,
        "loop_seconds": found.pop("seconds"),
        "seconds": found.pop("compared_seconds"),
        **found,
    }


def _bare(batch: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids, and the tokens that are to be predicted from them, −100 where none is."""
    tokens = batch[:, HEADER:].long()
    ids = torch.where(tokens < 0, ~tokens, tokens)[:, :-1]
    targets = torch.where(tokens < 0, ~tokens, -100)[:, 1:]
    return ids.to(device), targets.to(device)


@click.command()
@only_option
@pairs_option
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@json_option
def main(only: str | None, count: int, precision: str, as_json: bool) -> None:
    """Evaluator ÷ bare forward loop."""
    rows = [measure(name, folder, count, precision) for name, _, folder in chosen(SIZES, only)]
    show("language_passes", rows, as_json=as_json)


if __name__ == "__main__":
    main()
