"""The corpora: general text to pretrain on, two domains to fine-tune on, a third that nothing was trained on.

Documents are divided by a hash of their names, so that none is in two parts; a paragraph that has been seen before, in
any package, is left out.
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
    counts = {}
    for domain, names in DOMAINS.items():  # the domains before what is general: their paragraphs are not in it
        found: dict[str, list[str]] = {part: [] for part in PARTS}
        for package in names:
            for name, text in packages.documents(folder, package):
                found[_part(domain, name)] += _samples(text, seen)
        for part, samples in found.items():
            if not samples:
                continue
            draw = np.random.default_rng(29)
            kept = samples
            if part in MOST:
                kept = [samples[k] for k in sorted(draw.permutation(len(samples))[: MOST[part]])]
            counts[f"{domain}_{part}"] = len(kept), sum(map(len, kept))
            _write(output / f"{domain}_{part}.jsonl", ({"text": text} for text in kept))
            if part != "train":
                asked = list(_questions(kept, draw))
                counts[f"{domain}_{part}_questions"] = len(asked), 0
                _write(output / f"{domain}_{part}_questions.jsonl", asked)
    facts = {"packages": hashes, "samples_and_characters": counts}
    atomic.write(output / "corpus.json", json.dumps(facts, indent=1) + "\n")


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
