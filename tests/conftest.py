"""What several test files need: the command line, in this process and in another one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from merging.cli import main as command_line
from merging.evaluation.workers.cluster import package, same_signals
from merging.plugins.registry import PLUGINS
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool
from merging.testing.second_device import second_device

torch.set_num_threads(1)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the suite runs under nohup; what closed terminals do is tested
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # nor are keys heard by what a shell has put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile(
    "suite",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")

TASK = "python:merging.testing.fixtures:tiny_task"
_CACHE = tempfile.TemporaryDirectory(prefix="merging-tests-")  # decoded images go here, not to the user's folder
os.environ["MERGING_CACHE"] = _CACHE.name
os.environ["MERGING_REMEMBER"] = "0"  # scores that another test has measured are nothing to a test
ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "100", "PYTHONWARNINGS": "ignore"}


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Merge = Callable[..., Ran]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for want of what is said to be there has failed.

    That is: test data, where MERGING_TEST_DATA names a folder; packages of the extra dev-full, where MERGING_DEV_FULL
    says that they are installed; a browser, where MERGING_BROWSER names one.
    """
    del item, call
    report = yield
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
    named = {
        "MERGING_TEST_DATA": "MERGING_TEST_DATA",
        "MERGING_DEV_FULL": "dev-full",
        "MERGING_BROWSER": "MERGING_BROWSER",
    }
    for variable, word in named.items():
        if report.skipped and word in reason and os.environ.get(variable):
            report.outcome = "failed"
            report.longrepr = f"{reason}: {variable}={os.environ[variable]}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where there is no CUDA device, what needs one is skipped, and with ``-m gpu`` all that must pass on one."""
    needs = getattr(item, "callspec", None) is not None and item.callspec.params.get("device") == "cuda"  # type: ignore[attr-defined]
    asked = item.config.option.markexpr == "gpu"
    if item.get_closest_marker("gpu") and (needs or asked) and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device (make test-gpu on a machine that has one)")


@pytest.fixture(params=["second", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """``cuda``: the pretended one of :mod:`merging.testing.second_device` on every machine, and a GPU's where it is."""
    with second_device() if request.param == "second" else contextlib.nullcontext():
        yield "cuda"


@pytest.fixture(autouse=True)
def _names_go_with_the_test() -> Iterator[None]:
    """What a test registers is gone with it; what is built in may be loaded for good."""
    before = {registry: set(registry) for registry in PLUGINS.values()}
    yield
    for registry, names in before.items():
        for name in set(registry) - names:
            if not registry[name].__module__.startswith("merging."):
                del registry._classes[name]


@pytest.fixture
def merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """``merge('run', …)`` in this process, in an empty working folder: the real entry point, exit codes included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which a run adds the working folder, for python: entries
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["merge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    for number, handler in before.items():
        assert signal.getsignal(number) is handler, "a run must put signal handlers back"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for decoded images, which is not there yet."""
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tiny checkpoints and their base."""
    folder = tmp_path_factory.mktemp("pool")
    tiny_pool(folder, models=5)
    return folder


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    """The models of the tiny task, opened."""
    return tiny_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def tiny(pool_folder: Path) -> list[str]:
    """Flags of a run on the tiny pool and task."""
    return ["run", "--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer"]


_NODES: list[Any] = []
"""The cluster of :func:`ray_nodes`, while there is one."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the cluster come first, then those in a browser: one of several processes is given all."""

    def place(item: pytest.Item) -> list[bool]:
        return [name not in getattr(item, "fixturenames", ()) for name in ("ray_nodes", "browser")]

    items.sort(key=place)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The cluster ends with the last test that needs it: idle, it would take from the others."""
    del item
    if _NODES and "ray_nodes" not in getattr(nextitem, "fixturenames", ()):
        _NODES.pop().shutdown()


@pytest.fixture
def ray_nodes() -> Any:
    """A cluster of two nodes of Ray on this machine, with a CPU each, started once; a test leaves as many."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed (extra dev-full)")
    if not _NODES:
        package()  # before anything else imports it
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80 << 20}
        with same_signals():
            _NODES.append(Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False}))
            _NODES[0].add_node(**small)
    return _NODES[0]


def spawn(arguments: list[str], folder: Path, hash_seed: int = 0) -> subprocess.Popen[str]:
    """``merge …`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "merging", *arguments],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
