"""The built-in task: a small real CLIP classifier, a pool of its fine-tuned models, handwritten and shifted digits."""

from __future__ import annotations

from torch import Tensor, nn

from merging.models.clip import clip_classifier
from merging.plugins.task import Split, Task
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.tasks import digits_data


def digits() -> Task:
    """Scores small CLIP classifiers on scikit-learn's handwritten digits; needs neither a download nor a GPU.

    Held-out and test parts come from one distribution; the shifted sets have the same labels: printed in font
    families never seen in training, inverted, rotated, shifted, outlined.
    """
    tests = {"test": digits_data.handwritten("test")}
    tests |= {name: digits_data.shifted_set(name) for name in digits_data.SHIFTED_SETS}
    return Task(
        name="digits",
        build=_build,
        held_out=_split(digits_data.handwritten("held_out")),
        tests={name: _split(pair) for name, pair in tests.items()},
        shifts=digits_data.SHIFTED_SETS,
        prepare=digits_data.prepare,
        train=_split(digits_data.handwritten("train")),
        pool=_pool,
    )


def _split(pair: tuple[Tensor, Tensor]) -> Split:
    return Split.of(*pair)


def _build(pool: ModelPool) -> nn.Module:
    return clip_classifier(digits_data.CLIP_CONFIG, digits_data.CLASSES, tensors=pool.tensors)


def _pool() -> ModelPool:
    """The shipped pool: the fine-tuned models, and the pretrained one as their base."""
    files = sorted(digits_data.POOL.glob("model_*.safetensors"))
    base = Checkpoint(digits_data.POOL / "base.safetensors")
    return ModelPool([Checkpoint(path) for path in files], base)
