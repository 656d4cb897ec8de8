"""Threads: what the process is granted, what the user asks for, and that passes keep to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from merging.errors import OptionError
from merging.forward.numerics import Numerics, native_bf16
from merging.forward.tuning import candidates
from merging.machine import at_most, cores, granted
from merging.mixing.computed import Computed
from merging.partitioners.whole import Whole
from merging.storage.pool import ModelPool
from merging.values.partition import Partition


class Large(nn.Module):
    """Enough parameters for the rule to take all cores."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1000, 1001)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 64 cores that grants all of them."""
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr("merging.machine.granted", lambda: None)
    return monkeypatch


def grouped(folder: Path, groups: str, files: dict[str, str]) -> int | None:
    """What a process in these groups is granted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "self").write_text(groups)
    for name, text in files.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(text + "\n")
    return granted(folder / "self", folder / "root")


V1 = "12:memory:/x\n4:cpu,cpuacct:/docker/7\n"


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 50000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4),
        (V1, {"cpu,cpuacct/docker/7/cpu.cfs_quota_us": "-1", "cpu,cpuacct/docker/7/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/docker/7/cpu.cfs_quota_us": "25", "cpu/docker/7/cpu.cfs_period_us": "10"}, 3),
        (V1, {"cpu/docker/cpu.cfs_quota_us": "50000", "cpu/docker/cpu.cfs_period_us": "50000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000"}, 6),
        (V1 + "0::/u\n", {"unified/u/cpu.max": "200000 100000"}, 2),
        ("nonsense\n\n", {"cpu.max": "x y"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
    ],
)
def test_a_cgroup_grants_what_its_files_say(
    tmp_path: Path, groups: str, files: dict[str, str], wanted: int | None
) -> None:
    assert grouped(tmp_path, groups, files) == wanted


def test_without_cgroups_nothing_is_limited(tmp_path: Path) -> None:
    assert granted(tmp_path / "nothing", tmp_path) is None


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [("1", 1), ("3", 3), (" 2 ", 2), ("4,2", 4), ("100", 64), ("", 64), ("0", 64), ("-1", 64), ("many", 64)],
)
def test_omp_num_threads_is_respected(free: pytest.MonkeyPatch, variable: str, wanted: int) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        with free.context() as one:
            one.setenv(name, variable)
            assert cores() == wanted
            assert Numerics.choose("cpu", Large(), torch.zeros(3)).threads == wanted
            assert Numerics.choose("cpu", nn.Linear(3, 2), torch.zeros(3)).threads == 1


@given(
    bound=st.integers(1, 128),
    group=st.none() | st.integers(1, 128),
    variable=st.none() | st.integers(1, 128),
    asked=st.none() | st.integers(1, 128),
)
def test_the_least_of_all_limits_counts(bound: int, group: int | None, variable: int | None, asked: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_THREAD_LIMIT", raising=False)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        if variable is not None:
            patch.setenv("OMP_NUM_THREADS", str(variable))
        patch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound)), raising=False)
        patch.setattr("merging.machine.granted", lambda: group)
        with at_most(asked):
            assert cores() == min(count for count in (bound, group, variable, asked) if count is not None)


def test_a_number_of_threads_overrules_the_rule(free: pytest.MonkeyPatch) -> None:
    free.setenv("OMP_NUM_THREADS", "2")
    for module in (Large(), nn.Linear(3, 2)):
        numerics = Numerics.choose("cpu", module, torch.zeros(3), threads=3)
        assert numerics.threads == 3
        with numerics.applied():
            assert torch.get_num_threads() == 3
    rule = Numerics.choose("cpu", Large(), torch.zeros(3), threads=3)
    assert {one.threads for one in candidates(rule, 512, 3)} == {3}
    assert {one.threads for one in candidates(rule, 512)} > {3}


@pytest.mark.parametrize("threads", [0, -2, 100_000])
def test_senseless_numbers_are_refused(threads: int) -> None:
    with pytest.raises(OptionError, match=f"threads is {threads}; it is a number from 1 to"):
        Numerics.choose("cpu", nn.Linear(3, 2), torch.zeros(3), threads=threads)


def test_fp32_is_the_rule_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    for module in (Large(), nn.Linear(3, 2)):
        assert Numerics.choose("cpu", module, torch.zeros(3)).dtype == "float32"
        assert Numerics.choose("cpu", module, torch.zeros(3), "bf16").dtype == "bfloat16"
    assert not native_bf16("cpu")
    assert not native_bf16("mps")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert native_bf16("cuda:1")


@pytest.mark.parametrize("where", ["flag", "merge.toml"])
def test_threads_of_a_run_are_in_its_report_and_must_stay(merge, tiny: list[str], tmp_path: Path, where: str) -> None:  # noqa: ANN001
    folder = tmp_path / "run"
    if where == "merge.toml":
        (tmp_path / "merge.toml").write_text("[run]\nthreads = 2\n")
    given = ["--threads", "2"] if where == "flag" else []
    ran = merge(*tiny, *given, "--max-evaluations", "5", "--output", str(folder))
    assert ran.code == 0, ran.err
    assert json.loads((folder / "report.json").read_text())["numerics"]["threads"] == 2
    ran = merge("run", "--resume", str(folder), "--threads", "1", "--trust-code")
    assert ran.code != 0
    assert "threads was 2, is 1" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["run", "check", "benchmark"])
def test_commands_refuse_senseless_threads_in_a_line(merge, tiny: list[str], tmp_path: Path, command: str) -> None:  # noqa: ANN001
    output = [] if command == "check" else ["--output", str(tmp_path / "x")]
    ran = merge(command, *tiny[1:], "--threads", "0", *output)
    assert ran.code == 2
    assert "threads" in ran.err
    assert "is 0, but must be between 1 and 1024" in ran.err
    assert not (tmp_path / "x").exists()


def test_weights_that_are_computed_without_a_task_keep_to_what_is_granted(
    free: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No model runs there, so that no numerics say how many."""
    seen: list[int] = []

    def mean(name: str, models: list[torch.Tensor], base: torch.Tensor | None) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return torch.stack(models).mean(0)

    for number in range(2):
        save_file({"a": torch.full((3,), float(number))}, tmp_path / f"{number}.safetensors")
    pool = ModelPool.open([tmp_path])
    partition = Whole().split(pool.tensors)
    assert isinstance(partition, Partition)
    computed = Computed(pool, partition, mean)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with at_most(3):
            assert computed["a"].tolist() == [0.5] * 3
        free.setattr("merging.machine.granted", lambda: 2)
        assert computed["a"].tolist() == [0.5] * 3
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert seen == [3, 2]
