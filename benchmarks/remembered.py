"""What it saves that commands remember scores and content hashes: the same commands, without and with.

Two measurements, each in turns (without, with, without, …), the median of each: a chain of four commands over the
digits, and the content hashes of a pool of large files. Files are in the page cache.

    python -m benchmarks.remembered --rounds 3 --models 12 --megabytes 100
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool

CHAIN = {
    "run": ["run", "--task", "digits", "--strategy", "greedy", "--output", "run", "--overwrite"],
    "benchmark": ["benchmark", "--task", "digits", "--strategies", "best,uniform,greedy", "--output", "bench"],
    "inspect": ["inspect", "--task", "digits"],
    "evaluate": ["evaluate", "run"],
}


def seconds(arguments: list[str], folder: Path, *, remember: bool) -> float:
    """Times one command in a process of its own."""
    environment = os.environ | {"MERGING_CACHE": str(folder / "cache"), "MERGING_REMEMBER": str(int(remember))}
    began = time.perf_counter()
    command = [sys.executable, "-m", "merging", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)  # noqa: S603 (our own)
    return time.perf_counter() - began


def chain(rounds: int) -> dict[str, dict[str, float]]:
    """Times the commands of the chain, without and with what an earlier chain has left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for arguments in CHAIN.values():
            seconds(arguments, folder, remember=True)
        found: dict[str, dict[str, list[float]]] = {each: {"without": [], "with": []} for each in CHAIN}
        for _ in range(rounds):
            for each, arguments in CHAIN.items():
                for kind, remember in (("without", False), ("with", True)):
                    fresh = [*arguments, "--overwrite"] if each == "benchmark" else arguments
                    found[each][kind].append(seconds(fresh, folder, remember=remember))
    return {each: {kind: statistics.median(times) for kind, times in own.items()} for each, own in found.items()}


def hashing(rounds: int, models: int, megabytes: int) -> dict[str, float]:
    """Times the content hashes of a pool's files, read and remembered, in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(models):
            torch.manual_seed(number)
            state = {"layer.weight": torch.randn(megabytes * 10_000, 25)}
            save_file(state, folder / f"m{number}.safetensors")
        os.environ["MERGING_CACHE"] = str(folder / "cache")
        time.sleep(2.1)
        found: dict[str, list[float]] = {"0": [], "1": []}
        _ = [checkpoint.hash for checkpoint in map(Checkpoint, sorted(folder.glob("*.safetensors")))]
        for _ in range(rounds):
            for remember, times in found.items():
                os.environ["MERGING_REMEMBER"] = remember
                began = time.perf_counter()
                _ = ModelPool.open([folder / "*.safetensors"]).ingredients
                times.append(time.perf_counter() - began)
    return {"read": statistics.median(found["0"]), "remembered": statistics.median(found["1"])}


def main() -> None:
    """Measures both, and prints them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--megabytes", type=int, default=100)
    told = parser.parse_args()
    found = {"hashing": hashing(told.rounds, told.models, told.megabytes), "chain": chain(told.rounds)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
