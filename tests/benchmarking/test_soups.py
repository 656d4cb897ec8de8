"""``python -m benchmarks.soups tables``: what the page says is what the records and the protocol say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import spearmanr, ttest_1samp

from benchmarks.soups import page
from benchmarks.soups.__main__ import main
from benchmarks.soups.cells import rounded
from benchmarks.soups.coefficients import mixed, reach
from benchmarks.soups.figures import drawn
from benchmarks.soups.pools import Pools
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, differences, within
from merging.values.statistics import paired
from tests.benchmarking.pools_of_bits import DIGEST, METHODS, PROTOCOL, names, pool

AHEAD = {"affine": 0.03, "learned": 0.028}
EIGHT = names("pacs", 8)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "soups").mkdir()
    (tmp_path / "protocol.md").write_bytes(PROTOCOL)
    parts = "\n\n".join(f"## {name}\n\n<!-- {name} -->\n<!-- end -->" for name in page.NAMES)
    (tmp_path / "soups.md").write_text(f"# Soups\n\nSaid by hand.\n\n{parts}\n\nThe end.\n")
    return tmp_path


def tables(results: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, ["tables", "--results", str(results), *flags])


def part(results: Path, name: str) -> str:
    return (results / "soups.md").read_text().partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]


def said_of(results: Path, name: str) -> str:
    """A part of the page, without a picture drawn or a file written."""
    return page.made(results).page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]


def row(text: str, first: str, number: int = 0) -> list[str]:
    """Cells of a row, of the first table that has it, or of a later one."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first} |")][number]
    return [cell.strip() for cell in found.strip("|").split("|")]


def made(*records: Record, protocol: str = DIGEST) -> Pools:
    return Pools(records, protocol)


def test_what_is_planted_is_found_and_nothing_else(results: Path) -> None:
    """Learned is as good as affine, uniform is worse at home: the words and the intervals at Holm's levels say so."""
    shift = {"affine": 0.03, "learned": 0.03, "ensemble": 0.06}
    records = [pool(name, EIGHT, shift=shift, home={"uniform": 0.03}) for name in EIGHT]
    for record in records:
        record.write(results / "soups")
    assert tables(results).output.splitlines()[-1] == f"wrote {results / 'soups.md'}"
    text = part(results, "confirmation")
    assert row(text, "`ensemble`", 1)[5] == "**worse under shift**"
    assert row(text, "`learned`", 1)[5] == "not shown"
    assert row(text, "`uniform`", 1)[5:9:3] == ["**better under shift**", "not shown"]
    assert "Worse under shift than `ensemble`. Under shift not shown against `learned`." in text
    assert "Better under shift than `best`, `uniform`, `greedy`, `greedy-random`, `manifoldmix`." in text
    assert "No worse at home than `best`, `greedy`, `greedy-random`, `manifoldmix`, `learned`, `ensemble`." in text
    ranks = sorted(
        AGAINST, key=lambda name: ttest_1samp(differences(records, "affine", name, "average").values, 0.0).pvalue
    )
    for rank, name in enumerate(ranks):
        values = [record.shifted(record.methods[0]) - record.shifted(record.method(name)) for record in records]  # type: ignore[arg-type]
        low, high = ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / (7 - rank))
        cells = row(text, f"`{name}`", 1)
        assert cells[2] == f"{100 * low:+.2f} to {100 * high:+.2f}"
        assert cells[1] == f"{100 * np.mean(values):+.2f}"
        assert cells[-2] == ", ".join(_signed(value) for value in values)
    assert part(results, "missing").strip() == "Every planned pool and method is there."
    assert "Said by hand." in (results / "soups.md").read_text()
    assert (results / "soups.md").read_text().endswith("\n\nThe end.\n")


