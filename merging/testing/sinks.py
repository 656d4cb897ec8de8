"""What every sink promises."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from merging.errors import MergingError
from merging.plugins.options import build
from merging.plugins.progress import Silent
from merging.plugins.sink import Sink, SinkEnd, SinkRun, begun
from merging.running.run import merge
from merging.storage.journal import FILE
from merging.storage.pool import ModelPool
from merging.storage.result import REPORT
from merging.testing.fixtures import tiny_pool, tiny_task
from merging.testing.plugins import PluginContract

TIMES = ("time", "seconds", "wall_seconds", "peak_memory_bytes", "seconds_of_threads")


class SinkContract(PluginContract):
    """Contract of a sink. Supply ``plugin``, with options that keep what it writes on this machine."""

    kind: ClassVar[str] = "sink"

    @pytest.fixture
    def sink(self, plugin: Sink) -> Sink:
        """The plug-in, where its packages are installed."""
        try:
            plugin.check_packages()
        except MergingError as error:
            pytest.skip(f"{error}")
        return plugin

    @pytest.fixture
    def pool(self, tmp_path: Path) -> ModelPool:
        """Makes three tiny models."""
        return tiny_pool(tmp_path / "pool", models=3)

    @pytest.fixture
    def abroad(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
        """Says which machines somebody has tried to reach; the working folder is an empty one meanwhile.

        Other processes are seen where they ask the proxy that the environment names, as libraries for HTTP do.
        """
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with nothing_leaves(monkeypatch) as asked:
            yield asked

    def test_changes_nothing_in_a_run(
        self, sink: Sink, pool: ModelPool, tmp_path: Path, abroad: Callable[[], list[str]]
    ) -> None:
        """A run has the journal, the report and the model that it has without; nothing leaves this machine."""
        heard, found = _Heard(), []
        for name, sinks in (("with", (sink,)), ("without", ())):
            merge(pool, "greedy", task=tiny_task(), output=tmp_path / name, sinks=sinks, progress=heard)
            files = [json.loads((tmp_path / name / REPORT).read_bytes()), *_events(tmp_path / name)]
            found.append([_timeless(each) for each in files])
        assert not heard.warnings, "it fails in an ordinary run"
        assert found[0] == found[1], "journal or report are others than without it"
        assert not abroad(), "it talks to another machine"
        assert not list((tmp_path / "here").iterdir()), "it writes to the working folder"

    def test_goes_on_with_a_run(self, sink: Sink, pool: ModelPool, tmp_path: Path) -> None:
        """It is told of a run that stops at its limit, and of the same run when that goes on."""
        heard = _Heard()
        for limit in (4, 100):
            merge(
                pool,
                "greedy",
                task=tiny_task(),
                output=tmp_path / "run",
                resume=limit > 4,
                max_evaluations=limit,
                sinks=(sink,),
                progress=heard,
            )
        assert not heard.warnings, "it fails where a run goes on"

    def test_takes_the_end_of_a_run_without_a_result(self, sink: Sink, tmp_path: Path) -> None:
        """Two runs of a benchmark at once, one of which fails before anything was scored."""
        header = {"strategy": {"name": "greedy", "options": {}}, "inputs": {}, "seed": 0}
        runs = [SinkRun(name="runs", header=header, folder=tmp_path, part=part) for part in ("one", "other")]
        writers = [begun(sink, run) for run in runs]
        for writer, end in zip(
            writers, (SinkEnd(state="failed", why="no memory"), SinkEnd(state="finished")), strict=True
        ):
            writer.end(end)

    def test_says_before_any_work_what_it_lacks(self, sink: Sink, pool: ModelPool) -> None:
        """A run that is written nowhere is followed, or refused in a line."""
        heard, plain = _Heard(), build(type(sink), {})
        with contextlib.suppress(MergingError):
            merge(pool, "greedy", task=tiny_task(), sinks=(plain,), progress=heard)
        assert not heard.warnings, "its check finds nothing, and then it fails"

    def test_leaves_no_thread_behind(self, sink: Sink, tmp_path: Path) -> None:
        """Nothing that it has started keeps the process alive."""
        before = set(threading.enumerate())
        begun(sink, SinkRun(name="run", folder=tmp_path)).end(SinkEnd(state="finished"))
        left = [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon]
        assert not left, f"threads are left running: {', '.join(left)}"


@contextlib.contextmanager
def nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Refuses connections beyond this machine, and gives a function that says which were tried.

    Args:
        monkeypatch: pytest's; takes the guard away again.
    """
    asked: list[str] = []
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name), asked))
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.0)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            for each in (name, name.upper()):
                monkeypatch.setenv(each, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")

        def tried() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, _ = proxy.accept()
                    with connection:
                        connection.settimeout(1.0)
                        asked.append(connection.recv(200).split(b"\r\n")[0].decode("ascii", "replace"))
            return asked

        yield tried


def _guarded(connect: Any, asked: list[str]) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host != "localhost" and not ipaddress.ip_address(str(host).partition("%")[0]).is_loopback:
            asked.append(str(host))
            raise OSError("connections beyond this machine are refused")
        return connect(self, address)

    return guarded


class _Heard(Silent):
    """Keeps the warnings that a run says."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        """Keeps a warning."""
        self.warnings += [text] if text.startswith("warning: sink") else []


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]


def _timeless(value: Any) -> Any:
    """The same without times and memory, which no two runs share."""
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
