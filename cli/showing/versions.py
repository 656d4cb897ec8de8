"""Versions that a report of a fault needs: this package's, and those of what decides its results."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("torch", "numpy", "safetensors", "timm", "open_clip_torch", "transformers", "peft", "lm-eval", "ray")
"""Packages whose versions are said; those of extras where they are installed."""


def versions() -> str:
    """Returns two lines: this version alone, and what it stands on; no package is loaded for that."""
    found = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"merge, version {importlib.metadata.version('merging')}\n{', '.join(found)}"
