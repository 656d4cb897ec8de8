"""Rebuilds the built-in task's pool from nothing: ``python -m merging.training.digits_pool --output DIR``.

A small CLIP image tower with a linear head is pretrained on rendered digits, then fine-tuned many times on
the handwritten train part, always from the same weights (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482).
"""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from merging.models.clip import ClipClassifier, clip_classifier
from merging.tasks.digits_data import CLASSES, CLIP_CONFIG, handwritten, prepare
from merging.training.digits_render import PRETRAINING, PRINTED, SEEN_FONTS, UNSEEN_FONTS, render

RENDERED = 20_000
PRINTED_COUNT = 800
PRETRAINING_BATCH_SIZE = 100
MODELS = 14
BATCH_SIZE = 24
SEED = 0

Advance = Callable[[int], None]


@dataclass(frozen=True)
class HyperParameters:
    """One fine-tuning run.

    Attributes:
        learning_rate: peak of the schedule (one warm-up epoch, then a cosine to zero).
        weight_decay: of AdamW.
        epochs: passes over the train part.
        label_smoothing: mass spread evenly over the classes.
        mixup: alpha of mixup's Beta distribution; 0 for none.
        augmentation: a key of `AUGMENTATIONS`.
        seed: of data order, mixup and augmentation; the initial weights are the pretrained ones.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    label_smoothing: float
    mixup: float
    augmentation: str
    seed: int


_AFFINE = v2.RandomAffine(6, translate=(0.04, 0.04), scale=(0.9, 1.1), fill=-1.0)
AUGMENTATIONS: dict[str, v2.Transform] = {
    "none": v2.Identity(),
    "affine": _AFFINE,
    "wide-affine": v2.RandomAffine(10, translate=(0.06, 0.06), scale=(0.85, 1.15), shear=5, fill=-1.0),
    "affine-erase": v2.Compose([_AFFINE, v2.RandomErasing(p=0.3, scale=(0.04, 0.12), value=-1.0)]),
}
FINE_TUNING_AUGMENTATIONS = ("affine", "wide-affine", "affine-erase")


PRETRAINING_RECIPE = HyperParameters(
    learning_rate=2e-3,
    weight_decay=0.05,
    epochs=8,
    label_smoothing=0.05,
    mixup=0.0,
    augmentation="none",
    seed=SEED,
)


def sweep(models: int = MODELS, seed: int = SEED) -> list[HyperParameters]:
    """Draws the hyper-parameters at random.

    Learning rates stay within a factor of 2 of each other: farther apart, the runs end in basins that do
    not mix.
    """
    generator = np.random.default_rng(seed)
    return [
        HyperParameters(
            learning_rate=round(float(1e-3 * 2 ** generator.uniform(-0.5, 0.5)), 6),
            weight_decay=float(generator.choice((0.01, 0.03, 0.1))),
            epochs=int(generator.choice((24, 30, 36))),
            label_smoothing=float(generator.choice((0.0, 0.05, 0.1))),
            mixup=float(generator.choice((0.0, 0.1, 0.2))),
            augmentation=generator.choice(FINE_TUNING_AUGMENTATIONS).item(),
            seed=1000 + index,
        )
        for index in range(models)
    ]


def make_deterministic(seed: int) -> None:
    """Seeds torch, and keeps to one thread: sums depend on how the work is shared out."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    torch.manual_seed(seed)


