"""Writes the index from tensors to architectures that ``merge init`` looks things up in.

``python -m benchmarks.architectures`` builds every classifier of timm, torchvision and open_clip without memory for its
weights, and writes down the signature of each (``merging/looking/guessing/architectures.json``). It takes minutes, and
is run again when a library has new models; names that the index lacks are built when they are looked for.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict

import open_clip
import timm
from torchvision import models as torchvision_models

from merging.errors import MergingError
from merging.looking.guessing.building import tensors_of
from merging.looking.guessing.signature import INDEX, signature
from merging.models.catalogue import model_source


def main() -> None:
    """Builds and writes; a model that cannot be built is named and left out."""
    names = {
        "timm": timm.list_models(),
        "torchvision": torchvision_models.list_models(module=torchvision_models),
        "open_clip": open_clip.list_models(),
    }
    found: dict[str, dict[str, list[str]]] = {}
    for source, known in names.items():
        signatures: dict[str, list[str]] = defaultdict(list)
        for number, name in enumerate(known):
            print(f"\r{source} {number + 1} of {len(known)}: {name:60}", end="", file=sys.stderr)
            try:
                signatures[signature(tensors_of(model_source(f"{source}:{name}")))].append(name)
            except MergingError as error:
                print(f"\n{error}", file=sys.stderr)
        found[source] = dict(sorted(signatures.items()))
    INDEX.write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
