"""What lm-eval has logged goes through the tests that every score here gets; what cannot be paired is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from merging.errors import MergingError
from merging.harness import comparing, results
from merging.harness.comparing import Compared
from merging.harness.measures import AGGREGATIONS, scored
from merging.values.statistics import holm, mcnemar, paired, wilson
from merging.values.verdict import Family, PairedTest, Standing, word
from tests.conftest import Merge
from tests.harness.conftest import Write

DRAW = np.random.default_rng(0)
RIGHT = (DRAW.random(200) < 0.5).astype(float)
BETTER = np.where(DRAW.random(200) < 0.15, 1.0, RIGHT)
BETTER[:3] = 1 - RIGHT[:3]
LIKELY = -DRAW.random(60) * 40 - 5
COUNTS = DRAW.integers(5, 30, 60)


def pairs(likelihoods: np.ndarray) -> list[list[float]]:
    return [[float(one), int(other)] for one, other in zip(likelihoods, COUNTS, strict=True)]


def perplexity(likelihoods: np.ndarray) -> float:
    return math.exp(-likelihoods.sum() / COUNTS.sum())


def of(*folders: Path, **how: object) -> Compared:
    found = results.find(list(folders))
    return comparing.compared({name: results.read(file) for name, file in found.items()}, **how)  # type: ignore[arg-type]


def quiz(logged: Write, name: str, hits: np.ndarray, **changes: object) -> Path:
    return logged(name, {"quiz": {"acc": hits.tolist()}}, {"quiz": {"acc,none": float(hits.mean())}}, **changes)


def test_right_and_wrong_by_mcnemar(logged: Write) -> None:
    found = of(quiz(logged, "old", RIGHT), quiz(logged, "new", BETTER))
    (verdict,) = found.models[1].verdicts
    gained, lost = int((BETTER > RIGHT).sum()), int((BETTER < RIGHT).sum())
    assert (verdict.test, verdict.gained, verdict.lost) == (PairedTest.MCNEMAR, gained, lost)
    assert verdict.p == mcnemar(gained, lost, 200)[0]
    assert verdict.difference == pytest.approx(BETTER.mean() - RIGHT.mean())
    assert word(verdict) == Standing.BETTER
    assert found.models[0].intervals["quiz acc"] == wilson(float(RIGHT.mean()), 200)


def test_perplexities_are_ratios_of_sums_and_smaller_is_better(tmp_path: Path, logged: Write) -> None:
    for name, likelihoods in (("old", LIKELY), ("new", LIKELY * 0.9)):
        logged(
            name,
            {"prose": {"word_perplexity": pairs(likelihoods)}},
            {"prose": {"word_perplexity,none": perplexity(likelihoods)}},
            lower=["word_perplexity"],
            aggregations={"word_perplexity": "weighted_perplexity"},
        )
    found = of(tmp_path / "out/old", tmp_path / "out/new")
    (verdict,) = found.models[1].verdicts
    assert (verdict.test, verdict.lower) == (PairedTest.BOOTSTRAP, True)
    assert verdict.difference == pytest.approx(perplexity(LIKELY * 0.9) - perplexity(LIKELY))
    assert verdict.difference < 0
    assert verdict.better
    assert verdict.interval is not None
    assert verdict.interval[1] < 0
    again = type(verdict).from_json(json.loads(json.dumps(verdict.to_json())))
    assert (again.lower, again.better) == (True, True)


def test_every_aggregation_is_lm_evals(lm_eval: None) -> None:
    from lm_eval.api.registry import get_aggregation

    classes = [[int(a), int(b)] for a, b in DRAW.integers(0, 2, (50, 2))]
    three = [[int(a), int(b)] for a, b in DRAW.integers(0, 3, (50, 2))]
    chances = DRAW.dirichlet([1, 1, 1], 50).tolist()
    given = {
        "mean": [RIGHT.tolist(), LIKELY.tolist()],
        "median": [LIKELY.tolist(), LIKELY[:7].tolist()],
        "perplexity": [(LIKELY / 20).tolist()],
        "weighted_perplexity": [pairs(LIKELY)],
        "bits_per_byte": [pairs(LIKELY)],
        "brier_score": [[[int(DRAW.integers(3)), each] for each in chances]],
        "f1": [classes],
        "matthews_corrcoef": [classes, three],
    }
    assert given.keys() == AGGREGATIONS.keys()
    for name, cases in given.items():
        for values in cases:
            assert scored(name, AGGREGATIONS[name][0](values)) == pytest.approx(
                get_aggregation(name)(values), rel=1e-12
            ), name


def test_groups_and_what_is_in_them(tmp_path: Path, logged: Write) -> None:
    """A group of tasks of unequal size: by size, as lm-eval weighs them, or all alike."""
    old, new = RIGHT, BETTER
    for name, hits in (("old", old), ("new", new)):
        first, second = hits[:150], hits[150:]
        samples = {"one": {"acc": first.tolist()}, "two": {"acc": second.tolist()}}
        scores = {task: {"acc,none": float(np.mean(own["acc"]))} for task, own in samples.items()}
        for group, score in (("pooled", hits.mean()), ("alike", (first.mean() + second.mean()) / 2), ("odd", 0.123)):
            scores[group] = {"acc,none": float(score)}
        logged(name, samples, scores, groups={"pooled": ["one", "two"], "alike": ["one", "two"], "odd": ["one", "two"]})
    found = of(tmp_path / "out" / "old", tmp_path / "out" / "new")
    told = {verdict.set: verdict for verdict in found.models[1].verdicts}
    assert told["pooled acc"].gained == (new > old).sum()
    assert told["pooled acc"].p == paired([old], [new]).p_value
    assert told["alike acc"].p == paired([old[:150], old[150:]], [new[:150], new[150:]]).p_value
    assert "no mean of its tasks" in told["odd acc"].why
    assert [told[f"{task} acc"].family for task in ("pooled", "one")] == [Family.PRIMARY, Family.SECONDARY]
    single = [told[f"{task} acc"] for task in ("one", "two")]
    assert [verdict.corrected for verdict in single] == holm([verdict.p for verdict in single if verdict.p is not None])
    assert [(row.task, row.inside) for row in found.rows][:3] == [("pooled", 0), ("one", 1), ("two", 1)]


def test_all_metrics_are_one_family(tmp_path: Path, logged: Write) -> None:
    for name, hits, likelihoods in (("old", RIGHT, LIKELY), ("new", BETTER, LIKELY * 0.99)):
        logged(
            name,
            {"quiz": {"acc": hits.tolist()}, "prose": {"f": likelihoods.tolist()}},
            {"quiz": {"acc,none": float(hits.mean())}, "prose": {"f,none": float(likelihoods.mean())}},
        )
    verdicts = of(tmp_path / "out" / "old", tmp_path / "out" / "new").models[1].verdicts
    assert [verdict.corrected for verdict in verdicts] == holm([verdict.p or 0.0 for verdict in verdicts])
    assert [verdict.measure for verdict in verdicts] == ["accuracy", "f"]


def test_filters_are_told_apart(tmp_path: Path, logged: Write) -> None:
    scores = {"said": {"exact_match,strict": float(RIGHT.mean()), "exact_match,loose": float(RIGHT.mean())}}
    for name in ("old", "new"):
        logged(name, {"said": {"exact_match": RIGHT.tolist()}}, scores, filters=("strict", "loose"))
    found = of(tmp_path / "out", metrics=["exact_match"])
    assert [row.label for row in found.rows] == ["said exact_match (strict)", "said exact_match (loose)"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"versions": {"quiz": 2.0}}, "version 2 of the task, not 1"),
        ({"n-shot": {"quiz": 5}}, "5 examples before each sample, not 0"),
        ({"prompt": "chat"}, "other prompts, such as that of sample 0 (few-shot examples, description or chat"),
    ],
)
def test_what_cannot_be_paired_is_put_apart(logged: Write, changes: dict[str, object], why: str) -> None:
    found = of(quiz(logged, "old", RIGHT), quiz(logged, "new", BETTER, **changes))
    (verdict,) = found.models[1].verdicts
    assert not verdict.tested
    assert why in verdict.why
    assert found.models[1].scores["quiz acc"] == BETTER.mean()


def test_other_limits_are_put_apart(logged: Write) -> None:
    found = of(quiz(logged, "old", RIGHT), quiz(logged, "new", BETTER[:100]))
    assert found.models[1].verdicts[0].why == "100 samples, not 200 (limit)"


def test_an_aggregation_of_the_tasks_own_is_not_guessed(tmp_path: Path, logged: Write) -> None:
    for name in ("old", "new"):
        logged(
            name,
            {"quiz": {"odd": LIKELY.tolist()}},
            {"quiz": {"odd,none": 3.0}},
            aggregations={"odd": "def odd(items):\n    return 3\n"},
        )
    (verdict,) = of(tmp_path / "out").models[1].verdicts
    assert verdict.why == "the task's own aggregation is not computed of samples here"


def _cut(folder: Path) -> None:
    (path,) = folder.glob("samples_*")
    path.write_bytes(path.read_bytes()[:-20])


def _shortened(folder: Path) -> None:
    (path,) = folder.glob("samples_*")
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-3]), encoding="utf-8")


def _twice(folder: Path) -> None:
    (path,) = folder.glob("samples_*")
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")


def _unlogged(folder: Path) -> None:
    (path,) = folder.glob("samples_*")
    path.unlink()


def _older(folder: Path) -> None:
    (path,) = folder.glob("samples_*")
    path.write_text(path.read_text(encoding="utf-8").replace('"doc_hash"', '"hash"'), encoding="utf-8")


def _much_older(folder: Path) -> None:
    (path,) = folder.glob("results_*")
    path.write_text('{"results": {"quiz": {"acc,none": 0.5}}, "lm_eval_version": "0.4.1"}', encoding="utf-8")


def _something_else(folder: Path) -> None:
    (path,) = folder.glob("results_*")
    path.write_text("[1, 2]", encoding="utf-8")


def _of_another_run(folder: Path) -> None:
    (path,) = folder.glob("results_*")
    told = json.loads(path.read_text(encoding="utf-8"))
    told["results"]["quiz"]["acc,none"] = 0.25
    path.write_text(json.dumps(told), encoding="utf-8")


def _another_beside(folder: Path) -> None:
    (path,) = folder.glob("results_*")
    (folder / "results_2026-11-29T06-11-28.632834.json").write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, "line 200: is cut off"),
        (_shortened, "holds 197 of the 200 samples that the results count; it is cut off"),
        (_twice, "sample 0 stands there twice"),
        (_unlogged, "no samples were logged beside it (samples_….jsonl); run lm_eval again with its samples logged"),
        (
            _older,
            "has no 'doc_hash'; run lm_eval again with its samples logged (log_samples) and version 0.4.13 or later",
        ),
        (_much_older, "was written by lm-eval 0.4.1, which says no 'versions'; run lm_eval again"),
        (_something_else, "no results of lm-eval, or damaged"),
        (_of_another_run, "and the results beside it say 0.25; they are of two runs"),
        (_another_beside, "holds 2 results of lm-eval; name one of them: results_2026-11-28"),
    ],
)
def test_files_that_cannot_be_believed_are_one_line(merge: Merge, logged: Write, change: object, said: str) -> None:
    quiz(logged, "old", RIGHT)
    change(quiz(logged, "new", BETTER))  # type: ignore[operator]
    ran = merge("harness", "out")
    assert ran.code == 2
    assert said in ran.err.splitlines()[-1]
    assert len(ran.err.splitlines()[-1]) < 300


def test_one_of_several_results_can_be_named(logged: Write) -> None:
    folder = quiz(logged, "old", RIGHT)
    _another_beside(folder)
    (first, _) = sorted(folder.glob("results_*"))
    (samples,) = folder.glob("samples_*")
    assert [*results.find([first]).values()] == [*results.find([samples]).values()] == [first]
    with pytest.raises(MergingError, match="no results of lm-eval there"):
        results.find([folder / "nowhere"])


def test_the_terminal_and_json(merge: Merge, logged: Write) -> None:
    for name, hits, likelihoods in (("old", RIGHT, LIKELY), ("new", BETTER, LIKELY * 0.9), ("third", RIGHT, LIKELY)):
        logged(
            name,
            {"quiz": {"acc": hits.tolist()}, "prose": {"word_perplexity": pairs(likelihoods)}},
            {
                "quiz": {"acc,none": float(hits.mean())},
                "prose": {"word_perplexity,none": perplexity(likelihoods)},
            },
            lower=["word_perplexity"],
            aggregations={"word_perplexity": "weighted_perplexity"},
        )
    pair = merge("harness", "out/old", "out/new")
    assert pair.out.startswith("▲ new: better than old on ")
    assert f"{100 * RIGHT.mean():.2f}" in pair.out
    assert "prose word_perplexity ↓" in pair.out
    assert "▲ -" in pair.out
    several = merge("harness", "out/old", "out/new", "out/third").out
    assert "▲ better or ▼ worse than old" in several
    assert "Holm over 4 tests of tasks and" in several
    told = json.loads(merge("harness", "out", "--against", "third", "--metric", "acc", "--json").out)
    assert told["reference"] == "third"
    assert [row["name"] for row in told["measures"]] == ["quiz acc"]
    verdicts = {model["model"]: [verdict["verdict"] for verdict in model["verdicts"]] for model in told["models"]}
    assert verdicts == {"old": ["neither"], "new": ["better"], "third": []}
    assert merge("harness", "out/new", "out/old", "--fail-unless", "better").code == 3
    assert merge("harness", "out/old", "out/new", "--fail-unless", "better").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out", "--against", "od"], "unknown model 'od'; did you mean 'old'?"),
        (["out", "--metric", "ac"], "unknown metric 'ac'; did you mean 'acc'?"),
        (
            ["out", "--tasks", "quiz"],
            "--tasks is for models that are run, and all that is named are results of",
        ),
        (["out", "--limit", "3"], "--limit is for models that are run"),
        (["out", "--output", "new"], "--output is for models that are run"),
        (["out/odl"], "out/odl: neither a model nor results of lm-eval; did you mean 'out/old'?"),
        (
            ["org/name", "--tasks", "quiz"],
            "org/name is a model of the Hub, and nothing is fetched; --online",
        ),
        (["out", "--fail-unless", "better"], "--fail-unless compares one model with another"),
    ],
)
def test_slips_are_one_line(merge: Merge, logged: Write, words: list[str], said: str) -> None:
    quiz(logged, "old", RIGHT)
    ran = merge("harness", *words)
    assert ran.code == 2
    assert said in ran.err
