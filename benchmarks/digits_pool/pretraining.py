"""What the built-in pool starts from: ``python -m benchmarks.digits_pool.pretraining --output DIR``.

A small CLIP image tower with a linear head, pretrained on rendered digits alone. ``merge finetune`` makes the pool from
it (see ``make pool``), always from the same weights (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.digits_pool.render import PRETRAINING, PRINTED, SEEN_FONTS, UNSEEN_FONTS, render
from merging.forward.numerics import Numerics
from merging.models.clip import ClipClassifier, clip_classifier
from merging.plugins.task import Split
from merging.tasks.digits import digits
from merging.tasks.digits_data import CLASSES, CLIP_CONFIG
from merging.training.folder import BASE, save, versions
from merging.training.hyperparameters import HyperParameters
from merging.training.trainer import Run, steps_of
from merging.values.report import scored

RENDERED = 20_000
PRINTED_COUNT = 800
SEED = 0
SETTINGS = HyperParameters(
    learning_rate=2e-3, weight_decay=0.05, epochs=8, batch_size=100, warmup=1.0, label_smoothing=0.05, seed=SEED
)
Advance = Callable[[int], None]


def rendered(count: int = RENDERED, drawn: Advance = lambda images: None) -> Split:
    """Digits to pretrain on.

    Args:
        count: of images.
        drawn: told the images rendered.
    """
    pixels, labels = render(SEEN_FONTS, count, PRETRAINING, SEED, drawn)
    # Some digits are dark on bright, so that the tower has seen both, as a large CLIP has.
    dark = np.random.default_rng(SEED).random(len(pixels)) < 0.2
    pixels[dark] = 255 - pixels[dark]
    return Split.of(torch.from_numpy(pixels), torch.from_numpy(labels))


def pretrain(data: Split, settings: HyperParameters = SETTINGS, advance: Advance = lambda steps: None) -> Run:
    """A classifier trained on rendered digits; the run holds the module.

    Args:
        data: from :func:`rendered`.
        settings: of the run.
        advance: told the steps that were made.
    """
    task = replace(digits(), train=data)
    module: ClipClassifier = clip_classifier(CLIP_CONFIG, CLASSES, seed=SEED)
    with torch.no_grad():
        # Features have length 1: logits of a default initialisation are too small to learn from quickly.
        module.classification_head.weight.mul_(20.0)
    numerics = Numerics.choose("cpu", module, data.inputs[0], "fp32")
    with numerics.applied():
        run = Run(module, task, settings, numerics=numerics, advance=advance)
        while not run.finished:
            run.step()
    return run


@click.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the pool.")
def main(output: Path) -> None:
    """Render and pretrain: base.safetensors, its record, and printed.npz, a test set of unseen fonts."""
    output.mkdir(parents=True, exist_ok=True)
    images, labels = render(UNSEEN_FONTS, PRINTED_COUNT, PRINTED, SEED)
    np.savez_compressed(output / "printed.npz", images=images, labels=labels)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:

        def follow(description: str, total: int) -> Advance:
            bar = progress.add_task(description, total=total)
            return lambda count: progress.advance(bar, count)

        data = rendered(drawn=follow("render", RENDERED))
        steps = steps_of(replace(digits(), train=data), SETTINGS)
        run = pretrain(data, advance=follow("pretrain", steps))
    save(output / BASE, run.module)
    score = run.held_out()
    record = {
        "command": "python -m benchmarks.digits_pool.pretraining --output DIR",
        "settings": SETTINGS.options(),
        "held_out": score,
        "versions": versions("open_clip_torch", "scikit-learn", "matplotlib", "pillow"),
    }
    (output / "base.json").write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"{output / BASE}: {scored(score)} held-out before any fine-tuning")


if __name__ == "__main__":
    main()
