"""Architectures by what their tensors are called and how large they are: an index from there to names.

The index (``architectures.json``) is a hint and no more: whatever it names is built and compared, tensor by tensor,
before anybody is told. ``python -m benchmarks.architectures`` writes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from merging.values.partition import TensorInfo

INDEX = Path(__file__).with_name("architectures.json")
"""Source of models → signature → names of its models, as the installed libraries had them when it was written."""
_ELASTIC = re.compile(
    r"^(model\.)?(head|fc|classifier|last_linear|logits|output|linear|classif|aux)[^.]*(\.|$)|"
    r"(^|[._])(pos|position|positional|rel|relative|rope|mask|attention_bias|spatial|tokens?)([._]|$)|"
    r"pos_embed|mlp_tokens|attention_biases|bias_table|position_index|token_mixer|classification_head",
    re.IGNORECASE,
)
"""Tensors whose shapes follow the number of classes or the size of the images."""
_TOWER = re.compile(r"^(model\.)?visual\.")
"""Tensors of a CLIP's image tower, alone in its own names or in a classifier's."""


def is_tower(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether checkpoints hold the image tower of a CLIP, under open_clip's names."""
    return sum(bool(_TOWER.match(name)) for name in tensors) > 1


def signature(tensors: Mapping[str, TensorInfo]) -> str:
    """A short text that is the same for one architecture, whatever its classes and the size of its images.

    Args:
        tensors: name → (shape, dtype name). Of a CLIP only the image tower counts.

    >>> small, large = ({"conv": ((3,), "F32"), "fc.weight": ((n, 3), "F32")} for n in (2, 7))
    >>> signature(small) == signature(large) != signature({"conv": ((4,), "F32"), "fc.weight": ((2, 3), "F32")})
    True
    """
    names = {_TOWER.sub("visual.", n): info for n, info in tensors.items() if _TOWER.match(n)}
    names = names if is_tower(tensors) else dict(tensors)
    lines = [
        name if _ELASTIC.search(name.removeprefix("visual.")) else f"{name} {'×'.join(map(str, shape))}"
        for name, (shape, _) in sorted(names.items())
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:12]


@functools.cache
def index() -> Mapping[str, Mapping[str, list[str]]]:
    """The index: source → signature → names."""
    found: dict[str, dict[str, list[str]]] = json.loads(INDEX.read_text("utf-8"))
    return found


def hinted(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names of the architectures that checkpoints may be, by the index alone: ``timm:resnet18``."""
    own = signature(tensors)
    return [f"{source}:{name}" for source, known in index().items() for name in known.get(own, ())]
