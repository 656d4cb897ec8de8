"""Files of earlier releases are read to the same values, and a format does not change unnoticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import merging
from merging.benchmarking.history import entries
from merging.errors import MergingError
from merging.storage.content import content_hash
from merging.values.answer import answer
from tests.conftest import Merge
from tests.golden.kinds import of_kind
from tests.golden.making import HERE, SEARCHED, STRATEGY, _of_report, _told, fields_of, how, make

RELEASES = sorted(path.name for path in HERE.iterdir() if (path / "expected.json").is_file())
NEWEST = max(RELEASES, key=lambda name: tuple(map(int, name.split("."))))
PROMISED = {
    "recipe": "run/recipe.json",
    "report": "run/report.json",
    "journal": "run/events.jsonl",
    "ensemble": "ensemble/ensemble.json",
    "benchmark": "benchmark/benchmark.json",
}


@pytest.fixture(params=RELEASES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a release's files."""
    return Path(shutil.copytree(HERE / request.param, tmp_path / "golden"))


def expected(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return told


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def models(folder: Path) -> list[Path]:
    return sorted((folder / "pool").glob("model_*.safetensors"))


def test_reports_and_verdicts(golden: Path) -> None:
    told = expected(golden)
    run = merging.load_run(golden / "run")
    assert as_json(_of_report(run.report)) == told["run"]
    assert content_hash(load_file(golden / "run" / "model.safetensors")) == told["run"]["hash"]
    weights = merging.load_run(golden / "weights")
    assert weights.report.content_hash == told["weights"]["hash"]
    assert [each.name for each in weights.merge.ingredients] == told["weights"]["ingredients"]
    ensemble = merging.load_run(golden / "ensemble")
    assert as_json(_told(ensemble.report.verdicts)) == told["ensemble"]["verdicts"]
    assert [recipe.names[0] for recipe in ensemble.merge.members] == told["ensemble"]["members"]


def test_a_recipe_gives_the_same_bits(golden: Path, merge: Merge) -> None:
    ran = merge("apply", golden / "run" / "recipe.json", *models(golden), "--output", "again.safetensors", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["content_hash"] == expected(golden)["run"]["hash"]
    assert Path("again.safetensors").read_bytes() == (golden / "run" / "model.safetensors").read_bytes()


def test_recipes_and_reports_that_hold_more(golden: Path, merge: Merge) -> None:
    """Measured tensors, several dtypes and vocabularies, adapters, workers, a certificate."""
    told = expected(golden)["kinds"]
    assert sorted(path.name for path in (golden / "kinds").iterdir()) == sorted(told)
    for name, wanted in told.items():
        run, pool = golden / "kinds" / name / "merged", golden / "kinds" / name / "pool"
        assert as_json(of_kind(merging.load_run(run))) == wanted
        given = [path for path in sorted(pool.iterdir()) if path.stem != "base"]
        ran = merge("apply", run, *given, "--output", f"{name}.safetensors", "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["content_hash"] == wanted["hash"]
        assert Path(f"{name}.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_benchmark(golden: Path) -> None:
    read = merging.Benchmark.read(golden / "benchmark")
    rows = {row.label: [row.held_out, dict(row.tests), _told(row.verdicts)] for row in read.rows}
    assert as_json(rows) == expected(golden)["benchmark"]


def test_the_commands_that_read_them(golden: Path, merge: Merge) -> None:
    ran = merge("runs", golden, "--json")
    assert ran.code == 0, ran.err
    listed = {Path(entry["folder"]).name: entry for entry in json.loads(ran.out)}
    assert {name: entry["state"] for name, entry in listed.items()} == {
        "run": "finished",
        "weights": "finished",
        "ensemble": "finished",
        "benchmark": "finished",
        "killed": "cut off",
        "merged": "finished",
    }
    ran = merge("report", golden / "run", golden / "benchmark")
    assert ran.code == 0, ran.err


def test_a_journal_is_gone_on_with_by_the_same_versions(tmp_path: Path) -> None:
    """By others it is refused; whoever has the versions of then has the decisions of then."""
    golden = Path(shutil.copytree(HERE / NEWEST, tmp_path / "golden"))
    journal = golden / "killed" / "events.jsonl"
    first, rest = journal.read_text(encoding="utf-8").split("\n", 1)
    header = json.loads(first)
    told = how(base=golden / "pool" / "base.safetensors", output=golden / "killed", resume=True, **SEARCHED)
    header["versions"]["merging"] = "0.0.1"
    journal.write_text(json.dumps(header) + "\n" + rest, encoding="utf-8")
    with pytest.raises(MergingError, match=r"cannot be resumed: versions was .*0\.0\.1"):
        merging.merge(models(golden), STRATEGY, **told)
    now = today(tmp_path)
    header |= {name: now[name] for name in ("versions", "numerics")}
    journal.write_text(json.dumps(header) + "\n" + rest, encoding="utf-8")
    found = merging.merge(models(golden), STRATEGY, **told)
    assert found.report.content_hash == expected(golden)["run"]["hash"]
    assert found.report.evaluations == expected(golden)["run"]["evaluations"]
    assert journal.read_text(encoding="utf-8").split("\n", 1)[1].startswith(rest.rpartition("\n")[0])


def today(folder: Path) -> dict[str, Any]:
    """The first line of a journal that is written now."""
    merging.merge(models(folder / "golden"), "best", output=folder / "now", **how(tests=False))
    found: dict[str, Any] = json.loads((folder / "now" / "events.jsonl").read_text(encoding="utf-8").split("\n", 1)[0])
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this version writes."""
    folder = tmp_path_factory.mktemp("now")
    make(folder)
    return folder


def test_no_field_is_lost_or_added_unnoticed(written: Path) -> None:
    """A field that goes or changes its type needs a new number of the format; a new one, new golden files."""
    now, way = fields_of(written), "; docs/formats.md says what to do"
    for release in RELEASES:
        for path, then in fields_of(HERE / release).items():
            kept = {field.partition(":")[0] for field in now[path]} if path in now else set()
            same = format_of(HERE / release / path) == format_of(written / path)
            lost = [field for field in then if field.partition(":")[0] not in kept]
            assert not (same and lost), f"{path} has lost {lost} since {release}, and its format is the same{way}"
    newest = fields_of(HERE / NEWEST)
    added = {path: sorted(set(now[path]) - set(newest.get(path, []))) for path in now}
    added = {path: new for path, new in added.items() if new}
    assert not added, f"these fields are new since tests/golden/{NEWEST}: {added}{way}"


def format_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return str(json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)["format"])


def _first(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a file's JSON, of a journal its first line."""
    text = path.read_text(encoding="utf-8")
    head, rest = text.split("\n", 1) if path.suffix == ".jsonl" else (text, "")
    value = json.loads(head)
    change(value)
    path.write_text(json.dumps(value) + "\n" + rest, encoding="utf-8")


def _read(golden: Path, kind: str) -> Any:
    """Reads a file of a kind, as commands do."""
    return {
        "recipe": lambda: merging.load_run(golden / "run"),
        "report": lambda: merging.load_run(golden / "run"),
        "journal": lambda: merging.merge(
            models(golden),
            STRATEGY,
            base=golden / "pool" / "base.safetensors",
            output=golden / "run",
            resume=True,
            **how(**SEARCHED),
        ),
        "ensemble": lambda: merging.load_run(golden / "ensemble"),
        "benchmark": lambda: merging.Benchmark.read(golden / "benchmark"),
    }[kind]()


@pytest.mark.parametrize("kind", PROMISED)
def test_a_newer_format_is_refused_by_one_line(kind: str, tmp_path: Path) -> None:
    golden = Path(shutil.copytree(HERE / NEWEST, tmp_path / "golden"))
    name, _, number = format_of(golden / PROMISED[kind]).partition("/")
    newer = f"{name}/{int(number) + 1}"
    _first(golden / PROMISED[kind], lambda data: data.update(format=newer))
    with pytest.raises(MergingError) as caught:
        _read(golden, kind)
    said = str(caught.value)
    assert f"its format {newer} is newer than {name}/{number}, which this version of merging reads" in said
    assert Path(PROMISED[kind]).name in said
    assert "damaged" not in said
    assert len(said.replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize("name", ["run/report.json", "benchmark/benchmark.json", "killed/events.jsonl"])
def test_commands_refuse_a_newer_format(name: str, tmp_path: Path, merge: Merge) -> None:
    """And call no file damaged that only has to wait for its reader."""
    golden = Path(shutil.copytree(HERE / NEWEST, tmp_path / "golden"))
    kind, _, number = format_of(golden / name).partition("/")
    _first(golden / name, lambda data: data.update(format=f"{kind}/{int(number) + 1}"))
    ran = merge("report", Path("golden") / Path(name).parent)
    reads = f"its format {kind}/{int(number) + 1} is newer than {kind}/{number}, which this version of merging reads"
    assert (ran.code, ran.err) == (2, f"error: golden/{name}: {reads}; pip install -U merging\n")
    ran = merge("runs", "golden", "--json")
    listed = {Path(entry["folder"]).name: (entry["state"], entry["status"]) for entry in json.loads(ran.out)}
    assert listed[Path(name).parent.name] == ("newer", f"{Path(name).name}: {reads}; pip install -U merging")
    assert "damaged" not in merge("runs", "golden").out


WRONG = {
    "run/report.json": [
        ("leaderboard", 0, "trained"),
        ("rows", 0, "tests", "shifted"),
        ("rows", 0, "seconds"),
        ("rows", 1, "ingredients", 1),
        ("verdicts", 1, "p"),
        ("verdicts", 1, "lost"),
        ("top_single",),
        ("verdicts", 0, "interval", 0),
        ("pool", 0),
        ("options",),
    ],
    "benchmark/benchmark.json": [
        ("rows", 1, "intervals", "held-out", 0),
        ("rows", 0, "evaluations"),
        ("rows", 0, "accuracies"),
        ("rows", 1, "tests", "test"),
        ("rows", 0, "verdicts", 1, "tests"),
        ("rows", 1, "verdicts", 1, "reference"),
        ("rows", 3, "coefficients", "values", 0),
        ("singles", 0, "tests", "shifted"),
        ("samples", "shifted"),
        ("pool",),
    ],
}
"""File → fields, by their way through it, that hold something else."""


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in WRONG.items() for way in ways])
def test_values_of_other_types_are_damage(name: str, way: tuple[Any, ...], tmp_path: Path, merge: Merge) -> None:
    Path(shutil.copytree(HERE / NEWEST / Path(name).parent, tmp_path / Path(name).parent))
    for wrong in ([[float("nan")]], True, float("nan")):
        value = json.loads((HERE / NEWEST / name).read_text(encoding="utf-8"))
        within = value
        for step in way[:-1]:
            within = within[step]
        within[way[-1]] = wrong
        Path(name).write_text(json.dumps(value), encoding="utf-8")
        ran = merge("report", Path(name).parent)
        assert ran.code == 2, ran.err
        assert ran.err.startswith(f"error: {name} is damaged: ")
        assert ran.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["recipe", "report", "ensemble", "benchmark"])
def test_fields_that_are_not_known_are_passed_over(kind: str, tmp_path: Path) -> None:
    golden = Path(shutil.copytree(HERE / NEWEST, tmp_path / "golden"))
    before = _values(_read(golden, kind))
    _first(golden / PROMISED[kind], _grow)
    assert _values(_read(golden, kind)) == before


def _values(read: merging.SavedRun | merging.Benchmark) -> Any:
    """Everything that was read."""
    if isinstance(read, merging.Benchmark):
        return read.to_json()
    merged = read.merge
    recipes = merged.members if isinstance(merged, merging.Ensemble) else [merged]
    return read.report.to_json(), [recipe.to_json() for recipe in recipes if isinstance(recipe, merging.Recipe)]


def _grow(value: Any) -> None:
    """A new field in every object that has fields of its own (others map names of sets, models or options)."""
    free = ["tests", "options", "samples", "versions", "numerics", "accuracies", "intervals", "spread", "header"]
    free += ["decisions", "overrides", "trained", "dtypes", "left_out", "validation"]
    for name, inner in list(value.items()):
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict) and name not in free:
                _grow(each)
    value["of_a_later_version"] = {"x": [1]}


def test_entries_stand_as_they_stood(golden: Path) -> None:
    """The list of runs tells the standing that the report has told."""
    told = expected(golden)["run"]["standing"]
    (entry,) = [entry for entry in entries(golden) if entry.folder.name == "run"]
    assert str(entry.standing) == told
    assert str(answer(merging.load_run(golden / "run").report).standing) == told
