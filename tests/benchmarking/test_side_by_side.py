"""Several folders' results beside one another: what stands in one column, in one table, in none; and their searches."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import merging
from merging import Greedy, Layer, Learned, Uniform
from merging.benchmarking.finding import find
from merging.benchmarking.history import Kind, entries
from merging.benchmarking.published import read
from merging.benchmarking.published_table import as_benchmark
from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering import forms
from merging.benchmarking.rendering.documents import title, to_csv, to_markdown
from merging.benchmarking.rendering.tables import heading, main
from merging.benchmarking.results import SHIFTED, Benchmark
from merging.benchmarking.side_by_side import combine
from merging.errors import FolderError, RequirementError
from merging.plugins.progress import Silent
from merging.plugins.task import HELD_OUT, Task
from merging.testing import tiny_pool, tiny_task
from merging.testing.fixtures import blobs
from merging.values.verdict import Role

PUBLISHED = Path(__file__).parents[1] / "published"
EARLIER = Path(__file__).parents[1] / "values/reports"


def _tasks() -> dict[str, Task]:
    plain = tiny_task()
    far = {"test": blobs(80, seed=12)}
    fog = {**plain.tests, "fog": blobs(60, seed=7, shift=0.2)}
    return {
        "plain": plain,
        "other_held_out": replace(plain, held_out=blobs(100, seed=9)),
        "other_test": replace(plain, tests={**plain.tests, "test": blobs(90, seed=8)}),
        "more_shifts": replace(plain, tests=fog, shifts=("shifted", "fog")),
        "elsewhere": Task(name="elsewhere", build=plain.build, held_out=blobs(70, seed=11), tests=far),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on each of several tasks, by another objective, without a task, and of other models with the same names."""
    place = tmp_path_factory.mktemp("compared")
    pool, others = tiny_pool(place / "pool"), tiny_pool(place / "others", equal=True)
    for name, task in _tasks().items():
        merging.merge(pool, Greedy(), task=task, partitioner=Layer(), output=place / "runs" / name)
    plain = tiny_task()
    merging.merge(pool, Greedy(), task=plain, objective="nll", output=place / "runs/by_nll")
    merging.merge(pool, Uniform(), output=place / "runs/unscored")
    merging.merge(others, Uniform(), task=plain, output=place / "runs/deeper/other_models")
    merging.merge(pool, Learned(epochs=2), task=plain, partitioner=Layer(), output=place / "runs/learned")
    return place / "runs"


def _combined(runs: Path, *names: str) -> Benchmark:
    return combine({name: read_folder(runs / name) for name in names})


def test_other_held_out_samples_have_a_column_of_their_own(runs: Path) -> None:
    found, own = _combined(runs, "plain", "other_held_out"), read_folder(runs / "other_held_out")
    assert not found.apart, "the test set is the same"
    assert found.columns == (HELD_OUT, "held-out [other_held_out]", "test", "shifted", SHIFTED)
    assert found.samples[HELD_OUT] == 120
    assert found.samples["held-out [other_held_out]"] == 100
    row = next(row for row in found.rows if row.folders == ("other_held_out",))
    mine = next(other for other in own.rows if other.strategy == row.strategy)
    assert row.held_out is None
    assert row.value("held-out [other_held_out]") == mine.held_out
    assert row.value("test") == mine.value("test")
    assert main(found) == ["test", SHIFTED], "what chose the merges is no test set"
    assert any("held-out [other_held_out]: of other_held_out" in note for note in found.notes)
    uniform = [row for row in found.rows if row.strategy == "uniform"]
    assert [row.folders for row in uniform] == [("plain", "other_held_out")], "one model, once, with both scores"
    assert None not in (uniform[0].held_out, uniform[0].value("held-out [other_held_out]"))
    assert {single.held_out is not None for single in found.singles} == {True}
    assert all("held-out [other_held_out]" in single.tests for single in found.singles)


def test_one_name_for_other_samples_is_two_columns(runs: Path) -> None:
    found, own = _combined(runs, "plain", "other_test"), read_folder(runs / "other_test")
    assert found.sets == ("test", "shifted", "test [other_test]")
    for row in found.rows:
        here = row.value("test [other_test]")
        assert (here is not None) == ("other_test" in row.folders)
        told = row.verdict("best", "test [other_test]")
        assert told is None or told.role == Role.TEST
    best = next(row for row in found.rows if row.strategy == "best")
    assert best.value("test [other_test]") == own.rows[0].value("test")
    assert "test [other_test]" in to_csv(found).splitlines()[0]
    assert main(found) == ["test", "test [other_test]", SHIFTED]


def test_an_average_over_other_sets_is_another_column(runs: Path) -> None:
    found = _combined(runs, "plain", "more_shifts")
    assert found.averages == ("average of shifts [more_shifts]",)
    assert [heading(found, column) for column in main(found)] == ["test", "average", "average [more_shifts]"]
    both = next(row for row in found.rows if row.strategy == "uniform")
    assert both.shifted == both.tests["shifted"]
    assert both.value("average of shifts [more_shifts]") == pytest.approx(
        (both.tests["shifted"] + both.tests["fog"]) / 2, abs=1e-12
    )


