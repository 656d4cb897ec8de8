"""Finished means on the disk: one case of each campaign, and the order of calls that makes it so."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.durability import Case, can_cut, cut, kill, two, undisturbed
from merging.storage.atomic import LEFTOVER
from tests.conftest import ENVIRONMENT, TASK

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # messages on one line
    monkeypatch.setattr(sys, "argv", ["merge"])


def test_a_killed_run_goes_on_to_the_same_bits(pool_folder: Path, work: Path, tmp_path: Path) -> None:
    case = Case("run", pool_folder)
    expected, seconds = undisturbed(case, tmp_path / "undisturbed")
    for number, share in enumerate((0.6, 0.3, 0.15)):  # it may be sooner done than before
        (folder := work / str(number)).mkdir()
        if kill(case, folder, expected, share * seconds):
            return
    pytest.fail("it has always ended before it was killed")


@pytest.mark.parametrize("name", ["run", "finetune"])
def test_what_is_finished_survives_a_power_cut(name: str, pool_folder: Path, work: Path, tmp_path: Path) -> None:
    if not can_cut():
        pytest.skip("power cuts need root, loop devices and mkfs.ext4")
    case = Case(name, pool_folder)
    expected, _ = undisturbed(case, tmp_path / "undisturbed")
    assert cut(case, work, expected, None)


def test_of_two_at_once_one_is_refused(pool_folder: Path, work: Path, tmp_path: Path) -> None:
    case = Case("benchmark", pool_folder)
    expected, seconds = undisturbed(case, tmp_path / "undisturbed")
    assert two(case, work, expected, seconds * random.Random(1).uniform(0.2, 0.4))  # noqa: S311 (no secret)


CALL = re.compile(r"^\d+ +(\w+)\((.*)")
FILES = "openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir"


def calls(log: str, folder: Path) -> Iterator[tuple[str, list[Path], bool]]:
    """Calls on what lies in a folder, in order: name, paths, whether a file is opened for writing."""
    for line in log.splitlines():
        found = CALL.match(line)
        if found is None or re.search(r"= -1 E", line):
            continue
        name, rest = found.groups()
        if "sync" in name:
            paths = re.findall(r"^\d+<([^>]*)>", rest)
        else:  # a name may be relative to the folder whose descriptor comes before it
            paths = [str(Path(place, path)) for place, path in re.findall(r'(?:\w+<([^>]*)>, )?"([^"]*)"', rest)]
        absolute = [Path(os.path.normpath(folder / path)) for path in paths]
        name = "rmdir" if "AT_REMOVEDIR" in rest else name
        if absolute and all(path.is_relative_to(folder) for path in absolute):
            yield name, absolute, "O_CREAT" in rest


def unsafe(log: str, folder: Path) -> list[str]:
    """What a power cut could take: renamed before it is synced, or not synced at the end."""
    found, dirty = list[str](), set[Path]()
    names = set[Path]()  # made, renamed or removed, and their folder was not synced since
    for name, paths, creates in calls(log, folder):
        path = paths[0]
        if name == "openat" and creates:
            dirty.add(path)
            names.add(path)
        elif name == "mkdir":
            names.add(path)
        elif name in ("fsync", "fdatasync"):
            dirty.discard(path)
            names = {other for other in names if other.parent != path}
        elif name.startswith("rename"):
            target = paths[1]
            inside = {other for other in dirty if other.is_relative_to(path)}
            dirty -= inside
            if any(part.startswith(LEFTOVER) for part in target.parts):  # a library's own way to write a file
                dirty |= {target / other.relative_to(path) for other in inside}
            else:
                found += [f"{other} was renamed to {target} before it was synced" for other in inside]
            names = {other for other in names if not other.is_relative_to(path)}
            if target.name in LAST:
                found += [f"{target} came before {o}" for o in names if o.parent == target.parent and not hidden(o)]
            names.add(target)
        elif name.startswith("unlink"):
            dirty.discard(path)
            names.add(path)
        elif name == "rmdir":
            dirty = {other for other in dirty if not other.is_relative_to(path)}
            names = {other for other in names if not other.is_relative_to(path)}
    found += [f"{path} was not synced at the end" for path in dirty if not path.name.endswith(".lock")]
    return found + [
        f"the name of {path} was not synced at the end" for path in names if not path.name.endswith(".lock")
    ]


def hidden(path: Path) -> bool:
    return path.name.endswith(".lock") or path.name.startswith(LEFTOVER)


LAST = {"report.json", "finetune.json", "model_00.json"}
"""What describes the rest of its folder: everything else is on the disk before it gets its name."""

COMMANDS = """
import sys
from merging.cli.main import main
pool, task = sys.argv[1:]
models = ["--models", f"{pool}/model_*.safetensors", "--task", task]
for command in (
    ["run", *models, "--strategy", "uniform", "--no-tests", "--output", "runs/out"],
    ["run", *models, "--strategy", "best", "--output", "runs/out", "--overwrite", "--format", "pt"],
    ["apply", "runs/out", "--output", "one.safetensors"],
    ["apply", "runs/out", "--output", "folder"],
    ["finetune", "--task", task, "--base", f"{pool}/base.safetensors", "--models", "2", "--jobs", "1",
     "--set", "epochs=1", "--output", "pool"],
    ["benchmark", *models, "--strategies", "best,uniform", "--no-singles", "--output", "bench"],
):
    sys.argv = ["merge", *command]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def test_the_order_of_calls(pool_folder: Path, work: Path) -> None:
    """Written aside, synced, renamed, the folder synced; of every command, for every path."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    work = work.resolve()
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        done = subprocess.run(
            [
                "strace",
                "-f",
                "-y",
                "-o",
                log,
                "-e",
                f"trace={FILES}",
                sys.executable,
                "-c",
                COMMANDS,
                pool_folder,
                TASK,
            ],
            cwd=work,
            env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if "ptrace" in done.stderr and not log.read_text():
            pytest.skip("strace is not permitted here")
        assert done.returncode == 0, done.stderr
        text = log.read_text()
    assert unsafe(text, work) == []
    renamed = [str(paths[1].relative_to(work)) for name, paths, _ in calls(text, work) if name.startswith("rename")]
    assert {
        "runs/out/model.safetensors",
        "runs/out/model.pt",
        "one.safetensors",
        "folder",
        "pool/finetune.json",
        "pool/base.safetensors",
        "pool/model_01.json",
        "bench/benchmark.html",
    } <= set(renamed)
    lines = text.splitlines()
    without = [line for line in lines if not ("fsync(" in line and "base.safetensors" in line)]
    assert len(unsafe("\n".join(without), work)) == 1, "the test would see a sync that is missing"
    assert len(unsafe("\n".join(line for line in lines if "fsync(" not in line), work)) > 20
