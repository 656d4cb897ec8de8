"""``merge runs``: what lies below a folder, whatever state it is in; and ``merge report`` of a folder of runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from merging.benchmarking.history import POOL, entries
from merging.benchmarking.rendering.answer import answer as answer_of
from merging.benchmarking.results import Benchmark
from merging.cli.main import cli
from merging.values.answer import answer
from merging.values.earlier import report_from
from merging.values.verdict import counted
from tests.conftest import ENVIRONMENT, Merge


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A folder with two runs, the greedy one the older of them."""
    folder = tmp_path_factory.mktemp("finished") / "runs"
    for age, strategy in enumerate(("uniform", "greedy")):
        place = folder / strategy
        cli.main([*tiny, "--strategy", strategy, "--output", str(place), "--json"], standalone_mode=False)
        os.utime(place / "report.json", (1.7e9 - age, 1.7e9 - age))
    return folder


@pytest.fixture
def runs(merge: Merge, finished: Path) -> Path:
    """A copy of that folder, in the working folder."""
    shutil.copytree(finished, "runs")
    return Path("runs")


def _listed(merge: Merge, *arguments: str | Path) -> dict[str, dict[str, Any]]:
    ran = merge("runs", *arguments, "--json")
    assert ran.code == 0, ran.err
    return {Path(entry["folder"]).name: entry for entry in json.loads(ran.out)}


def test_scores_are_those_of_the_reports(merge: Merge, runs: Path) -> None:
    found = _listed(merge)
    assert list(found) == ["uniform", "greedy"], "the newest first"
    report = json.loads((runs / "uniform" / "report.json").read_bytes())
    told, test = found["uniform"], report["tests"]["test"]
    assert told["state"] == "finished"
    assert (told["strategy"], told["task"]) == (report["strategy"], report["task"])
    assert (told["models"], told["pool"]) == (len(report["ingredients"]), len(report["pool"]))
    assert told["held_out"] == report["validation"]["merged"]
    assert told["test"] == test["merged"]
    assert told["difference"] == pytest.approx(test["merged"] - test["best_single"])
    assert told["best_single"] == report["best_single"]
    whole = report_from(report)
    assert told["verdict"] == answer(whole).standing
    assert told["gained"] == [verdict.set for verdict in counted(whole.verdicts) if verdict.better]


def _stand(path: Path, strategy: str, **differences: float) -> None:
    """Rewrites a result: its strategy is tested on these sets, and differs by so much there; 0: level."""
    data = json.loads(path.read_bytes())
    (own,) = [data] if "verdicts" in data else [row for row in data["rows"] if row["label"] == strategy]
    test = next(verdict for verdict in own["verdicts"] if verdict["reference"] == "best")
    roles = {"test": ("test", "primary"), "held-out": ("held-out", "selection")}
    own["verdicts"] = []
    for name, difference in differences.items():
        name = name.replace("_", "-")
        role, family = roles.get(name, ("average of shifts", "primary"))
        p = 0.001 if difference else 0.8
        told = {"set": name, "role": role, "family": family, "difference": difference, "p": p, "corrected": p}
        bounds = [difference - 0.01, difference + 0.01]
        own["verdicts"].append(test | told | {"test": "normal", "interval": bounds, "level": 0.95, "tests": 1})
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("differences", "mark", "word"),
    [
        ({"test": 0.04, "shifted": -0.03}, "▲▼", "worse"),
        ({"test": 0.0, "shifted": -0.03}, "▼", "worse"),
        ({"test": 0.04, "shifted": 0.0}, "▲", "better"),
        ({"test": 0.0, "shifted": 0.0}, "", "neither"),
        ({"held_out": 0.04}, "–", "not tested"),
        ({"held_out": -0.04}, "▼", "worse"),
    ],
)
def test_what_is_lost_elsewhere_is_told(
    merge: Merge, runs: Path, differences: dict[str, float], mark: str, word: str
) -> None:
    report = runs / "uniform" / "report.json"
    _stand(report, "uniform", **differences)
    told = _listed(merge)["uniform"]
    assert told["verdict"] == word == answer(report_from(json.loads(report.read_bytes()))).standing
    assert told["lost"] == [name.replace("_", "-") for name, each in differences.items() if each < 0]
    assert told["gained"] == [name for name, each in differences.items() if each > 0 and name != "held_out"]
    line = next(line for line in merge("runs").out.splitlines() if "uniform" in line)
    assert re.search(r"[▲▼–]*(?= *[-+]\d+\.\d+$)", line)[0] == mark  # type: ignore[index]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_it_fits_any_screen(merge: Merge, runs: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """No number is cut, no two folders get one name, wide characters take two cells, and no line ends with spaces."""
    for name in ("with-a-long-name-and-more-of-it", "with-a-long-name-and-more-of-at", "日本語のモデル名はとても長い"):
        shutil.copytree(runs / "greedy", runs / f"20261126-140210-greedy-{name}")
    monkeypatch.setenv("COLUMNS", str(width))
    shown = merge("runs").out
    assert max(map(cell_len, shown.splitlines())) <= width
    assert shown.splitlines() == [line.rstrip() for line in shown.splitlines()]
    assert all(text in " ".join(shown.split()) for text in ("held-out", "vs best", "Task blobs"))
    report = json.loads((runs / "greedy" / "report.json").read_bytes())
    score = f"{100 * report['validation']['merged']:.2f}"
    rows = [line for line in shown.splitlines() if re.search(rf" {score} +\d", line)]
    assert len({row.split()[0] for row in rows}) == len(rows) >= 4
    names = {row.split()[0] for row in rows if not row.startswith("  ")}
    whole = {entry.name for entry in runs.iterdir()}
    assert all("…" in name or name in whole for name in names), "folded, not broken"


