"""What is told of workers: how they are doing, that one is gone, and on what a run was evaluated."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import merging
from merging.benchmarking.reading import of_run
from merging.benchmarking.rendering.documents import to_markdown
from merging.benchmarking.results import Benchmark
from merging.cli.showing.table import show_report
from merging.cli.showing.terminal import TerminalProgress
from merging.plugins.bar import Bar
from merging.plugins.progress import Silent, tell_workers
from merging.running.card import model_card
from merging.testing import tiny_pool, tiny_task
from merging.values.report import Report
from merging.values.workers import PACE, Seen, WorkerFacts, WorkersState, lost_line, told_workers

BUSY = WorkersState(workers=4, busy=3, done=1204, lost=1)
FACTS = tuple(
    WorkerFacts(
        number=number,
        place=f"{host}, process {100 + number}",
        device="NVIDIA H100",
        torch="2.7.1",
        fingerprint="3fa1",
        answers=600,
        lost=lost,
    )
    for number, host, lost in ((0, "alpha", ""), (1, "beta", "killed by SIGKILL"), (1, "beta", ""))
)
TOLD = "evaluated on 2 workers: NVIDIA H100, torch 2.7.1, on alpha (1), beta (1); 1,800 answers, 1 lost on the way"


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("room", range(0, 90, 3))
def test_there_are_never_more_words_than_room(room: int) -> None:
    said = BUSY.words(12.3, room)
    assert len(said) <= room
    assert said or room < len("3/4 busy")
    if room >= 50:
        assert said == "3 of 4 workers busy, 1 lost, 1,204 done, 12.3/s"


def test_outcomes_a_second_are_those_of_the_last_seconds() -> None:
    clock = Clock()
    seen, done = Seen(clock), 0
    assert seen.words() == ""
    for second in range(40):
        for part in range(100):
            clock.now, done = 100 + second + part / 100, done + (1 if second < 20 else 3)
            seen.take(WorkersState(workers=2, busy=2, done=done))
        if second == 0:
            assert seen.words().endswith(" done")
        if second == 19:
            assert seen.words().endswith("100/s")
    assert seen.words().endswith("300/s")
    assert len(seen._seen) <= PACE / 0.2 + 2
    seen.take(WorkersState(workers=2, busy=1, done=1))  # those of the next method, in a benchmark
    assert seen.words() == "1 of 2 workers busy, 1 done"


def test_who_is_told_often_looks_seldom() -> None:
    clock, looks = Clock(), 0
    seen = Seen(clock)
    for number in range(1000):  # in one second
        clock.now += 0.001
        looks += seen.take(WorkersState(workers=2, busy=2, done=number))
    assert 4 <= looks <= 6
    assert seen.take(WorkersState(workers=2, busy=2, done=1000, lost=1)), "that is worth a look"
    assert seen.take(WorkersState(workers=2, busy=0, done=1000, lost=1)), "and so is that all have ended"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_live_line_has_workers_where_they_fit(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    progress = TerminalProgress(console)
    progress.stage("scoring the single models of the pool", 72)
    progress.advance(12)
    tell_workers(progress, BUSY)
    with console.capture() as captured:
        console.print(progress._bar.get_renderable())
    shown = captured.get().rstrip("\n")
    assert "\n" not in shown
    assert cell_len(shown) <= width
    assert "12/72" in shown
    assert "scor" in shown
    assert ("busy" in shown) == (width >= 80)
    if width >= 100:
        assert "3 of 4 workers busy, 1 lost, 1,204 done" in shown


def test_a_log_file_and_third_parties_are_not_told() -> None:
    out = io.StringIO()
    with TerminalProgress(Console(file=out, width=100)) as progress:
        progress.stage("scoring")
        tell_workers(progress, BUSY)
        progress.say(lost_line(2, "alpha, process 7", "killed by SIGKILL"))
    assert out.getvalue().splitlines() == [
        "scoring …",
        "warning: worker 2 (alpha, process 7) was killed by SIGKILL; its work goes to others",
    ]
    tell_workers(Silent(), BUSY)
    tell_workers(object(), BUSY)  # type: ignore[arg-type]  # as a progress of before


def test_a_bar_has_workers_beside_the_best_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.stage("scoring", 10)
    bar.status("best 0.7500, 2 models")
    tell_workers(bar, BUSY)
    assert bar._bar is not None
    assert bar._bar.postfix == "3 of 4 workers busy, 1 lost, 1,204 done; best 0.7500, 2 models"
    bar.close()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("reason", "others", "said"),
    [
        ("killed by SIGKILL", 3, "was killed by SIGKILL; its work goes to others"),
        (
            "ended with exit code 1: ValueError: no",
            3,
            "ended with exit code 1: ValueError: no; its work goes to others",
        ),
        ("its node is gone", 1, "was lost: its node is gone; its work goes to others"),
        ("", 0, "was lost; another one takes its place"),
    ],
)
def test_a_lost_worker_is_a_line(reason: str, others: int, said: str) -> None:
    assert lost_line(2, "alpha, process 7", reason, others) == f"warning: worker 2 (alpha, process 7) {said}"
    assert len(lost_line(2, "x" * 500, "y" * 500)) < 300


def test_reports_cards_and_tables_name_the_workers(tmp_path: Path) -> None:
    run = merging.merge(tiny_pool(tmp_path), merging.Greedy(), task=tiny_task(), output=tmp_path / "run")
    assert run.report.workers == ()
    report = replace(run.report, workers=FACTS)
    kept = json.loads(json.dumps(report.to_json()))
    assert kept["workers"][1] == {
        "number": 1,
        "place": "beta, process 101",
        "device": "NVIDIA H100",
        "torch": "2.7.1",
        "fingerprint": "3fa1",
        "answers": 600,
        "lost": "killed by SIGKILL",
    }
    assert Report.from_json(kept).workers == FACTS
    later = kept | {"workers": [kept["workers"][0] | {"colour": "red"}]}
    assert Report.from_json(later).workers == FACTS[:1], "a later version may know more"
    del kept["workers"]
    assert Report.from_json(kept).workers == (), "and an earlier one nothing"
    assert told_workers(FACTS) == TOLD
    assert f"- {TOLD}\n" in model_card(report, "", "safetensors").replace("\\", "")
    assert "evaluated on" not in model_card(run.report, "", "safetensors")
    out = Console(file=io.StringIO(), width=200)
    show_report(out, report, tmp_path / "run", "safetensors", built_in=False)
    assert TOLD in out.file.getvalue()  # type: ignore[attr-defined]
    found = of_run(later, None)
    assert found.workers == FACTS[:1]
    assert Benchmark.from_json(json.loads(found.dumps())) == found
    assert "evaluated on 1 worker: NVIDIA H100, torch 2.7.1, on alpha; 600 answers" in to_markdown(found)
