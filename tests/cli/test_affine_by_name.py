"""A profile under its name, wherever a strategy's name is taken; and its own partitioner, where none is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Merge

FAST = ("-o", "strategy.steps=3")


def report(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "report.json").read_text())
    return found


@pytest.fixture
def pooled(tiny: list[str]) -> list[str]:
    """Flags of models and task alone."""
    return tiny[1:-2]


def test_a_run_and_its_going_on(merge: Merge, pooled: list[str]) -> None:
    ran = merge("run", *pooled, "--strategy", "affine", *FAST, "--output", "out")
    assert ran.code == 0, ran.err
    assert "learning: 3 steps of 120 samples, 9 forward-equivalents" in " ".join(ran.err.split())
    found = report("out")
    assert (found["strategy"], found["partitioner"], found["options"]["steps"]) == ("affine", "layer", 3)
    row = found["rows"][-1]
    assert (row["strategy"], row["label"]) == ("affine", "affine soup")
    assert row["coefficients"]["effective_models"] > 1
    assert "affine: coefficients 0.0" in " ".join(ran.out.split())
    card = Path("out/README.md").read_text()
    assert f"(affine soup: {row['evaluations']}, {row['forward_equivalents']:.0f} forward-equivalents)" in card
    assert "**affine**, partitioner layer" in card
    assert "- coefficients 0.0" in card
    header = json.loads(Path("out/events.jsonl").read_text().partition("\n")[0])
    assert header["strategy"]["name"] == "affine"
    again = merge("run", "--resume", "out", "--trust-code")
    assert again.code == 0, again.err
    assert report("out")["content_hash"] == found["content_hash"]
    assert merge("run", "--resume", "out", "--trust-code", "--partitioner", "whole").code == 2


def test_the_file_says_it(merge: Merge, pooled: list[str]) -> None:
    Path("merge.toml").write_text('[run]\nstrategy = "affine"\n[run.options]\nstrategy.steps = 2\n')
    ran = merge("run", *pooled, "--output", "out", "--no-baselines")
    assert ran.code == 0, ran.err
    assert (report("out")["strategy"], report("out")["options"]["steps"]) == ("affine", 2)


def test_a_dry_run_says_name_partition_and_options(merge: Merge, pooled: list[str]) -> None:
    ran = merge("run", *pooled, "--strategy", "affine", "--dry-run")
    shown = " ".join(ran.out.split())
    assert "strategy: affine (coefficients=affine" in shown
    assert "steps=140" in shown
    assert "partitioner: layer" in shown
    assert "partitioner: whole" in merge("run", *pooled, "--strategy", "learned", "--dry-run").out
    assert (
        "partitioner: whole" in merge("run", *pooled, "--strategy", "affine", "--partitioner", "whole", "--dry-run").out
    )
    base = ("--base", str(Path(pooled[1]).parent / "base.safetensors"))
    other = merge("run", *pooled, *base, "--strategy", "wise-ft", "-o", "strategy.inner=affine", "--dry-run")
    assert "partitioner: layer" in other.out


def test_a_dry_run_foresees_the_cost(merge: Merge, pooled: list[str]) -> None:
    ran = merge("run", *pooled, "--strategy", "affine", "--dry-run")
    shown = " ".join(ran.out.split())
    planned = json.loads(merge("run", *pooled, "--strategy", "affine", "--dry-run", "--json").out)["cost"]
    checked = json.loads(merge("check", *pooled, "--strategy", "affine", "--json").out)["cost"]
    assert planned == {name: checked[name] for name in ("evaluations", "passes", "complete")}
    assert planned["passes"] > 420, "140 steps over all samples, forward and backward"
    assert f"about {planned['passes']:.0f} passes over the held-out data" in shown
    without = merge("run", *pooled[:2], "--strategy", "uniform", "--dry-run")
    assert without.code == 0, without.err
    assert "cost" not in without.out


def test_a_check_foresees_the_cost(merge: Merge, pooled: list[str]) -> None:
    ran = merge("check", *pooled, "--strategy", "affine", "--json")
    assert ran.code == 0, ran.err
    cost = json.loads(ran.out)["cost"]
    assert cost["passes"] == pytest.approx(3 * 140 + cost["evaluations"], abs=2), "120 samples: a batch is all of them"


def test_a_benchmark_divides_each_method_its_own_way(merge: Merge, pooled: list[str]) -> None:
    words = ("benchmark", *pooled, "--strategies", "best,affine,x=affine,learned", "--no-singles", "--output", "b")
    options = ("-o", "affine.steps=3", "-o", "x.block=2", "-o", "x.steps=3", "-o", "learned.epochs=1")
    ran = merge(*words, *options)
    assert ran.code == 0, ran.err
    rows = {row["label"]: row for row in json.loads(Path("b/benchmark.json").read_text())["rows"]}
    told = {label: (row["strategy"], row["partitioner"]) for label, row in rows.items()}
    assert told == {
        "best": ("best", "whole"),
        "affine": ("affine", "layer"),
        "x": ("affine", "layer"),
        "learned": ("learned", "whole"),
    }
    said = "partitions: layer for affine, x; whole for the others"
    assert said in " ".join(ran.out.split())
    assert f"- {said}" in Path("b/benchmark.md").read_text()
    again = merge(*words, *options, "--partitioner", "layer,whole")
    assert "partitions:" not in again.out, "labels tell it"
    assert again.code == 0, again.err
    rows = [row["label"] for row in json.loads(Path("b/benchmark.json").read_text())["rows"]]
    assert {"affine (layer)", "affine (whole)"} <= set(rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategy", "afine"), "did you mean 'affine'?"),
        (("--strategy", "affine", "-o", "strategy.coefficients=convex"), "'coefficients' of 'affine' is 'convex'"),
        (("--strategy", "affine", "-o", "strategy.profile=learned"), "it is a profile itself; name 'learned'"),
        (("--strategy", "affine", "-o", "strategy.steps=9", "-o", "strategy.epochs=9"), "give one of them"),
        (("--strategy", "affine", "-o", "strategy.stepps=9"), "did you mean 'steps'?"),
    ],
)
def test_mistakes_are_one_line(merge: Merge, pooled: list[str], words: tuple[str, ...], said: str) -> None:
    ran = merge("run", *pooled, *words)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


def test_it_is_listed_and_described(merge: Merge) -> None:
    listed = json.loads(merge("list", "strategies", "--json").out)["strategy"]
    assert listed["affine"].startswith("coefficients per layer")
    told = json.loads(merge("describe", "affine", "--json").out)
    assert (told["name"], told["partitioner"]) == ("affine", "layer")
    defaults = {option["name"]: option["default"] for option in told["options"]}
    assert defaults == {"epochs": None, "batch": 128, "rate": None, "block": None, "steps": 140, "batch_most": 128}
    assert "Partitioner, where none is named: layer." in " ".join(merge("describe", "affine").out.split())
    assert json.loads(merge("describe", "learned", "--json").out)["partitioner"] == "whole"
    assert merge("new", "strategy", "affine").code == 2
