"""The scores of texts here are lm-eval's own, on the same file with the same model."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import merging
from merging.harness.results import Results
from tests.harness.conftest import lines

CLOSE = 1e-5


def task(language: Path, folder: Path, **held_out: object) -> Path:
    told = ", ".join(f"{key} = {value!r}".lower().replace("'", '"') for key, value in held_out.items())
    path = folder / "task.toml"
    path.write_text(f'[task]\nmodel = "transformers:{language}/models/a"\nheld_out = {{ {told} }}\n', encoding="utf-8")
    return path


def test_documents(language: Path, tmp_path: Path, scored: dict[str, Results]) -> None:
    """Log-likelihood of every document, windows of long ones included; word and byte perplexity are made of them."""
    described = task(language, tmp_path, path=f"{language}/prose.jsonl", prefix=True)
    outcome = merging.evaluate(language / "models/a", described, device="cpu")["held-out"]
    theirs = [line["word_perplexity"][0] for line in lines(scored["a"], "prose")]
    texts = [line["doc"]["text"] for line in lines(scored["a"], "prose")]
    assert outcome.terms is not None
    assert sorted(outcome.terms[:, 0]) == pytest.approx(sorted(theirs), rel=CLOSE)
    likelihood = float(outcome.terms[:, 0].sum())
    scores = scored["a"].tasks["prose"].scores
    words, size = sum(len(re.split(r"\s+", text)) for text in texts), sum(len(text.encode()) for text in texts)
    assert math.exp(-likelihood / words) == pytest.approx(scores["word_perplexity", "none"], rel=CLOSE)
    assert -likelihood / size / math.log(2) == pytest.approx(scores["bits_per_byte", "none"], rel=CLOSE)


@pytest.mark.parametrize(("length", "metric"), [("none", "acc"), ("characters", "acc_norm")])
def test_questions(language: Path, tmp_path: Path, scored: dict[str, Results], length: str, metric: str) -> None:
    """Accuracy, and the log-likelihoods of the choices, through the mean log-likelihood of the right ones."""
    described = task(language, tmp_path, path=f"{language}/quiz.jsonl", length=length)
    outcome = merging.evaluate(language / "models/a", described, device="cpu")["held-out"]
    assert outcome.score == scored["a"].tasks["quiz"].scores[metric, "none"]
    found = merging.evaluate(language / "models/a", described, objective="nll", device="cpu")["held-out"]
    rights = []
    for line in lines(scored["a"], "quiz"):
        long = [len(choice) if metric == "acc_norm" else 1 for choice in line["doc"]["choices"]]
        told = np.array([float(answer[0][0]) for answer in line["resps"]]) / long
        rights.append(told[line["doc"]["answer"]] - np.logaddexp.reduce(told))
    assert found.score == pytest.approx(np.mean(rights), rel=CLOSE)
    assert sorted(found.terms) == pytest.approx(sorted(rights), rel=CLOSE)  # type: ignore[arg-type]
