"""Workers on this machine: messages come and go whatever their size, and no process outlives anybody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from merging.errors import MergingError, OptionError
from merging.evaluation.workers.backend import Backend, Received
from merging.evaluation.workers.local import Local, gpu, threads
from tests.evaluation.workers.asking import asked, lost, until

ECHO = "tests.evaluation.workers.answering:Echo"
MB = 1 << 20


@contextlib.contextmanager
def started(count: int = 1, handler: str = ECHO, **more: object) -> Iterator[Local]:
    local = Local(count, handler, **more)  # type: ignore[arg-type]
    try:
        local.start(lambda number: b"made of %d" % number)
        yield local
    finally:
        local.close()


def alive(process: int) -> bool:
    """Whether a process is there, other than to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def process(local: Backend, worker: int) -> int:
    return int(local.place(worker).rpartition(" ")[2])


def gone(processes: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(map(alive, processes)):
        assert time.monotonic() < end, f"{[each for each in processes if alive(each)]} live on"
        time.sleep(0.01)


def test_each_worker_answers_in_turn_with_its_own_handler() -> None:
    with started(2) as local:
        for number in range(2):
            for word in (b"who", b"count 3", b"", b"count 0", b"who"):
                local.send(number, word)
        for number in range(2):
            pid = process(local, number)
            assert pid != os.getpid()
            assert asked(local, number, 5) == [
                [b"made of %d %d 1" % (number, pid)],
                [b"0", b"1", b"2"],
                [b""],
                [],
                [b"made of %d %d 5" % (number, pid)],
            ]
        assert local.receive(0) == []


def test_a_busy_worker_is_told_and_answers_at_once() -> None:
    with started() as local:
        local.send(0, b"wait")
        assert until(local, 0) == Received(0, b"waiting")
        local.tell(0, b"enough")
        assert asked(local, 0) == [[b"enough"]]


def test_large_messages_both_ways_at_once() -> None:
    """Neither side waits for the other's room: a busy worker is sent 48 MB, and sends as much that nobody reads."""
    with started(2) as local:
        whole = os.urandom(16 * MB)
        for number in range(2):
            local.send(number, b"large %d" % (16 * MB))
            local.send(number, b"sleep 0.2")
            began = time.monotonic()
            for _ in range(3):
                local.send(number, whole)
            assert time.monotonic() - began < 10
        for number in range(2):
            assert asked(local, number, 5) == [[bytes(16 * MB)], [b"slept"], *[[whole]] * 3]


@pytest.mark.parametrize(
    ("word", "words", "reason"),
    [
        ("die SIGKILL", [b"last words"], "killed by SIGKILL"),
        ("die SIGSEGV", [b"last words"], "killed by SIGSEGV"),
        ("leave 3", [], "ended with exit code 3"),
        ("raise no \x1b[2J", [], r"ended with exit code 1: ValueError: no \x1b[2J"),
    ],
)
def test_a_lost_worker_is_said_and_replaced(word: str, words: list[bytes], reason: str) -> None:
    with started(2) as local:
        before = process(local, 0)
        for message in (word.encode(), b"never", b"answered"):
            local.send(0, message)
        local.send(1, b"here")
        assert lost(local, 0) == (words, reason)
        assert not Path(f"/proc/{before}").exists(), "it is buried"
        local.send(0, b"to nobody")
        local.tell(0, b"to nobody")
        local.restart(0)
        local.send(0, b"who")
        assert asked(local, 0) == [[b"made of 0 %d 1" % process(local, 0)]]
        assert asked(local, 1) == [[b"here"]]


def test_a_worker_is_lost_while_it_is_sent_what_it_has_no_room_for() -> None:
    with started() as local:
        os.kill(process(local, 0), signal.SIGSTOP)
        local.send(0, bytes(64 * MB))  # it cannot read, and nobody waits for it
        os.kill(process(local, 0), signal.SIGKILL)
        assert lost(local, 0) == ([], "killed by SIGKILL")
        local.restart(0)
        local.send(0, b"again")
        assert asked(local, 0) == [[b"again"]]


def test_one_that_cannot_be_started_again_is_lost_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(*arguments: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with started(2) as local:
        local.send(0, b"die SIGKILL")
        assert lost(local, 0) == ([b"last words"], "killed by SIGKILL")
        with monkeypatch.context() as full:
            full.setattr(subprocess, "Popen", popen)
            local.restart(0)
        assert not local.ready(0)
        local.send(0, b"to nobody")
        assert lost(local, 0) == ([], "it cannot be started: Resource temporarily unavailable")
        local.send(1, b"here")
        assert asked(local, 1) == [[b"here"]]
        local.restart(0)
        local.send(0, b"again")
        assert asked(local, 0) == [[b"again"]]


def test_one_that_lives_is_replaced_as_well() -> None:
    with started() as local:
        before = process(local, 0)
        local.send(0, b"sleep 100")
        local.restart(0)
        assert not alive(before)
        local.send(0, b"new")
        assert asked(local, 0) == [[b"new"]]


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("Broken", "ended with exit code 1: LookupError: no made of 0 here"),
        ("Nobody", "ended with exit code 1: AttributeError: module 'tests.evaluation.workers.answering' has no"),
    ],
)
def test_a_handler_that_cannot_be_made_is_a_reason(handler: str, reason: str) -> None:
    with started(handler=ECHO.replace("Echo", handler)) as local:
        words, said = lost(local, 0)
        assert words == []
        assert said.startswith(reason)


