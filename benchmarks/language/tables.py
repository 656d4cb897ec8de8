"""One record of what the folders of finished steps say, and the tables of docs/results/language.md that it decides."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.language.compare import DOMAINS, PROTOCOL, SHIFT, STUDIES
from merging.storage import atomic

Json = dict[str, Any]
PAGE = PROTOCOL.with_name("language.md")
RECORD = PROTOCOL.parent / "language" / "record.json"
MISSING = "Not measured yet."
_MARK = re.compile(r"<!-- (?!end )([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def score(output: Path, threads: int | None = None) -> None:
    """Scores the base and all models on the test sets of both domains and of the shift, by ``merge evaluate``.

    Args:
        output: folder of corpora and models.
        threads: of the passes; None: what the program takes.

    Raises:
        SystemExit: it failed, with its exit code.
    """
    file, corpora = output / "models.json", output.absolute() / "corpus"
    if file.is_file():
        return
    task = output / "models.toml"
    sets = {name: json.dumps(str(corpora / f"{name}_test.jsonl")) for name in (*DOMAINS, SHIFT)}
    shifts = "".join(f"{name} = {path}\n" for name, path in list(sets.items())[1:])
    model, held_out = f"transformers:{output.absolute() / 'base'}", corpora / f"{DOMAINS[0]}_held_out.jsonl"
    head = f"[task]\nmodel = {json.dumps(model)}\nheld_out = {json.dumps(str(held_out))}\n"
    atomic.write(task, f"{head}test = {sets[DOMAINS[0]]}\n[task.shifts]\n{shifts}")
    words = ["evaluate", str(output / "base"), *(f"{output / domain}/model_*" for domain in DOMAINS)]
    words += ["--base", str(output / "base"), "--task", str(task), "--json"]
    words += [] if threads is None else ["--threads", str(threads)]
    done = subprocess.run(  # noqa: S603 (our own)
        [sys.executable, "-m", "merging", *words], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    atomic.write(file, done.stdout.decode("utf-8"))


def protocol_hash() -> str:
    """Hashes the protocol as it stands (SHA-256 of the file's bytes)."""
    return hashlib.sha256(PROTOCOL.read_bytes()).hexdigest()


def recorded(output: Path) -> Json:
    """Gathers what finished steps have left; a step that has not been made is not in it.

    Args:
        output: folder of corpora and models.
    """
    found: Json = {"protocol": protocol_hash()}
    for name, kept in (("corpus", "corpus/corpus.json"), ("base", "base/training.json")):
        if (output / kept).is_file():
            found[name] = _read(output / kept)
    runs = {domain: sorted((output / domain).glob("model_*/training.json")) for domain in DOMAINS}
    found["runs"] = {f"{domain}/{file.parent.name}": _read(file) for domain, files in runs.items() for file in files}
    if (output / "models.json").is_file():
        names = {"test": DOMAINS[0]}
        found["scores"] = {
            _model(model["model"]): {names.get(name, name): each["score"] for name, each in model["sets"].items()}
            for model in _read(output / "models.json")["models"]
        }
    found["studies"] = {
        f"{kind}_{name}": _study(_read(file))
        for name in STUDIES
        for kind in ("bench", "evolved")
        if (file := output / f"{kind}_{name}" / "benchmark.json").is_file()
    }
    return found


def _read(file: Path) -> Json:
    told: Json = json.loads(file.read_text("utf-8"))
    return told


def _model(name: str) -> str:
    """Domain and run of a model, however long its path is said."""
    return "/".join(Path(name).parts[-2:]) if "model_" in name else Path(name).name


ROW = ("label", "options", "status", "why", "held_out", "tests", "shifted", "intervals", "ingredients", "evaluations")
COSTS = ("forward_equivalents", "seconds", "inference_cost")
VERDICT = ("set", "difference", "interval", "p", "corrected", "verdict", "test", "samples")


def _study(told: Json) -> Json:
    rows = [
        {key: row[key] for key in (*ROW, *COSTS)}
        | {"verdicts": [{key: v[key] for key in VERDICT} for v in row["verdicts"] if v["reference"] == "best"]}
        for row in told["rows"]
    ]
    kept = ("objective", "status", "samples", "wall_seconds", "notes")
    return {key: told[key] for key in kept} | {"rows": rows, "numerics": told["header"]["numerics"]}


def corpora(record: Json) -> str:
    """The packages, and how much text each part has."""
    told = record.get("corpus")
    if told is None:
        return MISSING
    lines = ["| part | samples | characters |", "|---|---|---|"]
    counts: Mapping[str, list[int]] = told["samples_and_characters"]
    lines += [
        f"| {name} | {some:,} | {much:,} |" if much else f"| {name} | {some:,} | – |"
        for name, (some, much) in counts.items()
    ]
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in told["left_out"].items())
    lines += ["", f"Left out, for 13 words in a row in common with training text: {shares}."]
    packages = [f"| `{name}` | `{digest[:16]}…` |" for name, digest in told["packages"].items()]
    return "\n".join([*lines, "", "| package | SHA-256 |", "|---|---|", *packages])


