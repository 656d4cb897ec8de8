"""Whatever the verdicts are, terminal, card, Markdown, CSV, LaTeX, page and JSON say the same of each of them."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from merging.benchmarking.rendering.documents import to_csv, to_latex, to_markdown
from merging.benchmarking.rendering.page import to_html
from merging.benchmarking.rendering.tables import cells, heading
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow, accurate
from merging.cli.showing.benchmark_view import show_benchmark
from merging.cli.showing.table import show_report
from merging.errors import showable
from merging.running.card import model_card
from merging.values.report import Report, Row
from merging.values.score_table import ScoreTable
from merging.values.states import RunState
from merging.values.statistics import PairedTest
from merging.values.verdict import (
    MARKS,
    Family,
    Role,
    Verdict,
    compact,
    corrected,
    difference,
    mark,
    p_value,
    sentence,
    title,
    word,
)

SETS = {
    "held-out": Role.HELD_OUT,
    "test": Role.TEST,
    "test-b": Role.TEST,
    "fog": Role.SHIFT,
    "snow": Role.SHIFT,
    SHIFTED: Role.AVERAGE,
}
KINDS = ("accuracy", "accuracy", "macro-f1", "neg-mse")
"""Of the third the labels are classes, of the last they are not."""


def drawn(name: str, role: Role, generator: np.random.Generator, measure: str, *, extra: bool) -> Verdict:
    """A verdict of any kind: better, worse, neither, or not tested."""
    named: dict[str, Any] = {
        "set": name,
        "role": role,
        "reference": "best",
        "against": "the best single model (m1)",
        "measure": measure,
        "extra": extra,
        "family": Family.of(role, extra=extra),
    }
    if generator.random() < 0.2:
        return Verdict(**named, why="it was not scored there")
    step = float(generator.normal(scale=0.05))
    deviation = float(generator.choice([0.003, 0.02, 0.1]))
    from scipy.stats import norm

    p = float(2 * norm.sf(abs(step) / deviation))
    ends = (step - 1.96 * deviation, step + 1.96 * deviation)
    return Verdict(
        **named,
        difference=step,
        interval=ends,
        p=p,
        corrected=p,
        level=0.95,
        tests=1,
        test=PairedTest.NORMAL,
        samples=500,
    )


def verdicts(generator: np.random.Generator, measure: str, rows: int) -> list[tuple[Verdict, ...]]:
    found = []
    for _ in range(rows):
        row = [drawn(name, role, generator, measure, extra=False) for name, role in SETS.items()]
        if measure == "macro-f1":
            row += [drawn(name, role, generator, "accuracy", extra=True) for name, role in SETS.items()]
        found.append(tuple(row))
    return corrected(found)


def scores(generator: np.random.Generator, measure: str) -> dict[str, float]:
    sign = -7 if measure == "neg-mse" else 1
    return {name: sign * float(generator.uniform(0.2, 0.98)) for name in SETS}


def benchmark(seed: int) -> Benchmark:
    generator, measure = np.random.default_rng(seed), KINDS[seed % len(KINDS)]
    told = [(), *verdicts(generator, measure, 4)]
    rows = []
    for label, own in zip(("best", "uniform", "greedy & co", "ties|x", "slerp"), told, strict=True):
        values = scores(generator, measure)
        beside = scores(generator, "accuracy") if measure == "macro-f1" else {}
        rows.append(
            BenchmarkRow(
                strategy=label.split()[0],
                label=label,
                held_out=values["held-out"],
                shifted=values[SHIFTED],
                verdicts=own,
                tests={name: values[name] for name in SETS if name not in ("held-out", SHIFTED)},
                accuracies=beside,
                ingredients=("m1",),
                models=1,
                seeds=(0,),
            )
        )
    samples = {name: 500 for name in SETS if name != SHIFTED}
    return Benchmark(
        task="blobs",
        objective=measure,
        rows=tuple(rows),
        singles=(),
        samples=samples,
        shifts=("fog", "snow"),
        pool=("m1", "m2"),
        seeds=(0,),
        measure=measure,
    )


def report(seed: int) -> Report:
    generator, measure = np.random.default_rng(seed), KINDS[seed % len(KINDS)]
    rows = []
    for name in ("best", "uniform", "greedy"):
        values = scores(generator, measure)
        beside = scores(generator, "accuracy") if measure == "macro-f1" else {}
        tests = {key: values[key] for key in SETS if key not in ("held-out", SHIFTED)}
        rows.append(
            Row(
                strategy=name,
                label=name,
                held_out=values["held-out"],
                tests=tests,
                shifted=values[SHIFTED],
                ingredients=("m1",),
                evaluations=1,
                cached=0,
                forward_equivalents=1.0,
                seconds=1.0,
                accuracies=beside,
            )
        )
    return Report(
        strategy="greedy",
        options={},
        partitioner="whole",
        optimizer="none",
        objective=measure,
        task="blobs",
        state=RunState.FINISHED,
        seed=0,
        components=1,
        active_components=1,
        component_names=("all",),
        pool=("m1", "m2"),
        ingredients=("m1",),
        evaluations=3,
        cached=0,
        forward_equivalents=3.0,
        wall_seconds=1.0,
        peak_memory_bytes=1,
        held_out_samples=500,
        shifts=("fog", "snow"),
        numerics={},
        versions={},
        content_hash="abc",
        rows=tuple(rows),
        best_single_name="m1",
        measure=measure,
        verdicts=verdicts(generator, measure, 1)[0],
    )


def columns_of(found: Benchmark, row: BenchmarkRow) -> dict[str, Verdict]:
    return {column: told for column in found.columns if (told := row.verdict("best", column)) is not None}


class _Cells(html.parser.HTMLParser):
    """Every table's rows, as texts; without the average that stands second on a phone, where it is hidden elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th") and dict(attributes).get("class") != "twin":
            self.tables[-1][-1].append("")
            self._inside = True
        elif tag == "br" and self._inside:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data


