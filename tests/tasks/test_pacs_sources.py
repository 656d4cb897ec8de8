"""The suite pacs with other domains as its source, other seeds, and without the photos that were sketched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_1

from merging.data.examples import numbers, pixels, write_npz
from merging.data.parts import drawn
from merging.errors import TaskError
from merging.plugins.progress import Silent
from merging.plugins.task import Split, Task
from merging.tasks.catalogue import load_task
from merging.tasks.pacs import DOMAINS, pacs, parts_of
from merging.tasks.pacs_sketched import others, sketched
from tests.conftest import Merge

DATA = Path(os.environ.get("MERGING_TEST_DATA", "nowhere"))
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="MERGING_TEST_DATA does not name the test data's folder")
COUNTS = dict(zip(DOMAINS, (70, 77, 84, 91), strict=True))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four domains of as many images as :data:`COUNTS` says, all of them different."""
    arrays: dict[str, Any] = {}
    for seed, (domain, count) in enumerate(COUNTS.items()):
        arrays |= {f"{domain}_images": pixels(count, side=32, seed=seed), f"{domain}_labels": numbers(count, 7)}
    path = tmp_path_factory.mktemp("pacs") / "pacs.npz"
    write_npz(path, arrays)
    return path


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def images(*splits: Split | None) -> list[bytes]:
    return [bytes(x.numpy()) for split in splits if split is not None for x in split.inputs]


def of_domain(task: Task, domain: str, file: Path) -> dict[str, set[bytes]]:
    """Part → those of its images that are of a domain."""
    with np.load(file) as arrays:
        own = {x.tobytes() for x in arrays[f"{domain}_images"]}
    parts = {"held-out": task.held_out, "test": task.tests["test"], "train": task.train}
    return {name: own & set(images(split)) for name, split in parts.items()}


@pytest.mark.parametrize(
    ("source", "shifts"),
    [
        (("photo", "art_painting"), ("cartoon", "sketch")),
        (["cartoon", "art_painting"], ("photo", "sketch")),
        (("sketch", "photo", "cartoon"), ("art_painting",)),
        ("sketch", ("photo", "art_painting", "cartoon")),
    ],
)
def test_the_other_domains_are_the_shifts(source: Any, shifts: tuple[str, ...], file: Path) -> None:
    task = load_task("pacs", data=str(file), source=source)
    assert task.shifts == shifts
    assert tuple(task.tests) == ("test", *shifts)
    with np.load(file) as arrays:
        for name in shifts:
            assert np.array_equal(task.tests[name].inputs.numpy(), arrays[f"{name}_images"])
        own = [x.tobytes() for name in DOMAINS if name not in shifts for x in arrays[f"{name}_images"]]
    assert sorted(images(task.held_out, task.tests["test"], task.train)) == sorted(own), "each image in one part"
    assert (task.name == "pacs") == (shifts == ("cartoon", "sketch"))


def test_a_domain_is_divided_alike_whatever_else_is_the_source(file: Path) -> None:
    for seed in (0, 5):
        alone, first, last = (
            of_domain(pacs(file, source=source, split_seed=seed), "cartoon", file)
            for source in (("cartoon",), ("art_painting", "cartoon"), ("sketch", "cartoon", "photo"))
        )
        assert alone == first == last
        assert {name: len(part) for name, part in alone.items()} == {"held-out": 21, "test": 14, "train": 49}


def test_the_order_in_which_the_source_is_named_changes_nothing(file: Path) -> None:
    one, other = (pacs(file, source=source) for source in (("cartoon", "photo"), ("photo", "cartoon")))
    assert one.held_out.fingerprint == other.held_out.fingerprint
    assert one.name == other.name == "pacs (photo, cartoon)"


def test_seed_0_draws_by_the_number_of_the_domain() -> None:
    """As the first two domains have been drawn before there was a seed; numpy's padding of seeds gives it."""
    labels = np.random.default_rng(3).integers(0, 7, 700)
    bounds = {"held-out": (0.0, 0.2), "test": (0.2, 0.4), "train": (0.4, 1.0)}
    for number, domain in enumerate(DOMAINS):
        now, before = parts_of(domain, labels, 0), drawn(labels, bounds, number)
        assert all(np.array_equal(now[name], before[name]) for name in bounds)


