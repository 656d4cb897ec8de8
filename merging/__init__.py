"""Merging fine-tuned models into one better model, with pluggable strategies.

>>> import merging
>>> task = merging.load_task("digits")
>>> task.pool().names[:2]
('model_00', 'model_01')

and then ``merging.merge(task.pool(), merging.ManifoldMix(), partitioner=merging.ClipC8(), task=task)``.

The public names stand in ``__init__.pyi`` and are imported on first use: ``import merging`` alone loads neither torch
nor any backend.
"""

import sys
from typing import Any

import lazy_loader

from merging.moved import OldPaths
from merging.notebook import load_quietly

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first used; ``__version__``, which the installed package says."""
    if name == "__version__":
        from importlib.metadata import version

        return version("merging")
    return _public(name)


sys.meta_path.append(OldPaths())  # type: ignore[arg-type]  # last: only what is nowhere else
load_quietly()