def on_screen(width: int, show: object, *arguments: object, **more: object) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width), *arguments, **more)  # type: ignore[operator]
    return out.getvalue()


@pytest.mark.parametrize("seed", range(8))
def test_every_form_of_a_benchmark_says_the_same(seed: int) -> None:
    found = benchmark(seed)
    wide, markdown, tex = on_screen(400, show_benchmark, found), to_markdown(found), to_latex(found)
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    page = _Cells()
    page.feed(to_html(found, {}))
    again = Benchmark.from_json(json.loads(found.dumps()))
    assert again.rows == found.rows
    table = markdown.partition("## Against")[2]
    main = [c for c in ("test", "test-b", SHIFTED)]
    against_on_screen = wide.partition("Against the best single model (m1)")[2]
    for number, row in enumerate(found.rows):
        told = columns_of(found, row)
        assert len(told) == (0 if number == 0 else len(found.columns))
        tex_cells = tex.partition("\\midrule")[2].splitlines()[1 + number].split(" & ")
        page_scores = page.tables[0][1 + number]
        for place, column in enumerate(found.columns):
            verdict = told.get(column)
            assert cells(found)[number][column].mark == mark(verdict)
            assert lines[number][f"{column} verdict against best"] == word(verdict)
            assert page_scores[1 + place].split()[1:2] == ([mark(verdict)] if mark(verdict) else [])
            signs = {"▲": "blacktriangle$", "▼": "blacktriangledown$", "–": " --", "": ""}
            has = {sign for sign, name in signs.items() if name and name in tex_cells[1 + place]}
            assert has == {mark(verdict)} - {""}
        if not told:
            continue
        (line,) = [
            line
            for line in table.splitlines()
            if line.startswith(f"| {row.label.replace('|', chr(92) + '|')} ".replace("&", "&amp;"))
        ]
        shown = [text.strip().replace("&lt;", "<") for text in re.split(r"(?<!\\)\|", line)[2:-1]]
        assert shown == [compact(told[column]) for column in found.columns]
        page_row = next(texts for texts in page.tables[1] if texts[0] == row.label)
        for text, verdict in zip(page_row[1:], told.values(), strict=True):
            wanted = (
                f"{mark(verdict)} {difference(verdict)} {p_value(verdict.corrected)}".lstrip()
                if verdict.tested
                else "–  not tested"
            )
            assert text == wanted
        (line,) = [line for line in against_on_screen.splitlines() if line.startswith(f"{row.label} ")]
        assert all(compact(told[column]) in " ".join(line.split()) for column in main)
        for column, verdict in told.items():
            if verdict.tested:
                assert float(lines[number][f"{column} p against best"]) == verdict.corrected
                assert float(lines[number][f"{column} raw p against best"]) == verdict.p
    percent = found.measure == "accuracy"
    for text in (wide, markdown, tex):
        assert ("op-1 accuracy in" in text) == percent
        assert percent or found.measure in text
    assert accurate("test") in heading(found, accurate("test"))
    if found.measure == "neg-mse":
        assert "accuracy" not in "".join((wide, markdown, tex, to_csv(found))), "nothing is right or wrong"