def train(
    model: ClipClassifier,
    images: Tensor,
    labels: Tensor,
    recipe: HyperParameters,
    *,
    batch_size: int,
    advance: Advance = lambda count: None,
) -> None:
    """Trains in place with AdamW; tensors without a gradient (the text side's) stay as they are.

    Args:
        model: classifier, changed.
        images: prepared, ``(N, 3, 16, 16)``.
        labels: int64 ``(N,)``.
        recipe: hyper-parameters.
        batch_size: images of a step; an incomplete last batch is dropped.
        advance: told the number of steps done since its last call.
    """
    make_deterministic(recipe.seed)
    steps = len(images) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        pct_start=1 / recipe.epochs,
        cycle_momentum=False,
    )
    mixup = v2.MixUp(alpha=recipe.mixup, num_classes=CLASSES) if recipe.mixup else v2.Identity()
    augment = AUGMENTATIONS[recipe.augmentation]
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images))
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            # One image at a time: torchvision draws a single set of parameters for a whole batch.
            batch = torch.stack([augment(image) for image in images[chosen]])
            batch, targets = mixup(batch, labels[chosen])
            loss = F.cross_entropy(model(batch), targets, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            advance(1)
    model.eval()


def accuracy(model: ClipClassifier, images: Tensor, labels: Tensor) -> float:
    """Top-1 fraction."""
    with torch.inference_mode():
        return float((model(images).argmax(dim=1) == labels).double().mean())


def pretrain(advance: Advance, drawn: Advance) -> ClipClassifier:
    """A classifier trained on rendered digits alone.

    Args:
        advance: told the optimiser's steps.
        drawn: told the images rendered.
    """
    pixels, labels = render(SEEN_FONTS, RENDERED, PRETRAINING, SEED, drawn)
    # Some digits are dark on bright, so that the tower has seen both, as a large CLIP has.
    dark = np.random.default_rng(SEED).random(len(pixels)) < 0.2
    pixels[dark] = 255 - pixels[dark]
    model = clip_classifier(CLIP_CONFIG, CLASSES, seed=SEED)
    with torch.no_grad():
        # Features have length 1: logits of a default initialisation are too small to learn from quickly.
        model.classification_head.weight.mul_(20.0)
    images = prepare(torch.from_numpy(pixels))
    recipe, batch_size = PRETRAINING_RECIPE, PRETRAINING_BATCH_SIZE
    train(model, images, torch.from_numpy(labels), recipe, batch_size=batch_size, advance=advance)
    return model


def fine_tune(pretrained: ClipClassifier, recipe: HyperParameters, advance: Advance) -> ClipClassifier:
    """A copy of the pretrained classifier, trained on the handwritten train part."""
    model = copy.deepcopy(pretrained)
    images, labels = handwritten("train")
    train(model, prepare(images), labels, recipe, batch_size=BATCH_SIZE, advance=advance)
    return model


def save(model: ClipClassifier, path: Path) -> None:
    """Writes all tensors as fp32 safetensors."""
    # Not `save_file`, whose files only their owner can read: these are installed for everyone.
    path.write_bytes(serialise({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def _entry(file: str, score: float, recipe: HyperParameters) -> dict[str, object]:
    return {"file": file, "held_out_accuracy": score, **asdict(recipe)}


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the checkpoints, printed.npz and pool.json.",
)
def main(output: Path) -> None:
    """Pretrain, fine-tune and write the pool of the built-in task."""
    make_deterministic(SEED)
    output.mkdir(parents=True, exist_ok=True)
    images, labels = render(UNSEEN_FONTS, PRINTED_COUNT, PRINTED, SEED)
    np.savez_compressed(output / "printed.npz", images=images, labels=labels)
    held_out_images, held_out_labels = handwritten("held_out")
    held_out = prepare(held_out_images)
    recipes = sweep()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:

        def follow(description: str, total: int) -> Advance:
            task = progress.add_task(description, total=total)
            return lambda count: progress.advance(task, count)

        drawn = follow("render", RENDERED)
        steps = RENDERED // PRETRAINING_BATCH_SIZE
        pretrained = pretrain(follow("pretrain", PRETRAINING_RECIPE.epochs * steps), drawn)
        save(pretrained, output / "pretrained.safetensors")
        score = accuracy(pretrained, held_out, held_out_labels)
        entries = [_entry("pretrained.safetensors", score, PRETRAINING_RECIPE)]
        steps = len(handwritten("train")[1]) // BATCH_SIZE
        advance = follow("fine-tune", sum(recipe.epochs for recipe in recipes) * steps)
        for index, recipe in enumerate(recipes):
            model = fine_tune(pretrained, recipe, advance)
            name = f"finetuned_{index:02d}.safetensors"
            save(model, output / name)
            score = accuracy(model, held_out, held_out_labels)
            progress.print(f"{name}: {score:.4f} held-out")
            entries.append(_entry(name, score, recipe))
    libraries = ("torch", "torchvision", "open_clip_torch", "scikit-learn", "numpy", "matplotlib", "pillow")
    record = {
        "command": "python -m merging.training.digits_pool --output DIR",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "models": entries,
    }
    (output / "pool.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
