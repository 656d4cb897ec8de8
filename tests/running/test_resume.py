"""Nothing is lost: killed, interrupted, torn, resumed; and the same bits in another process."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Merge, spawn

RESULTS = ("model.safetensors", "recipe.json")
LONG = ["--budget", "120", "--optimizer", "random", "-o", "strategy.tau=0.9", "--output"]


def bits(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


def events(folder: Path) -> list[dict[str, object]]:
    """The journal without what differs from time to time."""
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["event"] not in ("stopped", "finished")]
    del kept[0]["request"]["command"]  # names the folder
    del kept[0]["request"]["folder"]
    return [{key: value for key, value in line.items() if key not in ("seconds", "time")} for line in kept]


def report_of(folder: Path) -> dict[str, object]:
    """The report without its clock."""
    data = json.loads((folder / "report.json").read_text())
    for row in data["rows"]:
        del row["seconds"]
    return {key: value for key, value in data.items() if key not in ("wall_seconds", "peak_memory_bytes")}


@pytest.fixture
def undisturbed(merge: Merge, tiny: list[str]) -> Path:
    assert merge(*tiny, *LONG, "whole").code == 0
    return Path("whole").absolute()


@pytest.mark.slow
def test_same_seed_same_bits_in_another_process(undisturbed: Path, tiny: list[str], tmp_path: Path) -> None:
    process = spawn([*tiny, *LONG, "other"], tmp_path, hash_seed=12345)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert bits(tmp_path / "other") == bits(undisturbed)
    assert events(tmp_path / "other") == events(undisturbed)


@pytest.mark.slow
def test_killed_at_random_points_and_resumed(undisturbed: Path, merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    total = (undisturbed / "events.jsonl").stat().st_size
    chance = random.Random(7)  # noqa: S311 (where to kill, no secret)
    for number in range(2):
        folder = tmp_path / f"killed{number}"
        process = spawn([*tiny, *LONG, folder.name], tmp_path)
        journal, goal = folder / "events.jsonl", chance.uniform(0.05, 0.9) * total
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < goal):
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert merge("run", "--resume", folder, "--trust-code").code == 0
        assert bits(folder) == bits(undisturbed)
        assert events(folder) == events(undisturbed)
        assert report_of(folder) == report_of(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.31, 0.77, 1.0])
def test_torn_anywhere_and_resumed(undisturbed: Path, merge: Merge, tmp_path: Path, share: float) -> None:
    """What SIGKILL can leave behind: any prefix of the journal, the last line torn; no results."""
    folder = tmp_path / "torn"
    folder.mkdir()
    whole = (undisturbed / "events.jsonl").read_bytes()
    head = whole.index(b"\n") + 1
    (folder / "events.jsonl").write_bytes(whole[: head + int(share * (len(whole) - head))])
    ran = merge("run", "--resume", folder, "--trust-code")
    assert ran.code == 0, ran.err
    assert bits(folder) == bits(undisturbed)
    assert events(folder) == events(undisturbed)


@pytest.mark.slow
def test_control_c_saves_the_best_so_far(undisturbed: Path, merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    process = spawn([*tiny, *LONG, folder.name], tmp_path)
    journal = folder / "events.jsonl"
    while process.poll() is None and (not journal.exists() or b'"decision"' not in journal.read_bytes()):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    began = time.perf_counter()
    _, err = process.communicate(timeout=60)
    assert time.perf_counter() - began < 5
    assert process.returncode == 130
    assert "merge run --resume" in err
    assert "Traceback" not in err
    assert json.loads((folder / "report.json").read_text())["status"] == "interrupted"
    assert (folder / "model.safetensors").is_file()
    assert merge("run", "--resume", folder, "--trust-code").code == 0
    assert bits(folder) == bits(undisturbed)
    assert report_of(folder) == report_of(undisturbed)


def test_resume_with_other_options_is_refused(undisturbed: Path, merge: Merge) -> None:
    before = (undisturbed / "events.jsonl").read_bytes()
    for flags, said in [(["--seed", "4"], "seed was 0, is 4"), (["--budget", "9"], "budget was 120, is 9")]:
        ran = merge("run", "--resume", undisturbed, "--trust-code", *flags)
        assert ran.code == 2
        assert said in ran.err
    assert (undisturbed / "events.jsonl").read_bytes() == before


def test_resume_after_an_input_changed_is_refused(merge: Merge, tmp_path: Path) -> None:
    from merging.testing import tiny_pool
    from tests.conftest import TASK

    tiny_pool(tmp_path / "pool", models=3)
    quick = ["run", "--models", "pool/model_*.safetensors", "--task", TASK, "--strategy", "greedy", "--output", "out"]
    assert merge(*quick).code == 0
    (tmp_path / "pool/model_2.safetensors").write_bytes((tmp_path / "pool/model_1.safetensors").read_bytes())
    ran = merge("run", "--resume", "out", "--trust-code")
    assert ran.code == 2
    assert "inputs was" in ran.err


def test_resume_asks_before_it_runs_code(undisturbed: Path, merge: Merge) -> None:
    ran = merge("run", "--resume", undisturbed)
    assert ran.code == 2
    assert "--trust-code" in ran.err


def test_a_journal_that_went_another_way_is_refused(undisturbed: Path, merge: Merge) -> None:
    journal = undisturbed / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if '"decision"' in line)
    event = json.loads(lines[number])
    event["average"] = 0.123
    lines[number] = json.dumps(event) + "\n"
    journal.write_text("".join(lines))
    ran = merge("run", "--resume", undisturbed, "--trust-code")
    assert ran.code == 2
    assert "another way" in ran.err


@pytest.mark.parametrize(
    "damage", [b"{torn", b'{"event": "search", "x": Infinity}', b'{"event": "search", "x": 1e999}']
)
def test_a_damaged_line_in_the_middle_is_refused(damage: bytes, undisturbed: Path, merge: Merge) -> None:
    journal = undisturbed / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = damage + b"\n"
    journal.write_bytes(b"".join(lines))
    ran = merge("run", "--resume", undisturbed, "--trust-code")
    assert ran.code == 2
    assert "line 4 is damaged" in ran.err


def test_two_runs_into_one_folder(undisturbed: Path, merge: Merge, tiny: list[str]) -> None:
    from merging.storage.journal import Journal

    with Journal(undisturbed / "events.jsonl", resume=True):
        ran = merge(*tiny, *LONG, undisturbed, "--overwrite")
    assert ran.code == 2
    assert "another run is writing" in ran.err
    assert bits(undisturbed)
