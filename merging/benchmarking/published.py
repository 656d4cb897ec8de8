"""Table 1 of the paper (Fassold 2023), rebuilt from the results files that come with its two sources.

The release of model-soups (Wortsman et al. 2022, https://github.com/mlfoundations/model-soups) has JSON lines: a model,
or a combination of models, a line, with accuracies as fractions. The logs of ManifoldMixMS (Fassold 2023,
https://github.com/hfassold/manifold_mixing_model_soups) are read as JSON traces: every decision, and test accuracies at
the end (tests/published has them). A file is recognised by what is in it, not by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from merging.errors import MergingError, near_path
from merging.running.notes import RELEASE
from merging.values.report import scored

HELD_OUT = "ImageNet2p"
SHIFTED = ("ImageNetV2", "ImageNetR", "ImageNetSketch", "ObjectNet", "ImageNetA")
SETS = {HELD_OUT: "IN-2p", "ImageNet": "IN", "ImageNetV2": "IN-V2", "ImageNetR": "IN-R", "ImageNetSketch": "IN-Sketch"}
SETS |= {"ObjectNet": "ObjectNet", "ImageNetA": "IN-A"}
"""Name of a set in the files → heading of its column, in the paper's order."""
BEST, SECOND = "best individual model", "second best individual model"
UNIFORM, GREEDY, ENSEMBLE = "uniform soup", "greedy soup", "ensemble"
COMBINED = {"uniform_soup": UNIFORM, "greedy_soup": GREEDY, "ensemble": ENSEMBLE}
"""Names in the release's files that are no individual models → row."""
WORTSMAN, PAPER = "Wortsman et al. 2022 (arXiv 2203.05482)", "Fassold 2023 (arXiv 2309.08610)"
PRINTED: dict[str, tuple[str, dict[str, tuple[float | None, float]]]] = {
    WORTSMAN: (
        "its averages are in other units than the files, so compare them within that paper only",
        {
            BEST: (80.38, 47.83),
            SECOND: (79.89, 43.87),
            UNIFORM: (79.97, 51.45),
            GREEDY: (81.03, 50.75),
            ENSEMBLE: (81.19, 50.77),
        },
    ),
    PAPER: (
        "Table 1 mixes units: its ensemble rows have those of Wortsman et al., its other rows those of the files",
        {ENSEMBLE: (None, 50.77)},
    ),
}
"""Paper → (what explains a different average, row → (ImageNet, average over the shifted sets) in %, as printed)."""
KINDS = (
    "JSON lines with model_name (such as individual_model_results.jsonl), "
    "and traces of runs with order and candidates (such as manifoldmix_c8_trace.json)"
)


@dataclass(frozen=True)
class Result:
    """The accuracies of one model, or of one combination of models, as a published file has them.

    Attributes:
        model: its name.
        accuracies: set → top-1 accuracy, a fraction; known sets only.
        source: the file, and the line in it.
        label: what the table calls it; empty outside the table.
        order: names of the models as a trace took them; empty elsewhere.
    """

    model: str
    accuracies: Mapping[str, float]
    source: str
    label: str = ""
    order: tuple[str, ...] = ()

    @property
    def average(self) -> float | None:
        """Mean over the five shifted sets, or None where one of them is missing."""
        known = [self.accuracies[name] for name in SHIFTED if name in self.accuracies]
        return fmean(known) if len(known) == len(SHIFTED) else None


@dataclass(frozen=True)
class Published:
    """The table, in the paper's order, and what there is to say about it, a sentence each."""

    rows: tuple[Result, ...]
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; accuracies are fractions."""
        keys = ("label", "model", "accuracies", "average", "source")
        return {"rows": [{key: getattr(row, key) for key in keys} for row in self.rows], "findings": [*self.findings]}


def read(files: Iterable[str | Path]) -> Published:
    """Reads results files and rebuilds the table; a row that no file gives is absent.

    Raises:
        MergingError: a file that is missing, damaged or of an unknown kind, numbers that are no accuracies or that
            contradict each other, or no row at all.
    """
    found = [result for file in dict.fromkeys(map(Path, files)) for result in _results(file)]
    traces = [result for result in found if result.order]
    known: dict[str, Result] = {}
    for result in found:
        if result.order and result.accuracies.keys() <= {HELD_OUT}:
            continue  # a run that was not tested has no row
        first = known.setdefault(result.model, result)
        if first.accuracies != result.accuracies:
            raise MergingError(f"{result.source}: {result.model} has other numbers than in {first.source}")
    runs = [result.model for result in known.values() if result.order]
    pool = [result for name, result in known.items() if name not in COMBINED and name not in runs]
    ranked = ranking(pool)
    labelled = list(zip((BEST, SECOND), ranked, strict=False))
    names = ["uniform_soup", "greedy_soup", *runs, "ensemble"]
    labelled += [(COMBINED.get(name, name), known[name]) for name in names if name in known]
    if not labelled:
        raise MergingError(f"no row of the table: models without {HELD_OUT} have no rank, runs without tests no scores")
    rows = [replace(result, label=label) for label, result in labelled]
    said = [*_of_the_papers(rows, pool), *_of_the_pool(pool, ranked, traces)]
    return Published(tuple(rows), tuple(said))


def ranking(pool: Sequence[Result]) -> list[Result]:
    """Best held-out accuracy first, later lines before earlier ones where it is equal.

    That is the published order: main.py of the release sorts ascending, which is stable, and reverses.
    """
    measured = [result for result in pool if HELD_OUT in result.accuracies]
    return sorted(measured, key=lambda result: result.accuracies[HELD_OUT])[::-1]


def _results(file: Path) -> Iterator[Result]:
    for where, value in _values(file):
        if isinstance(value, dict) and {"order", "candidates"} <= value.keys():
            yield _trace(value, where)
        elif isinstance(value, dict) and isinstance(value.get("model_name"), str):
            yield Result(value["model_name"], _accuracies(value, where), where)
        elif where == str(file) and not (isinstance(value, dict) and value.keys() & {"model_name", *SETS}):
            raise MergingError(f"{file}: not a kind of file that is read here, which are {KINDS}")
        else:
            raise MergingError(f"{where}: not an object with a model_name")


def _values(file: Path) -> list[tuple[str, Any]]:
    """The file's one JSON value, or those of its lines; each with where it stands."""
    if not file.is_file():
        raise MergingError(f"no such results file: {file}{near_path(file)}")
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise MergingError(f"{file}: not JSON: line 1 is not even text") from None
    try:
        return [(str(file), json.loads(text))]
    except (ValueError, RecursionError) as error:
        wrong = getattr(error, "lineno", 1)
    found, bad = [], []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found += [(f"{file}, line {number}", json.loads(line))] if line.strip() else []
        except (ValueError, RecursionError):
            bad.append(number)
    if bad or not found:  # where no line is an object by itself, the whole was meant to be one
        lines = any(isinstance(value, dict) for _, value in found)
        raise MergingError(f"{file}: line {bad[0] if lines else wrong} is not JSON")
    return found