def test_a_handler_that_cannot_be_told_is_a_reason() -> None:
    with started(handler=ECHO.replace("Echo", "Deaf")) as local:
        local.tell(0, b"that")
        assert lost(local, 0) == ([], "ended with exit code 1: RuntimeError: what is that?")


def test_a_child_that_holds_the_socket_hides_no_end() -> None:
    with started() as local:
        local.send(0, b"child")
        [[child]] = asked(local, 0)
        os.kill(process(local, 0), signal.SIGKILL)
        assert lost(local, 0) == ([], "killed by SIGKILL")
        os.kill(int(child), signal.SIGKILL)


def test_what_workers_print_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with started() as local:
        local.send(0, b"print")
        assert asked(local, 0) == [[b"printed"]]
    assert capfd.readouterr() == ("", "")


def test_each_worker_has_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7")
    with started(2, environment=lambda number: {**threads(number + 1), **gpu(number)}) as local:
        for number, named in enumerate((b"5", b"GPU-7")):
            for variable in (b"OMP_NUM_THREADS", b"OMP_WAIT_POLICY", b"CUDA_VISIBLE_DEVICES", b"PATH"):
                local.send(number, b"variable " + variable)
            path = os.environ["PATH"].encode()
            assert asked(local, number, 4) == [[b"%d" % (number + 1)], [b"PASSIVE"], [named], [path]]
    with pytest.raises(OptionError, match="worker 2 has no GPU of its own: CUDA_VISIBLE_DEVICES is '5, GPU-7'"):
        gpu(2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu(2) == {"CUDA_VISIBLE_DEVICES": "2"}


def test_nothing_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends: closed while it works, not closed at all, or only some of them could be started."""
    local = Local(2, ECHO)
    local.start(lambda number: b"")
    local.send(0, b"start")
    [[child]] = asked(local, 0)
    local.send(0, b"sleep 100")
    os.kill(process(local, 1), signal.SIGSTOP)
    processes = [process(local, 0), process(local, 1), int(child)]
    assert all(map(alive, processes))
    began = time.monotonic()
    local.close()
    gone(processes, 0.2)
    assert time.monotonic() - began < 2
    local.close()
    local = Local(1, ECHO)
    local.start(lambda number: b"")
    processes = [process(local, 0)]
    del local
    gone(processes, 0)

    def popen(*arguments: object, **more: object) -> subprocess.Popen[bytes]:
        if processes:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        made = real(*arguments, **more)  # type: ignore[call-overload]
        processes.append(made.pid)
        return made  # type: ignore[no-any-return]

    real, processes = subprocess.Popen, []
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(MergingError, match="1 of 3 workers could be started: Resource temporarily unavailable"):
        Local(3, ECHO).start(lambda number: b"")
    gone(processes, 0)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "exit"])
def test_workers_end_with_the_program(how: str) -> None:
    """Also where a copy of the program still holds its sockets, and whatever they do."""
    script = (
        "import os, signal, sys, time\n"
        "from merging.evaluation.workers.local import Local\n"
        "sys.path.insert(0, '.')\n"
        f"local = Local(2, {ECHO!r})\n"
        "local.start(lambda number: b'')\n"
        "local.send(0, b'sleep 100')\n"
        "copy = os.fork() or time.sleep(1000)\n"
        "print(*[local.place(n).split()[-1] for n in range(2)], copy, flush=True)\n"
        "if sys.argv[1] == 'exit': raise SystemExit\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, how], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as program:
        assert program.stdout
        *workers, copy = map(int, program.stdout.readline().split())
        try:
            time.sleep(0.2)
            if how != "exit":
                assert all(map(alive, workers))
                program.send_signal(getattr(signal, how))
            gone([program.pid], 5)
            gone(workers, 2)
        finally:
            os.kill(copy, signal.SIGKILL)


def test_a_key_does_not_reach_workers() -> None:
    """Ctrl-C interrupts the foreground's process group."""
    with started() as local:
        assert os.getsid(process(local, 0)) != os.getsid(0)
        local.send(0, b"who")
        asked(local, 0)
        os.kill(process(local, 0), signal.SIGINT)
        local.send(0, b"unmoved")
        assert asked(local, 0) == [[b"unmoved"]]
