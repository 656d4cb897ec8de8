"""A preparation of another size than any model's, for tests of what reads and keeps pictures."""

from __future__ import annotations

from merging.data.images import Preparation
from merging.models.source import preset
from merging.models.transform import Normalisation


def sized(size: int, resize: int) -> Preparation:
    """A centre crop of that size, the shorter side brought to ``resize`` before."""
    return Preparation(preset("model", {"crop_size": size, "resize_size": resize}, Normalisation()), arrays=True)
