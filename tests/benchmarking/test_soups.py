"""``python -m benchmarks.soups tables``: what the page says is what the records and the protocol say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.soups.__main__ import main
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import within
from merging.values.statistics import paired
from tests.benchmarking.pools_of_bits import (
    names,
    pool,
    row,
    said_of,
    tables,
)

AHEAD = {"affine": 0.03, "learned": 0.028}
EIGHT = names("pacs", 8)


def test_each_pool_has_the_interval_of_its_own_samples(results: Path) -> None:
    record = pool("pacs-0", ["pacs-0"], shift=AHEAD)
    record.write(results / "soups")
    one, other = record.methods[0], record.methods[3]
    for sets, column in ((("test",), -2), (record.shifts, -1)):
        bits = [[record.correct(scored, each).astype(float) for each in sets] for scored in (other, one)]
        found = paired(*bits)
        assert within(record, one, other, *sets) == found
        low, high = (100 * end for end in found.interval)
        told = row(said_of(results, "pools"), "`greedy`")[column]
        assert told == f"{100 * found.difference:+.2f} ({low:+.2f} to {high:+.2f})"


def test_check_writes_nothing_and_sees_what_is_stale(results: Path) -> None:
    record = pool("pacs-0", ["pacs-0"])
    record.write(results / "soups")
    before = (results / "soups.md").read_text()
    assert tables(results, "--check").exit_code == 1
    assert (results / "soups.md").read_text() == before
    assert not list((results / "soups").glob("*.svg"))
    assert tables(results).exit_code == 0
    pictures = {file: file.read_bytes() for file in (results / "soups").glob("*.svg")}
    assert len(pictures) == 3
    assert tables(results, "--check").exit_code == 0
    assert "wrote" not in tables(results).output, "the same bits"
    svg = next(iter(pictures))
    svg.write_text(svg.read_text().replace("<!-- records: ", "<!-- records: 0"))
    assert str(svg) in tables(results, "--check").output
    svg.write_bytes(pictures[svg])
    replace(record, measured={}).write(results / "soups")
    stale = tables(results, "--check")
    assert stale.exit_code == 1
    assert str(results / "soups.md") in stale.output


def test_files_that_are_no_records_are_refused_in_a_line(results: Path) -> None:
    record = pool("pacs-0", ["pacs-0"])
    file = record.write(results / "soups")
    again = results / "soups" / "z.json"

    def refused(said: str) -> None:
        ran = tables(results)
        assert ran.exit_code == 2
        assert ran.output.startswith("Error: ")
        assert ran.output.count("\n") == 1
        assert said in ran.output

    again.write_bytes(file.read_bytes())
    refused("it is the record of pacs-0, whose file is pacs-0.json")
    short = {**record.methods[0].correct, "test": "AAAA"}
    bad = replace(record, name="z", methods=(replace(record.methods[0], correct=short),))
    for content, said in (
        ("{}", "no record of a pool"),
        ("[", "Expecting value"),
        (json.dumps({"format": "merging-soups/1"}), "'models' is missing"),
        (_text(bad, results), "affine does not have 800 samples of test"),
        (_text(replace(record, name="z", methods=(replace(record.methods[0], correct={}),)), results), "affine has no"),
        (_text(replace(record, name="z", part="proof"), results), "its part is 'proof'"),
        (_text(replace(record, name="z", methods=record.methods * 2), results), "twice"),
        (_text(replace(record, name="z", shifts=("rain",)), results), "lacks"),
        (_text(replace(record, seed=2), results), "it is the record of pacs-0, whose file is pacs-0.json"),
        (_text(replace(record, name="z", seeds={}), results), "its seeds are not those of its planned pools"),
        (
            _text(replace(record, name="z", planned=("z",), seeds={"z": {"seed": 7, "split": 0}}), results),
            "its seed is 1, but 7 in its list of pools",
        ),
        (
            _text(replace(record, name="z", models=(replace(record.models[2], facts={"seed": 9}),)), results),
            "model_2 was trained with seed 9, not 1 + 2",
        ),
    ):
        again.write_text(content)
        refused(said)
    again.unlink()
    (results / "soups" / "studies").mkdir()
    (results / "soups" / "studies" / "s.json").write_text('{"format": "merging-soups-study/1", "study": "s"}')
    refused("'rows' is missing")


def _text(record: Record, results: Path) -> str:
    return record.write(results / "elsewhere").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<!-- costs -->", "<!-- cost -->", "no part is called cost; did you mean costs?"),
        ("<!-- costs -->\n<!-- end -->", "", "lacks the part costs"),
        ("<!-- costs -->\n<!-- end -->", "<!-- costs -->", "begins before <!-- end --> of costs"),
        ("<!-- costs -->", "", "<!-- end --> ends no part"),
        ("<!-- costs -->\n<!-- end -->", "<!-- pools -->\n<!-- end -->", "the part pools is there twice"),
        ("<!-- studies -->\n<!-- end -->", "<!-- studies -->", "the part studies has no <!-- end -->"),
    ],
)
def test_markers_that_are_wrong_are_refused_in_a_line(results: Path, old: str, new: str, said: str) -> None:
    file = results / "soups.md"
    file.write_text(file.read_text().replace(old, new))
    ran = tables(results)
    assert ran.exit_code == 2
    assert said in ran.output
    assert ran.output.count("\n") == 1


def test_the_page_is_what_the_committed_records_say() -> None:
    ran = CliRunner().invoke(main, ["tables", "--check"])
    assert ran.exit_code == 0, ran.output