def test_seeds_and_domains_are_drawn_independently() -> None:
    labels = np.arange(1400) % 7
    held_out = {
        (domain, seed): set(parts_of(domain, labels, seed)["held-out"].tolist())
        for domain in DOMAINS
        for seed in range(4)
    }
    assert {len(part) for part in held_out.values()} == {280}
    keys = list(held_out)
    shared = [len(held_out[a] & held_out[b]) for i, a in enumerate(keys) for b in keys[:i]]
    assert max(shared) < 95, "56 are expected of two independent draws; the same draw would share 280"
    assert min(shared) > 25


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"source": ["photo", "art"]},
            r"^unknown domain of PACS in source: 'art'; .* \(they are photo, art_painting, cartoon, sketch\)",
        ),
        (
            {"source": ["photo", "cartoons"]},
            r"^unknown domain of PACS in source: 'cartoons'; did you mean 'cartoon'\?",
        ),
        (
            {"source": DOMAINS},
            r"^source names all domains of PACS, and none is left for a shift; name one to three of",
        ),
        (
            {"source": []},
            r"^source names no domain of PACS; name one to three of photo, art_painting, cartoon, sketch",
        ),
        ({"source": ["photo", "photo"]}, r"^source names a domain of PACS twice: photo, photo; name each once"),
        ({"split_seed": -1}, r"^split_seed is -1; it is a whole number from 0 on"),
        ({"without_sketched": True}, r"^without_sketched counts the 1,670 photos of pacs96\.npz, and .*pacs\.npz has "),
    ],
)
def test_mistakes(given: dict[str, Any], said: str, file: Path) -> None:
    with pytest.raises(TaskError, match=said) as refused:
        pacs(file, **given)
    assert "\n" not in str(refused.value)


def test_merge_toml_names_the_source(merge: Merge, file: Path) -> None:
    more = "options = { source = ['art_painting', 'cartoon'], split_seed = 2 }\n[pool]\nmodels = ['*.pt']\n"
    toml = f"[task]\nname = 'pacs'\ndata = '{file}'\n{more}"
    Path("merge.toml").write_text(toml)
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(squeezenet1_1(num_classes=7).state_dict(), f"model_{seed}.pt")
    ran = merge("run", "--strategy", "uniform", "--no-baselines", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert report["task"] == "pacs (art_painting, cartoon), split 2"
    assert set(report["tests"]) == {"test", "photo", "sketch"}
    Path("merge.toml").write_text(toml.replace("'cartoon'", "'carton'"))
    wrong = merge("run", "--strategy", "uniform", "--output", "other")
    assert wrong.code == 2
    assert "did you mean 'cartoon'?" in wrong.err


def test_the_list_of_sketched_photos() -> None:
    """434, each an ImageNet image of its own; photos are stored by class, of 189, 202, 182, 186, 199, 280 and 432."""
    found = sketched()
    assert len(found) == len(set(found.values())) == 434
    assert all(name[0] == "n" and name[1:].replace("_", "").isdigit() for name in found.values())
    ends = np.cumsum([189, 202, 182, 186, 199, 280, 432])
    classes = np.searchsorted(ends, list(found), side="right")
    assert np.bincount(classes, minlength=7).tolist() == [95, 84, 99, 79, 77, 0, 0]
    pairs = {(name.partition("_")[0], number) for name, number in zip(found.values(), classes.tolist(), strict=True)}
    assert len(pairs) == len({wordnet for wordnet, _ in pairs}), "a WordNet id is of one class"


@with_data
def test_the_list_is_for_one_file(tmp_path: Path) -> None:
    kept = others(DATA / "pacs96.npz", 1670)
    assert len(kept) == 1670 - 434
    assert not set(kept.tolist()) & set(sketched())
    with pytest.raises(TaskError, match=r"and 1,669 of .* can be decoded; get the file again"):
        others(DATA / "pacs96.npz", 1669)
    with np.load(DATA / "pacs96.npz") as arrays:
        np.savez(
            tmp_path / "moved.npz",
            photo_labels=arrays["photo_labels"],
            photo_offsets=arrays["photo_offsets"][::-1],
        )
    with pytest.raises(TaskError, match=r"or in another order or size; leave it out"):
        others(tmp_path / "moved.npz", 1670)


@with_data
def test_photos_that_were_sketched_are_in_no_part(tmp_path: Path) -> None:
    """On the real photos, with other domains of a few made-up images."""
    arrays: dict[str, Any] = {}
    with np.load(DATA / "pacs96.npz") as real:
        arrays |= {name: real[name] for name in ("photo_jpeg", "photo_offsets", "photo_labels")}
    for seed, domain in enumerate(DOMAINS[1:]):
        arrays |= {f"{domain}_images": pixels(35, side=96, seed=seed), f"{domain}_labels": numbers(35, 7)}
    np.savez(tmp_path / "pacs.npz", allow_pickle=False, **arrays)
    said = Heard()
    whole = pacs(tmp_path / "pacs.npz", source=("photo", "cartoon"))
    source = pacs(tmp_path / "pacs.npz", source=("photo", "cartoon"), without_sketched=True, progress=said)
    assert said.texts == ["434 photos from which a sketch was drawn left out"]
    assert source.name == "pacs (photo, cartoon), without 434 photos that were sketched"
    lost = 0
    for name in ("held-out", "test", "train"):
        before, after = images(whole.split(name)), images(source.split(name))
        assert set(after) <= set(before), "an image stays in its part"
        lost += len(before) - len(after)
    assert lost == 434
    shift = pacs(tmp_path / "pacs.npz", source=("cartoon", "sketch"), without_sketched=True).tests["photo"]
    every = pacs(tmp_path / "pacs.npz", source=("cartoon", "sketch")).tests["photo"]
    kept = [number for number in range(1670) if number not in sketched()]
    assert torch.equal(shift.inputs, every.inputs[kept])
    assert torch.equal(shift.labels, every.labels[kept])