def test_what_has_no_column_in_common_stands_apart(runs: Path) -> None:
    found = _combined(runs, "plain", "unscored", "elsewhere", "by_nll")
    assert (found.folders, found.why) == (("plain",), "")
    told = {part.folders: part.why for part in found.apart}
    assert list(told) == [("elsewhere",), ("by_nll",), ("unscored",)]
    assert told["elsewhere",] == "task elsewhere: no set in common with the tables above"
    assert told["by_nll",] == "another objective, nll: its scores are no accuracy"
    assert told["unscored",] == "merged without a task: there are no scores to compare"
    merged = found.apart[-1].rows[0]
    assert (merged.finished, merged.models, merged.held_out) == (False, 4, None)
    text = to_markdown(found)
    assert all(part.why in text for part in found.apart)
    again = Benchmark.from_json(json.loads(found.dumps()))
    assert again.dumps() == found.dumps()
    assert [part.folders for part in combine({"a": again, "b": read_folder(runs / "learned")}).apart] == [
        ("a (2)",),
        ("a (3)",),
        ("a (4)",),
    ], "an earlier comparison is taken apart again"


def test_models_of_one_name_are_told_apart_by_what_they_are(runs: Path) -> None:
    found = _combined(runs, "plain", "deeper/other_models")
    assert len(found.pool) == 8
    named = [single.name for single in found.singles]
    assert named == [f"model_{k}" for k in range(4)] + [f"model_{k} [deeper/other_models]" for k in range(4)]
    own = {single.name: single for single in read_folder(runs / "plain").singles}
    assert {single.name: single.tests for single in found.singles if single.name in own} == {
        name: single.tests for name, single in own.items()
    }
    row = next(row for row in found.rows if row.label == "uniform [deeper/other_models]")
    assert all(name.endswith("[deeper/other_models]") for name in row.ingredients)
    assert {verdict.against for verdict in row.verdicts} == {"the best single model (model_0 [deeper/other_models])"}, (
        "its own best single model"
    )


def test_files_without_fingerprints_are_compared_by_name_task_and_number(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "plain", tmp_path / "old")
    (tmp_path / "old/events.jsonl").unlink()
    old = read_folder(tmp_path / "old")
    assert "data" not in old.header
    assert len(combine({"a": read_folder(runs / "plain"), "old": old}).rows) == 3, "every model once"
    elsewhere = combine({"old": old, "b": replace(read_folder(runs / "learned"), task="others", header={})})
    assert len(elsewhere.apart) == 1
    assert "test [b]" in combine({"old": old, "b": replace(old, samples={**old.samples, "test": 91})}).sets, (
        "another number of samples"
    )


def test_published_results_are_a_table_like_others(runs: Path) -> None:
    files = [PUBLISHED / f"{name}_results.jsonl" for name in ("individual_model", "greedy_soup", "uniform_soup")]
    told = as_benchmark(read(files))
    found = combine({"plain": read_folder(runs / "plain"), "published": told})
    (part,) = found.apart
    greedy = next(row for row in part.rows if row.strategy == "greedy")
    assert greedy.tests["IN"] == pytest.approx(0.8103, abs=5e-4)
    assert part.shifts == ("IN-V2", "IN-R", "IN-Sketch", "ObjectNet", "IN-A")
    assert {verdict.why for verdict in greedy.verdicts} == {"published files have no single samples"}
    assert "| – |" in to_markdown(part), "nobody knows what they cost"
    assert Benchmark.from_json(json.loads(found.dumps())).dumps() == found.dumps()


def test_the_search_of_a_run_is_that_of_its_journal(runs: Path) -> None:
    """As a benchmark notes it, which watches each method."""
    pool, task = tiny_pool(runs.parent / "again"), tiny_task()
    watched = merging.benchmark(pool, [merging.Best(), Uniform(), Greedy()], task=task, partitioners=[Layer()])
    read = {row.strategy: row.trace for row in read_folder(runs / "plain").rows}
    assert {row.strategy: row.trace for row in watched.rows} == read
    learned = next(row for row in read_folder(runs / "learned").rows if row.strategy == "learned")
    assert learned.trace[-1][0] <= learned.forward_equivalents
    assert learned.trace[-1][1] == learned.evaluations


def test_a_journal_of_another_run_is_none(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "plain", tmp_path / "run")
    shutil.copy(runs / "learned/events.jsonl", tmp_path / "run")
    assert all(row.trace == () for row in read_folder(tmp_path / "run").rows)
    (tmp_path / "run/events.jsonl").write_bytes(b"no journal\n")
    assert all(row.trace == () for row in read_folder(tmp_path / "run").rows)


