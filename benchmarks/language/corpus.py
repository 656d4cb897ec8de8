"""The corpora: general text to pretrain on, two domains to fine-tune on, a third that nothing was trained on.

Documents are divided by a hash of their names, so that none is in two parts; a paragraph that has been seen before, in
any package, is left out, and so is a sample to be scored that has a long run of words in common with training text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.language import packages
from merging.storage import atomic

DOMAINS: Mapping[str, tuple[str, ...]] = {
    "manuals": ("perl-doc",),
    "essays": ("anarchism",),
    "jargon": ("dict-jargon",),
    "general": (
        "dict-gcide",
        "dict-foldoc",
        "dict-devil",
        "wordnet-base",
        "fortunes",
        "fortunes-min",
        "debian-handbook",
        "debian-policy",
        "debian-faq",
    ),
}
"""Domain → the packages that it is made of: manuals and essays are fine-tuned on, jargon is the shift."""
PARTS = {"train": 70, "held_out": 85, "test": 100}
"""Part → the percentile of a document's hash that it ends at; all of the shift is for testing."""
LENGTH = (200, 900)
"""Characters of a sample, at least and at most: about one row of the model."""
MOST = {"held_out": 150, "test": 400}
"""Samples of a set at the most: the held-out ones are scored again for each merge that is tried."""
RUN = 13
"""Words one after the other that are no chance when they stand in two texts."""
QUESTIONS = 300
"""Questions of a held-out or test set at the most."""


def build(folder: Path, output: Path) -> None:
    """Writes the corpora as JSONL, and what they were made of.

    Args:
        folder: of the packages.
        output: of the corpora.
    """
    hashes, seen = packages.fetch(folder), set[str]()
    output.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[str]] = {}
    for domain, names in DOMAINS.items():  # the domains before what is general: their paragraphs are not in it
        for package in names:
            for name, text in packages.documents(folder, package):
                found.setdefault((domain, _part(domain, name)), []).extend(_samples(text, seen))
    trained = [text for (_, part), texts in found.items() if part == "train" for text in texts]
    counts, left_out = {}, {}
    for (domain, part), samples in sorted(found.items()):
        draw, kept, name = np.random.default_rng(29), samples, f"{domain}_{part}"
        if part != "train":
            fresh = unseen(samples, trained)
            left_out[name] = round(1 - len(fresh) / len(samples), 4)
            kept = [fresh[k] for k in sorted(draw.permutation(len(fresh))[: MOST[part]])]
        counts[name] = len(kept), sum(map(len, kept))
        _write(output / f"{name}.jsonl", ({"text": text} for text in kept))
        if part != "train":
            asked = list(_questions(kept, draw))
            counts[f"{name}_questions"] = len(asked), 0
            _write(output / f"{name}_questions.jsonl", asked)
    facts = {"packages": hashes, "samples_and_characters": counts, "left_out": left_out}
    atomic.write(output / "corpus.json", json.dumps(facts, indent=1) + "\n")


def unseen(samples: list[str], trained: list[str], words: int = RUN) -> list[str]:
    """Keeps the samples that have no long run of words in common with a text that was trained on.

    Args:
        samples: what is to be scored.
        trained: all texts that are trained on, of every domain.
        words: how long a run is.
    """

    def runs(text: str) -> set[tuple[str, ...]]:
        said = re.findall(r"\w+", text.lower())
        return {tuple(said[k : k + words]) for k in range(len(said) - words + 1)}

    own = [runs(text) for text in samples]
    wanted = set[tuple[str, ...]]().union(*own)
    seen = set[tuple[str, ...]]().union(*(wanted & runs(text) for text in trained))
    return [text for text, each in zip(samples, own, strict=True) if not each & seen]


def _part(domain: str, name: str) -> str:
    if domain == "general":
        return "train"
    if domain == "jargon":
        return "test"
    place = int(hashlib.sha256(f"{domain}/{name}".encode()).hexdigest()[:8], 16) % 100
    return next(part for part, end in PARTS.items() if place < end)


def _samples(text: str, seen: set[str]) -> Iterator[str]:
    """Paragraphs one after the other, as many as a sample holds; none twice."""
    held = ""
    for paragraph in (part.strip() for part in text.split("\n\n")):
        if len(paragraph) < 40 or paragraph in seen:
            continue
        seen.add(paragraph)
        if held and len(held) + len(paragraph) > LENGTH[1]:
            if len(held) >= LENGTH[0]:
                yield held[: LENGTH[1]]
            held = ""
        held = f"{held}\n\n{paragraph}" if held else paragraph
    if len(held) >= LENGTH[0]:
        yield held[: LENGTH[1]]


def _questions(samples: list[str], draw: np.random.Generator) -> Iterator[dict[str, object]]:
    """Which of four sentences comes next? The others are next elsewhere."""
    pairs = []
    for text in samples:
        sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", text.replace("\n\n", " "))
        fits = [k for k in range(1, len(sentences)) if 30 < len(sentences[k]) < 160 and len(sentences[k - 1]) > 40]
        if fits:
            pairs.append((sentences[fits[0] - 1], sentences[fits[0]]))
    for number in range(min(len(pairs), QUESTIONS)):
        question, right = pairs[number]
        others = [k for k in draw.permutation(len(pairs)) if k != number and pairs[k][1] != right][:3]
        place = int(draw.integers(4))
        choices = [pairs[k][1] for k in others]
        choices.insert(place, right)
        if len(set(choices)) == 4:
            yield {"question": question, "choices": choices, "answer": place}


def _write(path: Path, rows: object) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)  # type: ignore[attr-defined]
    atomic.write(path, "".join(lines))