def _accuracies(data: Mapping[str, Any], where: str) -> dict[str, float]:
    """The known sets of a line, checked."""
    known = {name: data[name] for name in SETS if name in data}
    if not known:
        raise MergingError(f"{where}: none of the known sets ({', '.join(SETS)})")
    for name, value in known.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MergingError(f"{where}: {name} is not a number")
        if not 0 <= value <= 1:  # NaN is not either
            raise MergingError(f"{where}: {name} is {str(value)[:20]}, but accuracies are fractions from 0 to 1")
    return known


def _trace(data: Mapping[str, Any], where: str) -> Result:
    """The run's last held-out accuracy, from its decisions, and its test accuracies, if it was tested."""
    try:
        held_out = data["start_val_acc"]
        for candidate in data["candidates"]:
            if candidate.get("accepted"):
                held_out = candidate["val_acc"]
            elif candidate.get("decision") == "accepted":
                held_out = candidate["passes"][-1]  # the published code keeps the last search's result, better or not
        order = tuple(str(name) for name in data["order"])
        final = dict(data.get("final_test_accuracy") or {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        keys = "order, start_val_acc, candidates or final_test_accuracy"
        raise MergingError(f"{where}: a trace whose {keys} cannot be read") from None
    if not order:
        raise MergingError(f"{where}: a trace without models in its order")
    components = re.search(r"(\d+) components", str(data.get("source")))
    name = f"ManifoldMixMS-C{components[1]}" if components else "ManifoldMixMS"
    accuracies = _accuracies({HELD_OUT: held_out}, where) | (_accuracies(final, where) if final else {})
    return Result(name, accuracies, where, order=order)


def _of_the_papers(rows: Sequence[Result], pool: Sequence[Result]) -> Iterator[str]:
    """Where the printed tables differ from the rows."""
    if any({"ImageNetR", "ImageNetSketch"} <= row.accuracies.keys() for row in rows):
        yield f"{PAPER}: Table 1 as printed has IN-R and IN-Sketch under each other's heading; here each has its own"
    release = {result.model for result in pool} == RELEASE
    for paper, (explanation, table) in PRINTED.items():
        apart = []
        for row in rows:
            if row.label not in table or (row.label in (BEST, SECOND) and not release):
                continue
            values = (row.accuracies.get("ImageNet"), row.average)
            for what, printed, value in zip(("IN", "average"), table[row.label], values, strict=True):
                if printed is not None and value is not None and abs(100 * value - printed) > 0.01:
                    apart.append(f"{what} of {row.label} {printed:.2f} (files: {100 * value:.2f})")
        if apart:
            yield f"{paper} prints other numbers than the files give: {', '.join(apart)}; {explanation}"


def _of_the_pool(pool: Sequence[Result], ranked: Sequence[Result], traces: Sequence[Result]) -> Iterator[str]:
    """Ranks, orders, copies, and the model that was not fine-tuned."""
    order = [result.model for result in ranked]
    if order:
        best = [f"{result.model} ({scored(result.accuracies[HELD_OUT])})" for result in ranked[:2]]
        ties = [
            f"{one.model} before {two.model}"
            for one, two in pairwise(ranked)
            if one.accuracies[HELD_OUT] == two.accuracies[HELD_OUT]
        ]
        equal = f"; where it is equal the later line is first ({', '.join(ties)})" if ties else ""
        yield f"{len(order)} models ranked by held-out accuracy, best {', then '.join(best)}{equal}"
    if len(order) < len(pool):
        yield f"{len(pool) - len(order)} of {len(pool)} models have no rank, for want of {HELD_OUT}"
    for trace in traces if order else ():
        same = "the same order" if list(trace.order) == order else "another order"
        end = f"ended at {scored(trace.accuracies[HELD_OUT])} held-out"
        yield f"{Path(trace.source).name}: the run took the models in {same} and {end}"
    copies: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for result in pool:
        copies.setdefault(tuple(result.accuracies.items()), []).append(result.model)
    for scores, names in copies.items():
        if len(names) > 1 and len(scores) > 1:  # on one set alone, equal scores are chance
            yield f"{' and '.join(names)} have identical scores on all {len(scores)} sets: probably the same model"
    if set(order) == RELEASE:
        yield (
            f"model_0 is the linear-probe initialisation of the others, not fine-tuned (hparam_info.json of the "
            f"release): rank {order.index('model_0') + 1} of {len(order)} by held-out accuracy"
        )