@pytest.mark.parametrize("seed", range(8))
def test_every_form_of_a_run_says_the_same(seed: int, tmp_path: Path) -> None:
    found = report(seed)
    data = json.loads(json.dumps(found.to_json()))
    screen = on_screen(300, show_report, found, tmp_path, "safetensors", built_in=False)
    card = model_card(found, "", "safetensors").replace("&lt;", "<")
    assert tuple(Verdict.from_json(each) for each in data["verdicts"]) == found.verdicts
    details = screen.partition("Against the best single model (m1), by normal")[2].splitlines()
    heads = {name: (numbers, told) for name, numbers, told in ScoreTable(found).lines()}
    for verdict in found.verdicts:
        name = accurate(verdict.set) if verdict.extra else verdict.set
        _, told = heads[name]
        assert told[2] == verdict
        assert [mark(each) for each in told[:2]] == ["", "–"], "the reference, and a row that is not compared"
        if verdict.tested:
            shown = [f"{title(verdict)} {mark(verdict)} {difference(verdict)} {p_value(verdict.corrected)}".split()]
            assert [
                line.split()[: len(shown[0])] for line in details if line.split()[: len(shown[0])] in shown
            ] == shown
        assert sentence(verdict) in card
        table = screen.partition("held-out samples\n")[2].partition("Best of each line")[0]
        (line,) = [line for line in table.splitlines() if line.startswith(f"{name}  ")]
        wanted = f"{heads[name][0][2]} {mark(verdict)}".split()
        assert line.split()[-len(wanted) :] == wanted
        (line,) = [line for line in card.splitlines() if line.startswith("| greedy")]
        place = list(heads).index(name)
        assert line.split("|")[2 + place].split() == f"{heads[name][0][2]} {mark(verdict)}".split()
    assert MARKS["worse"] in screen
    for text in (screen, card):
        assert ("op-1 accuracy in %" in text) == (found.measure == "accuracy")
        assert found.measure != "neg-mse" or "accuracy" not in text
        assert "the best single model (m1)" in text


def test_names_of_sets_and_models_are_text_everywhere(tmp_path: Path) -> None:
    """What stands in a verdict is said as it is, and does nothing."""
    hostile = "[red]x[/] <b>&\x1b[31m|$_{}"
    found = benchmark(0)
    rows = tuple(
        replace(row, verdicts=tuple(replace(v, against=f"the best single model ({hostile})") for v in row.verdicts))
        for row in found.rows
    )
    found = replace(found, rows=rows)
    shown = showable(hostile)
    assert shown in on_screen(400, show_benchmark, found)
    assert "<b>&" not in to_html(found, {})
    assert "<b>&" not in to_markdown(found)
    assert r"\_" in to_latex(found)
    run = replace(report(0), best_single_name=hostile)
    run = replace(run, verdicts=tuple(replace(v, against=f"the best single model ({hostile})") for v in run.verdicts))
    assert shown in on_screen(400, show_report, run, tmp_path, "safetensors", built_in=False)
    assert "<b>&" not in model_card(run, "", "safetensors")
    for text in (
        on_screen(400, show_benchmark, found),
        to_html(found, {}),
        to_markdown(found),
        to_latex(found),
        to_csv(found),
        model_card(run, "", "safetensors"),
    ):
        assert "\x1b" not in text