def _signed(value: float) -> str:
    text = rounded(100 * value)
    return text if text.startswith("-") else f"+{text}"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [pool(name, EIGHT, shift=AHEAD) for name in EIGHT[:5]],
            "Interim: 5 of 8 pools; too few pools (5, at least 6)",
        ),
        ([pool(name, EIGHT, shift=AHEAD) for name in EIGHT[:7]], "Interim: 7 of 8 pools"),
        ([pool(name, EIGHT[:5], shift=AHEAD) for name in EIGHT[:5]], "Too few pools (5, at least 6)"),
        (
            [
                replace(pool(name, EIGHT, shift=AHEAD), protocol=DIGEST if name != "pacs-3" else "f" * 64)
                for name in EIGHT
            ],
            "Pools of different protocols",
        ),
        (
            [pool(name, EIGHT if name != "pacs-3" else EIGHT[:7], shift=AHEAD) for name in EIGHT],
            "Pools whose lists of planned pools differ",
        ),
        (
            [pool(name, EIGHT, shift=AHEAD) for name in [*EIGHT, "pacs-9"]],
            "Pools that were not planned: pacs-9",
        ),
        (
            [pool(name, [*EIGHT, "pasc-8"], shift=AHEAD) for name in EIGHT],
            "Planned pools of no known family: pasc-8",
        ),
        (
            [*(pool(name, EIGHT, shift=AHEAD) for name in EIGHT[:7]), replace(pool(EIGHT[0], EIGHT), name=EIGHT[7])],
            "Pools of the same models",
        ),
    ],
    ids=["few", "interim", "few-planned", "protocols", "plans", "unplanned", "strangers", "alike"],
)
def test_what_keeps_pools_from_a_claim_is_said(results: Path, records: list[Record], said: str) -> None:
    for record in records:
        record.write(results / "soups")
    found = page.made(results)
    notes, text = "\n".join(found.notes), said_of(results, "confirmation")
    assert f"**{said}: no claim.**" in text
    assert "under shift |" not in text
    assert "**better" not in text
    assert "no worse" not in text
    assert ("Holm interval |" in text) == (len(records) >= 6)
    if "different protocols" in said:
        assert "**Another protocol** (ffffffffffff; it is 35e03be56e9f now): pacs-3." in notes
        assert "docs/results/protocol.md as it is: `pacs-3`.**" in text
    if "lists" in said:
        assert "**Another list of planned pools** (7 pools, 8 in most records): pacs-3." in notes
    if "same models" in said:
        assert "**The same models**: pacs-0, pacs-7." in notes
    if "Interim" in said:
        assert f"**Missing pools** (confirmation, pacs, {8 - len(records)} of 8): " in notes


def test_a_protocol_that_is_not_there_is_said() -> None:
    pools = Pools((pool("pacs-0", ["pacs-0"]),), None)
    assert "there is no docs/results/protocol.md" in pools.notes()[0]


def test_replication_and_other_families_stay_apart(results: Path) -> None:
    plan = [*names("cifar10", 4), *(f"pacs-replication-{number}" for number in range(6))]
    for name in plan:
        kind = "replication" if "replication" in name else "confirmation"
        pool(name, plan, shift=AHEAD, part=kind).write(results / "soups")
    confirmed, repeated = said_of(results, "confirmation"), said_of(results, "replication")
    assert "### pacs\n\nNo pool yet." in confirmed
    assert "4 pools: `cifar10-0`, `cifar10-1`, `cifar10-2`, `cifar10-3`." in confirmed
    assert "**better under shift**" in confirmed
    assert "95 % t interval" in repeated
    assert not {"under shift", "Holm interval", "at home"} & {cell.strip() for cell in repeated.split("|")}
    assert {each.file for each in drawn(page.gathered(results / "soups", results / "protocol.md"))} == {
        "forest-cifar10.svg",
        "scatter-cifar10.svg",
        "coefficients-cifar10.svg",
        "forest-pacs-replication.svg",
        "scatter-pacs-replication.svg",
    }


def test_a_pool_that_is_missing_counts_as_confirming_unless_its_name_says_otherwise() -> None:
    pools = made(pool("pacs-0", ["pacs-0", "pacs-1", "pacs-photo+art-0", "pacs-replication-1", "cifar10-1"]))
    assert pools.missing("pacs", "confirmation") == ["pacs-1"]
    assert pools.missing("pacs", "replication") == ["pacs-photo+art-0", "pacs-replication-1"]
    assert pools.missing("cifar10", "confirmation") == ["cifar10-1"]


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
    replace(record, seed=2).write(results / "soups")
    stale = tables(results, "--check")
    assert stale.exit_code == 1
    assert str(results / "soups.md") in stale.output


