"""Whatever is given where something else belongs is one clear line, in every argument of every public function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pytest
import torch
from torch import nn

import merging
from merging.benchmarking.runner import benchmark
from merging.errors import MergingError, Stopped
from merging.running.plan import plan
from tests.harness.conftest import write_results

LONGEST = 300
"""Characters that a line may have."""


class Nothing:
    """Something that nobody takes."""


WRONG = {
    "None": None,
    "a number": 3,
    "a text": "x",
    "an empty list": [],
    "a list of numbers": [1, 2],
    "an object": Nothing(),
    "a class": Nothing,
    "a frame": pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}),
    "a tensor": torch.ones(2, 2),
}
NEVER = ("an object", "a class", "a frame", "a tensor")
"""Nothing in the package takes these; a call that comes through has ignored them."""
TAKEN = {
    ("task", "model", "a class"): "a function that makes a module; it says so when it is called",
    ("task", "prepare", "a class"): "a function of a batch",
    ("split_of", "inputs", "a tensor"): "samples",
    ("split_of", "inputs", "a frame"): "samples",
    ("split_of", "labels", "a tensor"): "labels",
    ("split_of", "labels", "a frame"): "labels",
    ("split_of", "groups", "a tensor"): "names of groups",
    ("inspect_module", "example", "a tensor"): "a batch",
    ("inspect_pool", "example", "a tensor"): "a batch, which no module looks at",
    **{
        (name, "should_stop", "a class"): "what can be called"
        for name in ("apply", "inspect_pool", "benchmark", "lm_eval")
    },
}
"""Function, argument and value that belong together nevertheless, and why."""


def _pieces() -> dict[str, Any]:
    torch.manual_seed(0)
    inputs, labels = torch.rand(12, 4), torch.arange(12) % 3
    nets = [nn.Linear(4, 3) for _ in range(2)]
    task = merging.task(lambda: nn.Linear(4, 3), (inputs, labels), tests=(inputs, labels), train=(inputs, labels))
    return {"inputs": inputs, "labels": labels, "nets": nets, "task": task, "pool": merging.ModelPool(nets)}


def _calls(folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Each public function, and arguments with which it works."""
    made = _pieces()
    pool, task, nets = made["pool"], made["task"], made["nets"]
    data = (made["inputs"], made["labels"])
    result = merging.merge(pool, merging.Uniform())
    module = {"module": nets[0], "partitioner": merging.Whole(), "example": made["inputs"][:2]}
    sweep = merging.Sweep({"epochs": (1,)})
    return {
        "merge": (merging.merge, {"pool": pool, "strategy": merging.Uniform()}),
        "plan": (plan, {"pool": pool, "strategy": merging.Uniform()}),
        "benchmark": (benchmark, {"pool": pool, "methods": [merging.Uniform()], "task": task}),
        "evaluate": (merging.evaluate, {"model": nets[0], "task": task}),
        "finetune": (merging.finetune, {"make_task": task, "output": folder / "pool", "sweep": sweep, "models": 1}),
        "inspect_pool": (merging.inspect_pool, {"pool": pool, "partitioner": merging.Whole()}),
        "inspect_module": (merging.inspect_module, module),
        "interpolate": (merging.interpolate, {"pool": pool, "task": task, "steps": 2}),
        "check": (merging.check, {"models": pool, "strategy": merging.Uniform()}),
        "apply": (merging.apply, {"recipe": result}),
        "lm_eval": (merging.lm_eval, {"models": folder / "scored"}),
        "push": (merging.push, {"run": folder / "none", "repository": "ours/none"}),
        "task": (merging.task, {"model": nets[0], "held_out": data}),
        "load_task": (merging.load_task, {"name": task}),
        "pool": (merging.ModelPool, {"models": nets}),
        "open": (merging.ModelPool.open, {"models": nets}),
        "checkpoint_of": (merging.Checkpoint.of, {"model": nets[0]}),
        "split_of": (merging.Split.of, {"inputs": made["inputs"], "labels": made["labels"]}),
    }


def _arguments(function: Callable[..., Any]) -> Iterator[str]:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            yield parameter.name


@pytest.mark.parametrize("name", list(_calls(Path())))
def test_a_wrong_type_is_one_clear_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "scored", {"quiz": {"acc": [1.0, 0.0]}}, {"quiz": {"acc,none": 0.5}})
    wrong = list[str]()
    function, works = _calls(tmp_path)[name]
    for argument in _arguments(function):
        for kind, value in WRONG.items():
            case = f"{name}({argument}={kind})"
            try:
                function(**{**works, argument: value})
            except Stopped:
                assert argument == "should_stop", case  # a class is a function, and what it makes is true
            except (MergingError, TypeError) as error:
                said = str(error)
                ours = isinstance(error, MergingError)
                if "\n" in said or len(said) > LONGEST or not said:
                    wrong.append(f"{case}: {len(said)} characters: {said[:200]}")
                elif not ours:
                    wrong.append(f"{case}: TypeError: {said}")
            except Exception as error:
                wrong.append(f"{case}: {type(error).__name__}: {str(error)[:150]}")
            else:
                if kind in NEVER and (name, argument, kind) not in TAKEN:
                    wrong.append(f"{case}: comes through")
    assert not wrong, "\n".join(wrong)