def test_unfinished_and_damaged_ones_are_told(merge: Merge, runs: Path) -> None:
    shutil.copytree(runs / "greedy", runs / "damaged")
    (runs / "damaged" / "report.json").write_text('{"strategy": ')
    shutil.copytree(runs / "greedy", runs / "cut")
    (runs / "cut" / "report.json").unlink()
    for name, status in (("stopped", "interrupted"), ("limit", "--max-evaluations 5 reached")):
        shutil.copytree(runs / "greedy", runs / name)
        report = json.loads((runs / name / "report.json").read_bytes()) | {"status": status}
        (runs / name / "report.json").write_text(json.dumps(report))
    (runs / "cut2").mkdir()
    (runs / "cut2" / "events.jsonl").write_text('{"event":"ru')
    (runs / "odd").mkdir()
    (runs / "odd" / "report.json").write_text('["of another program"]')
    found = _listed(merge, "runs")
    states = {name: entry["state"] for name, entry in found.items()}
    assert states == {
        "uniform": "finished",
        "greedy": "finished",
        "damaged": "damaged",
        "cut": "cut off",
        "cut2": "cut off",
        "stopped": "interrupted",
        "limit": "limit",
    }
    assert found["cut"]["strategy"] == "greedy"
    shown = merge("runs", "runs")
    assert "merge run --resume runs/stopped" in shown.out
    assert "--resume runs/limit --max-evaluations MORE" in shown.out
    assert "runs/damaged: report.json is damaged" in shown.out


@pytest.mark.parametrize("name", ["report.json", "events.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b"{}", b'{"strategy": 1, "status": 2, "pool": 3}', b"\xff\n"]
)
def test_no_content_of_a_record_is_a_traceback(merge: Merge, name: str, content: bytes) -> None:
    Path("here").mkdir()
    Path("here", "events.jsonl").write_bytes(b"{}\n")
    Path("here", name).write_bytes(content)
    ran = merge("runs", "here")
    assert ran.code == 0, ran.err
    assert "here" in ran.out


def test_one_that_runs_is_told(merge: Merge, runs: Path) -> None:
    with open(runs / "greedy" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _listed(merge)["greedy"]["state"] == "running"
        assert "running" in merge("runs").out
    assert _listed(merge)["greedy"]["state"] == "finished"


def test_benchmarks_and_pools_are_listed(merge: Merge, tiny: list[str]) -> None:
    flags = ["benchmark", *tiny[1:], "--strategies", "best,uniform,greedy", "--output", "bench"]
    assert merge(*flags).code == 0
    Path("pool").mkdir()
    Path("pool", POOL).write_text(json.dumps({"sweep": {}, "task": "tiny", "regime": {"name": "independent"}}))
    for index, score in enumerate((0.5, 0.75)):
        Path("pool", f"model_{index:02d}.json").write_text(json.dumps({"held_out": score}))
    found = _listed(merge)
    assert (found["bench"]["kind"], found["bench"]["methods"]) == ("benchmark", 3)
    assert (found["bench"]["strategy"], found["bench"]["verdict"]) == (None, "neither"), "no method beats the best"
    assert (found["pool"]["kind"], found["pool"]["models"], found["pool"]["held_out"]) == ("finetune", 2, 0.75)
    assert re.search(r"bench .* 3 methods ", merge("runs").out)
    path = Path("bench/benchmark.json")
    rows = {row["label"]: row for row in json.loads(path.read_bytes())["rows"]}
    for label, shifted, lost in (("greedy", 0.03, []), ("uniform", -0.03, ["average of shifts"])):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"shifts": ["test 2"]}))
        _stand(path, "greedy", test=0.0)
        _stand(path, "uniform", test=0.0)
        _stand(path, label, **{"test": 0.04, "average of shifts": shifted})
        told = _listed(merge)["bench"]
        assert (told["strategy"], told["held_out"]) == (label, rows[label]["held_out"])
        assert f"strategy={label}" in answer_of(Benchmark.read(path)).next[0]
        assert (told["gained"][:1], told["lost"]) == (["test"], lost)
        assert told["verdict"] == ("worse" if lost else "better")
        assert f"best of 3: {label}" in merge("runs").out
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"status": "interrupted"}))
    assert _listed(merge)["bench"]["strategy"] is None, "its answer says to go on first"