def test_coefficients_are_measured_and_related_to_the_models(results: Path) -> None:
    assert reach(np.full((4, 3), 0.25)).distance == 0
    assert reach(np.full((4, 3), 0.25)).effective == pytest.approx(4)
    far = reach(np.array([[1.5, 1.0], [-0.5, 0.0]]))
    assert far.norm == pytest.approx(np.sqrt((2.5 + 1) / 2))
    assert far.distance == pytest.approx(np.sqrt((2 + 0.5) / 2))
    assert far.negative == 0.25
    assert far.effective == pytest.approx((4 / 2.5 + 1) / 2)
    record = pool("pacs-0", ["pacs-0"])
    known = mixed(record, record.methods[0])
    assert known is not None
    scores = [record.accuracy(model, "held-out") for model in record.models]
    record.write(results / "soups")
    text = said_of(results, "coefficients")
    assert row(text, "held-out accuracy")[2] == rounded(spearmanr(scores, known.values.mean(1)).statistic)
    column = known.values[:, 0]
    assert row(text, "stem")[1] == f"{-column[column < 0].sum():.2f}"


def test_models_that_a_merge_leaves_out_have_no_coefficient() -> None:
    record = pool("pacs-0", ["pacs-0"])
    only = {"ingredients": ["model_2", "base"], "components": ["all"], "values": [[0.75], [0.25]]}
    found = mixed(record, replace(record.methods[0], coefficients=only))
    assert found is not None
    assert found.models[-1] == "base"
    assert found.values[:, 0].tolist() == [0, 0, 0.75, 0, 0, 0, 0.25]


def test_exploratory_tables(results: Path) -> None:
    more = ["uniform-shrink", "uniform-monosoup", "learned-block"]
    records = [
        pool(name, EIGHT, shift={"uniform-monosoup": 0.02, "learned-block": 0.01}, methods=[*METHODS, *more])
        for name in EIGHT[:4]
    ]
    for record in records:
        record.write(results / "soups")
    folder = results / "soups" / "studies"
    folder.mkdir()
    rows = [{"pool": each, "samples": 225, "test": 0.8 + 0.02 * n, "cost": 70} for n, each in enumerate("ab")]
    study = {
        "format": "merging-soups-study/1",
        "study": "held-out samples",
        "by": ["samples"],
        "show": ["test", "cost"],
    }
    (folder / "samples.json").write_text(json.dumps({**study, "rows": rows}))
    values = differences(records, "uniform-monosoup", "uniform-shrink", "average")
    last = next(line for line in said_of(results, "edits").splitlines() if line.startswith("| `uniform` | monosoup |"))
    assert last.split(" | ")[-1].startswith(f"{100 * values.mean:+.2f} (")
    assert "learned-block" in said_of(results, "others")
    assert "uniform" not in said_of(results, "others")
    gaps = [
        record.accuracy(record.methods[1], "held-out") - record.accuracy(record.methods[1], "test")
        for record in records
    ]
    told = row(said_of(results, "optimism"), "`best`")[1]
    assert told == f"{100 * np.mean(gaps):.2f} ±{100 * np.std(gaps, ddof=1):.2f}"
    assert "| 225 | 2 | 81.00 ±1.41 | 70.0 |" in said_of(results, "studies")


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
    refused(f"{again} and {file} are both records of pacs-0")
    short = {**record.methods[0].correct, "test": "AAAA"}
    bad = replace(record, name="z", methods=(replace(record.methods[0], correct=short),))
    for content, said in (
        ("{}", "no record of a pool"),
        ("[", "Expecting value"),
        (json.dumps({"format": "merging-soups/1"}), "'models' is missing"),
        (_text(bad, results), "affine does not have 800 samples of test"),
        (_text(replace(record, name="z", part="proof"), results), "its part is 'proof'"),
        (_text(replace(record, name="z", methods=record.methods * 2), results), "twice"),
        (_text(replace(record, name="z", shifts=("rain",)), results), "lacks"),
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