def test_a_run_is_called_by_its_strategy(runs: Path) -> None:
    assert title(read_folder(runs / "plain")).startswith("greedy on blobs: ")
    assert title(read_folder(runs / "unscored")) == "uniform, without a task: 4 of 4 models"
    assert title(_combined(runs, "plain", "learned")) == "2 folders compared on blobs: 4 methods, 4 models"


def test_folders_are_looked_into_as_deep_as_runs_are_listed(runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    shutil.copytree(runs, place)
    (place / "link").symlink_to(place / "plain")
    shutil.copytree(place / "learned", place / "plain" / "inner")
    (place / "learned" / "report.json").unlink()
    (place / "pool").mkdir()
    (place / "pool" / "finetune.json").write_text('{"sweep": {}}')
    found = find([place, place / "plain", tmp_path / "runs" / "deeper"])
    assert set(found.results) == {path.name for path in place.iterdir()} - {"link", "learned", "pool", "deeper"} | {
        "other_models"
    }
    cut = place / "learned"
    assert {Path(folder).name: why for folder, why in found.left_out.items()} == {
        "learned": f"the run in {cut} has no result yet; go on with it: merge run `resume={cut}`",
        "pool": "a fine-tuned pool, which is no merge",
        "inner": "it lies in the folder of another result; name it too",
    }
    assert list(find([place / "plain", place / "plain" / "inner"]).results) == ["plain", "inner"]
    assert set(find([place], 1).results) == set(found.results) - {"other_models"}
    (tmp_path / "empty").mkdir()
    for named, error, said in (
        ([place / "plain", place / "link"], RequirementError, "named twice"),
        ([tmp_path / "empty"], FolderError, "empty holds no finished run and no benchmark"),
        ([place / "learned"], FolderError, "has no result yet; go on with"),
        ([tmp_path / "emtpy"], FolderError, "there is no folder"),
    ):
        with pytest.raises(error, match=said):
            find(named)
    assert "holds no finished run" in next(iter(find([place / "plain", tmp_path / "empty"]).left_out.values()))


def test_what_was_written_of_results_is_no_result(runs: Path, tmp_path: Path) -> None:
    """Of a run also where its tables stand in its own folder; a benchmark is one without its evaluations."""
    place = tmp_path / "runs"
    shutil.copytree(runs / "plain", place / "run")
    run = merging.load_run(place / "run")
    forms.render(run, place / "shown")
    forms.render(run, place / "run")
    forms.render(_combined(runs, "plain", "learned"), place / "both")
    bench = Path(__file__).parents[2] / "docs/results/pacs/bench_0"
    shutil.copytree(bench, place / "bench")
    found = find([place])
    assert list(found.results) == ["bench", "run"]
    assert {Path(folder).name: why for folder, why in found.left_out.items()} == {
        "both": "it compares the results of other folders",
        "shown": "it shows a run that lies elsewhere",
    }
    assert read_folder(place / "run").run == "greedy"
    assert [entry.kind for entry in entries(place) if entry.folder.name == "run"] == [Kind.RUN]
    assert list(find([place / "both"]).results) == ["both"], "named itself, it is read"


class _Stops(Silent):
    """Is stopped after a picture."""

    def advance(self, steps: int = 1) -> None:
        raise KeyboardInterrupt


def test_a_rendering_that_is_stopped_leaves_nothing(runs: Path, tmp_path: Path) -> None:
    found = read_folder(runs / "plain")
    with pytest.raises(KeyboardInterrupt):
        forms.render(found, tmp_path / "new", _Stops())
    assert not (tmp_path / "new").exists()
    forms.render(read_folder(runs / "unscored"), tmp_path / "old")
    before = {path.name for path in (tmp_path / "old").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        forms.render(found, tmp_path / "old", _Stops())
    assert {path.name for path in (tmp_path / "old").iterdir()} == before
    assert Benchmark.read(tmp_path / "old").run == "uniform", "what was there stays"


def test_searches_in_another_precision_are_named(runs: Path) -> None:
    plain = read_folder(runs / "plain")
    brief = replace(plain, header={**plain.header, "numerics": {**plain.header["numerics"], "dtype": "bfloat16"}})
    found = combine({"brief": brief, "learned": read_folder(runs / "learned")})
    assert "searched in bf16, where the tables are in fp32: brief" in found.notes


@pytest.mark.parametrize("report", sorted(EARLIER.glob("*.json")), ids=lambda path: path.stem)
def test_reports_of_earlier_versions_stand_beside_todays(runs: Path, tmp_path: Path, report: Path) -> None:
    shutil.copy(report, tmp_path / "report.json")
    old = read_folder(tmp_path)
    found = combine({"old": old, "plain": read_folder(runs / "plain")})
    assert [part.folders for part in (found, *found.apart)] == [("old",), ("plain",)]
    assert combine({"one": old, "two": replace(old, singles=())}).rows[0].folders == ("one", "two")