def test_the_record_of_a_pool_has_that_name() -> None:
    from merging.training.folder import RECORD

    assert POOL == RECORD


def test_hidden_folders_environments_and_deep_ones_are_left_out(merge: Merge, runs: Path) -> None:
    for place in (".hidden", "venv/lib", "a/b/c/d"):
        shutil.copytree(runs / "greedy", Path(place) / "copy")
    Path("venv/pyvenv.cfg").touch()
    assert "copy" not in _listed(merge)
    assert "copy" in _listed(merge, "--depth", "5")
    assert list(_listed(merge, "runs/greedy")) == ["greedy"]
    assert merge("runs", "nowhere").code == 2


def test_links_are_followed_once(merge: Merge, finished: Path) -> None:
    """``runs`` may lie on another disk; circles end."""
    Path("runs").symlink_to(finished)
    Path("again").symlink_to(finished)
    (Path.cwd() / "round").symlink_to(Path.cwd())
    Path("gone").symlink_to("nowhere")
    assert list(_listed(merge, "--depth", "20")) == ["uniform", "greedy"]


def test_what_was_saved_instead_is_told_beside_the_strategy(merge: Merge, runs: Path) -> None:
    report = json.loads((runs / "greedy" / "report.json").read_bytes())
    (runs / "greedy" / "report.json").write_text(json.dumps(report | {"saved": "best", "measure": "nll"}))
    found = _listed(merge)
    assert (found["greedy"]["strategy"], found["greedy"]["saved"]) == ("greedy", "best")
    assert found["uniform"]["saved"] is None
    assert "greedy (saved: best), by nll" in " ".join(merge("runs", "runs/greedy").out.split())


def test_nothing_there_is_said(merge: Merge) -> None:
    ran = merge("runs")
    assert ran.code == 0
    assert "No runs" in ran.out
    assert json.loads(merge("runs", "--json").out) == []


def test_torch_is_not_loaded(runs: Path) -> None:
    code = "import sys; from merging.cli.main import cli; cli.main(['runs'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_names_are_shown_and_not_obeyed(merge: Merge, runs: Path) -> None:
    shutil.copytree(runs / "greedy", runs / "[red]\x1b[2Jx")
    shown = merge("runs", "runs").out
    assert "\x1b[2J" not in shown
    assert len(entries(runs)) == 3


def test_a_report_takes_the_runs_of_a_folder(merge: Merge, runs: Path) -> None:
    shutil.copytree(runs / "greedy", runs / "cut")
    (runs / "cut" / "report.json").unlink()
    ran = merge("report", "runs", "--json")
    assert ran.code == 0, ran.err
    whole, rows = json.loads(ran.out), json.loads(merge("report", "runs/greedy", "runs/uniform", "--json").out)
    gone = "the run in runs/cut has no result yet; go on with it: merge run `resume=runs/cut`"
    assert whole == rows | {"left_out": {"runs/cut": gone}}
    assert f"runs/cut is left out: {gone.replace('`resume=runs/cut`', '--resume runs/cut')}" in ran.err
    first = merge("report", "runs", "--output", "runs/all", "--json")
    assert first.code == 0, first.err
    again = json.loads(merge("report", "runs", "--json").out)
    assert again == whole | {"left_out": {"runs/all": "it compares the results of other folders", "runs/cut": gone}}