def models(record: Json) -> str:
    """The base and each run: its settings, and its loss on every test set."""
    if "base" not in record:
        return MISSING
    base, scores = record["base"], record.get("scores", {})
    rate = base["tokens"] / max(1, base["seconds"])
    lines = [
        f"Base: {base['parameters']:,} parameters, {base['tokens']:,} tokens in {base['seconds']:,} s "
        f"({rate:,.0f} a second), training loss at the end {base['loss']:.3f}.",
        "",
        f"| model | rate | steps | decay | rank | training loss | {' | '.join((*DOMAINS, SHIFT))} |",
        "|---" * (6 + len(DOMAINS) + 1) + "|",
    ]
    for name, run in {"base": base, **record["runs"]}.items():
        losses = [_loss(scores.get(name, {}).get(each)) for each in (*DOMAINS, SHIFT)]
        rank = "–" if run.get("rank") is None else str(run["rank"])
        cells = [name, f"{run['rate']:g}", str(run["steps"]), f"{run['decay']:g}", rank, f"{run['loss']:.3f}", *losses]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{-value:.4f}"


def study(record: Json, name: str) -> str:
    """A comparison's rows, with what CMA-ES found for some of them below."""
    found = {
        kind: record["studies"][key] for kind in ("bench", "evolved") if (key := f"{kind}_{name}") in record["studies"]
    }
    if not found:
        return MISSING
    loss = STUDIES[name].objective != "accuracy"
    what = "loss" if loss else "accuracy"
    heads = ["method", f"held-out {what}", "test", "perplexity", "less `best`, 95 %", "verdict"]
    heads += [SHIFT, "less `best`, 95 %", "verdict", "evaluations", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind, told in found.items():
        for row in told["rows"]:
            if kind == "evolved" and row["label"] == "best":
                continue
            label = f"`{row['label']}`" + (" by CMA-ES" if kind == "evolved" else "")
            lines.append(f"| {' | '.join([label, *_cells(row, loss=loss)])} |")
    unfinished = [kind for kind, told in found.items() if told["status"] != "finished"]
    return "\n".join([*lines, *(["", f"Not finished: {', '.join(unfinished)}."] if unfinished else [])])


def _cells(row: Json, *, loss: bool) -> list[str]:
    if row["held_out"] is None:
        return [f"{row['status']}: {row['why']}", *["–"] * 9]
    sign = -1 if loss else 1
    verdicts = {verdict["set"]: verdict for verdict in row["verdicts"]}

    def compared(name: str) -> list[str]:
        told = verdicts.get(name)
        if told is None or told["difference"] is None:
            return ["–", "–"]
        low, high = sorted(sign * end for end in told["interval"])
        return [f"{sign * told['difference']:+.4f} ({low:+.4f} to {high:+.4f})", told["verdict"]]

    test, shifted = row["tests"]["test"], row["tests"].get(SHIFT)
    return [
        f"{sign * row['held_out']:.4f}",
        f"{sign * test:.4f}",
        f"{math.exp(-test):.2f}" if loss else "–",
        *compared("test"),
        "–" if shifted is None else f"{sign * shifted:.4f}",
        *compared(SHIFT),
        f"{row['evaluations']:.0f}",
        f"{row['seconds']:.0f}",
    ]


PARTS: Mapping[str, Callable[[Json], str]] = {
    "corpora": corpora,
    "models": models,
    **{f"study-{name}": partial(study, name=name) for name in STUDIES},
}
"""Part of the page → what makes it."""


def filled(page: str, record: Json) -> str:
    """The page with every part as the record has it."""
    return _MARK.sub(lambda found: f"<!-- {found[1]} -->\n{PARTS[found[1]](record)}\n<!-- end -->", page)


def write(output: Path, record: Path = RECORD, page: Path = PAGE) -> None:
    """Writes the record, and the page's parts anew.

    Args:
        output: folder of the finished steps.
        record: file of the record.
        page: file of the page.
    """
    told = recorded(output)
    record.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(record, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    atomic.write(page, filled(page.read_text("utf-8"), told))
