"""Batches that other processes augment: their draws are their own, whoever makes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.errors import OptionError
from merging.training.ahead import Workers, augmented

POLICY = "rand-m5-mstd0.5"
IMAGES = torch.randint(0, 256, (24, 20, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PARTS = torch.randperm(24, generator=torch.Generator().manual_seed(1)).split(4)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two of them, for all tests here."""
    made = Workers(2)
    yield made
    made.close()


@pytest.mark.slow
def test_batches_depend_on_their_number_and_seed_alone(workers: Workers) -> None:
    there = list(workers.batches(POLICY, 3, 10, IMAGES, PARTS))
    here = [augmented(POLICY, 3, 10 + k, IMAGES[part].numpy()) for k, part in enumerate(PARTS)]
    assert all(torch.equal(one, torch.from_numpy(other)) for one, other in zip(there, here, strict=True))
    later = list(workers.batches(POLICY, 3, 12, IMAGES, PARTS[2:]))  # what a run that goes on asks for
    assert all(torch.equal(one, other) for one, other in zip(later, there[2:], strict=True))
    other = list(workers.batches(POLICY, 4, 10, IMAGES, PARTS))
    assert not any(torch.equal(one, two) for one, two in zip(there, other, strict=True))
    again = list(workers.batches(POLICY, 3, 10, IMAGES, [PARTS[0]] * 2))
    assert not torch.equal(*again), "the same samples in another step"


@pytest.mark.slow
def test_generators_of_this_process_are_left_alone(workers: Workers) -> None:
    before = torch.get_rng_state()
    list(workers.batches(POLICY, 0, 0, IMAGES, PARTS[:2]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_mistake_is_told_as_it_is_here(workers: Workers) -> None:
    with pytest.raises(OptionError, match="for stored images"):
        list(workers.batches(POLICY, 0, 0, IMAGES.float(), PARTS))


@pytest.mark.slow
def test_killed_workers_change_nothing_and_closed_ones_are_gone() -> None:
    made = Workers(1)
    batches = made.batches(POLICY, 0, 0, IMAGES, PARTS)
    found = [next(batches)]
    assert made._pool is not None
    (process,) = made._pool._processes.values()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    found += list(batches)
    here = [augmented(POLICY, 0, k, IMAGES[part].numpy()) for k, part in enumerate(PARTS)]
    assert all(torch.equal(one, torch.from_numpy(other)) for one, other in zip(found, here, strict=True))
    made.close()
    until = time.monotonic() + 10
    while process.is_alive() and time.monotonic() < until:
        time.sleep(0.05)
    assert not process.is_alive()


IN_A_PROCESS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import torch
from merging.training.ahead import Workers

kept = None

def begin():
    global kept
    kept = Workers(1)

def batches(number):
    images = torch.zeros((4, 16, 16, 3), dtype=torch.uint8)
    return len(list(kept.batches("rand-m5-mstd0.5", 0, 0, images, [torch.arange(4)] * number)))

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin) as pool:
        print(pool.submit(batches, 2).result())
"""


def began(folder: Path, text: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(text)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True, **pipes)


@pytest.mark.slow
def test_a_process_with_workers_of_its_own_ends(tmp_path: Path) -> None:
    """As those do that train side by side: nobody closes what they have when all is done."""
    process = began(tmp_path, IN_A_PROCESS)
    try:
        out, err = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out.strip(), err) == (0, "2", "")


KEYS = """
import os, signal, threading
import torch
from merging.training.ahead import Workers

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *given: None)
    threading.Timer(0.5, lambda: os.killpg(0, signal.SIGINT)).start()
    images = torch.zeros((4, 16, 16, 3), dtype=torch.uint8)
    print(len(list(Workers(1).batches("rand-m5-mstd0.5", 0, 0, images, [torch.arange(4)] * 3))))
"""


@pytest.mark.slow
def test_a_key_while_workers_start_is_for_this_process_alone(tmp_path: Path) -> None:
    process = began(tmp_path, KEYS)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out.strip(), err) == (0, "3", "")
