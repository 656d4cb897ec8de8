"""What stands above a model card, as the Hub reads it: what the model was made of, its library, licence and scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED
from merging.storage.hub.listing import ADAPTER
from merging.storage.hub.spelling import PREFIX
from merging.storage.licence import Licence, agreed, licence_of
from merging.storage.pool import ModelPool
from merging.values.recipe import Ingredient
from merging.values.report import Report
from merging.values.verdict import ACCURACY

TAGS = ("merge", "merging")
PUBLIC: Mapping[tuple[str, str], tuple[str, str, str, int]] = {
    ("imagenet-shifts", "test"): ("ILSVRC/imagenet-1k", "ImageNet-1k", "validation", 50_000),
    ("imagenet-shifts", "imagenet-v2"): ("vaishaal/ImageNetV2", "ImageNet-V2 (matched frequency)", "test", 10_000),
    ("imagenet-shifts", "imagenet-sketch"): ("songweig/imagenet_sketch", "ImageNet-Sketch", "train", 50_889),
}
"""Task and set → the public data set that it is: its id on the Hub, name, split, and how many samples all of it are."""


def front_matter(
    report: Report,
    rows: Iterable[Ingredient],
    licences: Mapping[str, Licence | None],
    library: str = "",
    *,
    scored: bool = True,
) -> str:
    """Writes the YAML above a card, between its lines of dashes.

    Args:
        report: the run's report.
        rows: the ingredients of the merge; those of the Hub, and what adapters stand on, are its base models.
        licences: name of each → its licence.
        library: the one that loads the merged model; empty where nobody knows.
        scored: whether the report's scores are those of what lies there, and not of a merge that it leaves some of out.
    """
    from huggingface_hub import EvalResult, ModelCardData

    places = [place for row in rows for place in (row.file, row.base)]
    of_hub = [place.removeprefix(PREFIX).partition("@")[0] for place in places if place.startswith(PREFIX)]
    licence, scores = agreed(licences), public_scores(report) if scored else []
    facts: dict[str, Any] = {} if licence is None else licence.to_json()
    if of_hub:
        facts |= {"base_model": list(dict.fromkeys(of_hub)), "base_model_relation": "merge"}
    if library:
        facts["library_name"] = library
    if scores:
        facts |= {"model_name": "merge", "eval_results": [EvalResult(**score) for score in scores]}
    data = ModelCardData(**facts, tags=[*TAGS, report.strategy])
    return f"---\n{data.to_yaml()}\n---\n"


def library_of(folder: Path) -> str:
    """Names the library that loads the model in a folder, by its configuration; empty where that does not say."""
    if (folder / ADAPTER).is_file():
        return "peft"
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return _loads(dict(config))
    except DAMAGED:
        return ""


def _loads(config: Mapping[str, Any]) -> str:
    return "transformers" if "model_type" in config else "timm" if "architecture" in config else ""


def public_scores(report: Report) -> list[dict[str, Any]]:
    """The accuracies of what was written on public data sets that have a name, where all of one was scored.

    A test set of one's own, or a part of a public one, is not what its name would say.
    """
    row = report.written
    if row is None or report.measure != ACCURACY:
        return []
    found = []
    for split, score in row.tests.items():
        known = PUBLIC.get((report.task or "", split))
        if known is not None and report.samples.get(split) == known[3]:
            found.append(
                {
                    "task_type": "image-classification",
                    "dataset_type": known[0],
                    "dataset_name": known[1],
                    "dataset_split": known[2],
                    "metric_type": "accuracy",
                    "metric_value": round(float(score), 6),
                }
            )
    return found


def licences_of(rows: Sequence[Ingredient], pool: ModelPool) -> dict[str, Licence | None]:
    """The licence of each ingredient, as the card beside it says."""
    return {row.name: licence_of(pool.find(row)) for row in rows}
