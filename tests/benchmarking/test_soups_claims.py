"""What may be claimed of pools, and what the page says where nothing may."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks.soups import page
from benchmarks.soups.cells import rounded
from benchmarks.soups.design import POOLS, planned, seeds
from benchmarks.soups.figures import drawn
from benchmarks.soups.pools import Pools, gathered
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, differences
from tests.benchmarking.pools_of_bits import (
    DIGEST,
    SAMPLES,
    failing,
    names,
    part,
    pool,
    row,
    said_of,
    tables,
)

AHEAD = {"affine": 0.03, "learned": 0.028}
EIGHT = names("pacs", 8)


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
    assert row(text, "`ensemble`")[5] == "**worse under shift**"
    assert row(text, "`learned`")[5] == "not shown"
    assert row(text, "`uniform`")[5:9:3] == ["**better under shift**", "not shown"]
    assert text.strip().splitlines()[2:4] == [
        "- **Under shift** `affine` is better than `best`, `uniform`, `greedy`, `greedy-random`, `manifoldmix`; "
        "worse than `ensemble`; not shown to be either against `learned`.",
        "- **At home** it is no worse than `best`, `greedy`, `greedy-random`, `manifoldmix`, `learned`, `ensemble`; "
        "not shown against `uniform`.",
    ]
    assert text.index("less each of the others") < text.index("mean ± standard deviation") < text.index("<details>")
    ranks = sorted(
        AGAINST, key=lambda name: ttest_1samp(differences(records, "affine", name, "average").values, 0.0).pvalue
    )
    for rank, name in enumerate(ranks):
        values = [record.shifted(record.methods[0]) - record.shifted(record.method(name)) for record in records]  # type: ignore[arg-type]
        low, high = ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / (7 - rank))
        cells = row(text, f"`{name}`")
        assert cells[2] == f"{100 * low:+.2f} to {100 * high:+.2f}"
        assert cells[1] == f"{100 * np.mean(values):+.2f}"
        for record, value in zip(records, values, strict=True):
            assert row(text, f"`{record.name}`")[1 + AGAINST.index(name)].startswith(f"{_signed(value)} (")
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
            [replace(pool(name, EIGHT, shift=AHEAD), protocol="f" * 64) for name in EIGHT],
            "The protocol has changed since",
        ),
        (
            [
                replace(pool(name, EIGHT, shift=AHEAD), shifts=("sketch", "photo")[: 2 - (name == "pacs-3")])
                for name in EIGHT
            ],
            "Pools of one kind with other shifted sets",
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
    ids=["few", "interim", "few-planned", "protocols", "plans", "changed", "sets", "unplanned", "strangers", "alike"],
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
        assert "than docs/results says now: `pacs-3`.**" in text
    if "lists" in said:
        assert "**Another list of planned pools** (7 pools, 8 in most records): pacs-3." in notes
    if "same models" in said:
        assert "**The same models**: pacs-0, pacs-7." in notes
    if "Interim" in said:
        assert f"**Missing pools** (confirmation, pacs, {8 - len(records)} of 8): " in notes


@pytest.mark.parametrize("other", [{"seed": 10101}, {"part": "further"}, {"seeds": {"pacs-art+cartoon-1": {}}}])
def test_a_pool_of_the_protocol_that_is_drawn_otherwise_supports_no_claim(other: dict[str, object]) -> None:
    plan = planned()[:12]
    records = [replace(pool(name, plan), seed=POOLS[name].seed, seeds=seeds()) for name in plan]
    assert made(*records).obstacles("pacs") == []
    records[0] = replace(records[0], **other)  # type: ignore[arg-type]
    pools = made(*records)
    assert "**Not drawn as the protocol says** (family, part or seeds): pacs-art+cartoon-1." in pools.notes()
    assert pools.obstacles("pacs")


def test_a_protocol_that_is_not_there_is_said() -> None:
    pools = Pools((pool("pacs-0", ["pacs-0"]),), None)
    assert "there is no docs/results/protocol.md" in pools.notes()[0]


def test_replication_and_other_families_stay_apart(results: Path) -> None:
    plan = [*names("cifar10-s", 4), *(f"pacs-replication-{number}" for number in range(6))]
    for name in plan:
        kind = "replication" if "replication" in name else "confirmation"
        pool(name, plan, shift=AHEAD, part=kind).write(results / "soups")
    confirmed, repeated = said_of(results, "confirmation"), said_of(results, "replication")
    assert "### pacs\n\nNo pool yet." in confirmed
    assert "4 pools: `cifar10-s-0` … `3`." in confirmed
    assert "**better under shift**" in confirmed
    assert "95 % t interval" in repeated
    assert not {"under shift", "Holm interval", "at home"} & {cell.strip() for cell in repeated.split("|")}
    assert {each.file for each in drawn(gathered(results / "soups", results / "protocol.md"))} == {
        "forest-cifar10.svg",
        "scatter-cifar10.svg",
        "coefficients-cifar10.svg",
        "forest-pacs-replication.svg",
        "scatter-pacs-replication.svg",
    }


def test_a_pool_that_is_missing_confirms_unless_the_protocol_says_otherwise() -> None:
    pools = made(pool("pacs-0", ["pacs-0", "pacs-1", "pacs-photo+art-1", "cifar10-1"]))
    assert pools.missing("pacs", "confirmation") == ["pacs-1"]
    assert pools.missing("pacs", "replication") == ["pacs-photo+art-1"]
    assert pools.missing("cifar10", "confirmation") == ["cifar10-1"]


def test_without_records_all_pools_of_the_protocol_are_missing(results: Path) -> None:
    told = "\n".join(page.made(results).notes)
    assert f"(confirmation, pacs, 12 of 12): {', '.join(name for name in planned()[:12])}." in told
    assert "(confirmation, cifar10, 6 of 6)" in told
    assert "(replication, pacs, 3 of 3)" in told
    assert "No pool yet of 6 planned." in said_of(results, "confirmation")


def test_a_pool_in_the_wrong_table_is_missing_in_the_right_one() -> None:
    name = planned()[0]
    assert made(pool(name, [name], part="replication")).missing("pacs", "confirmation") == [name]


def test_further_pools_stand_beside_the_claim(results: Path) -> None:
    for name in EIGHT[:6]:
        pool(name, EIGHT[:6], shift=AHEAD).write(results / "soups")
    before = said_of(results, "confirmation")
    assert "**better under shift**" in before
    assert "No pool was added" in said_of(results, "further")
    for name in EIGHT[6:]:
        pool(name, EIGHT[:6], shift={"best": 0.2}, part="further").write(results / "soups")
    assert said_of(results, "confirmation") == before
    assert "2 pools: `pacs-6`, `pacs-7`." in said_of(results, "further")
    assert "Every planned pool" in said_of(results, "missing")


def test_a_method_that_failed_stands_there_as_failed_and_has_a_pool_fewer(results: Path) -> None:
    records = [pool(name, EIGHT, shift=AHEAD) for name in EIGHT]
    records[2] = failing(failing(records[2], "greedy"), "best")
    for record in records:
        record.write(results / "soups")
    ran = tables(results)
    assert "Failed (best, greedy): pacs-2." in ran.output
    text = part(results, "confirmation")
    fewer = row(text, "`greedy` (7 pools; without `pacs-2`)")
    assert fewer[5] == "**better under shift**"
    values = [r.shifted(r.methods[0]) - r.shifted(r.methods[3]) for r in records if r.name != "pacs-2"]
    assert fewer[1] == f"{100 * np.mean(values):+.2f}"
    assert row(part(results, "pools"), "`greedy`", 2)[1] == "failed: a tensor has no numbers"
    for number in range(3):
        failing(records[number], "greedy").write(results / "soups")
    text = said_of(results, "confirmation")
    assert row(text, "`greedy` (5 pools; without `pacs-0`, `pacs-1`, `pacs-2`)")[5] == "no claim: too few pools (5)"
    assert "No claim against `greedy`." in text


def test_sets_of_few_images_are_left_out_of_an_exploratory_average(results: Path) -> None:
    sizes = {**SAMPLES, "photo": 70}
    records = [pool(name, names("cifar10", 4), samples=sizes) for name in names("cifar10", 4)]
    for record in records:
        record.write(results / "soups")
    text = said_of(results, "confirmation")
    assert "Exploratory: the same without the sets of few images, photo (70)." in text
    values = [
        record.accuracy(record.methods[0], "sketch") - record.accuracy(record.methods[1], "sketch")
        for record in records
    ]
    low, high = (100 * end for end in ttest_1samp(values, 0.0).confidence_interval(0.95))
    assert row(text, "`best`", 1)[1] == f"{100 * np.mean(values):+.2f} ({low:+.2f} to {high:+.2f})"


def test_a_family_may_have_a_page_of_its_own(results: Path) -> None:
    """What differs for it is a protocol too: its records hold that page's hash, the others' the common one's."""
    other = b"What differs for CIFAR-10.\n"
    (results / "protocol-cifar10.md").write_bytes(other)
    own = replace(pool("cifar10-1", ["cifar10-1"]), family="cifar10", protocol=hashlib.sha256(other).hexdigest())
    for record in (own, pool("pacs-1", ["cifar10-1"])):
        record.write(results / "soups")
    found = gathered(results / "soups", results / "protocol.md")
    assert not any("protocol**" in note for note in found.notes())
    pools = gathered(results / "soups", results / "protocol.md")
    assert "the protocol has changed since" not in pools.obstacles("cifar10")
    replace(own, protocol=DIGEST).write(results / "soups")
    pools = gathered(results / "soups", results / "protocol.md")
    assert "the protocol has changed since" in pools.obstacles("cifar10")
    found = gathered(results / "soups", results / "protocol.md")
    assert any(note.startswith("**Another protocol**") and "cifar10-1" in note for note in found.notes())
