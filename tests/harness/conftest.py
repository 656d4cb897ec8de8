"""Tiny language models with a tokenizer, tasks of lm-eval over files of this disk, and files as lm-eval writes them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.harness import results
from merging.harness.asked import Asked
from merging.harness.models import loadables
from merging.harness.running import run
from merging.plugins.watcher import Watcher

WORDS = ["cat", "dog", "mat", "house", "rain", "ball", "box", "cows", "water", "red"]
LINES = (
    "The cat sat on the mat and saw a dog.",
    "A dog ran to the house in the rain.",
    "Where is the red ball? The ball is in the box.",
    "Question: what do cows drink? Answer: water",
)
TASKS_RUN = ("both", "prose", "said")
CONTEXT = 48
"""Tokens that the models take, fewer than some documents have."""
DATE = "2026-11-28T06-11-28.632834"
QUIZ = """
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/quiz.jsonl}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
TASKS = {
    "quiz": "task: quiz" + QUIZ,
    "other": "include: quiz.yaml\ntask: other\ndescription: 'Be right. '\n",
    "both": "group: both\ntask: [quiz, other]\naggregate_metric_list:\n  - {metric: acc, weight_by_size: true}\n",
    "prose": """task: prose
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/prose.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "said": """task: said
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/quiz.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 3}
filter_list:
  - {name: strict, filter: [{function: take_first}]}
  - {name: loose, filter: [{function: regex, regex_pattern: "([a-z]+)"}, {function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "runs_code": "include: quiz.yaml\ntask: runs_code\nprocess_docs: !function own.kept\n",
    "looks_around": "include: quiz.yaml\ntask: looks_around\ndoc_to_text: \"{{ ''.__class__.__mro__ }}\"\n",
    "elsewhere": "task: elsewhere" + QUIZ.replace("path: json", "path: someone/things").replace("FOLDER", "."),
    "misspelled": "include: quiz.yaml\ntask: misspelled\ndoc_to_text: '{{quesion}}'\n",
    "fetches": "include: quiz.yaml\ntask: fetches\nmetric_list: [{metric: meteor}]\n",
}


@pytest.fixture(scope="session")
def lm_eval() -> None:
    pytest.importorskip("lm_eval", reason="lm-eval comes with dev-full")


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory, lm_eval: None) -> Iterator[Path]:
    """A folder with ``models/base``, ``models/a`` and ``models/b``, and ``tasks``; data sets are cached beside them."""
    import datasets
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language")
    parts = Tokenizer(models.BPE())
    parts.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts.decoder = decoders.ByteLevel()
    parts.train_from_iterator(LINES * 3, trainers.BpeTrainer(vocab_size=200, special_tokens=["<s>", "</s>"]))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=parts, **special)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, initializer_range=0.3, bos_token_id=0, **sizes
        )
        LlamaForCausalLM(config).save_pretrained(folder / "models" / name)
        tokenizer.save_pretrained(folder / "models" / name)
    draw = random.Random(0)  # noqa: S311
    write_lines(
        folder / "quiz.jsonl",
        [
            {
                "question": f"What is {draw.choice(WORDS)}?",
                "choices": draw.sample(WORDS, 3),
                "answer": draw.randrange(3),
            }
            for _ in range(24)
        ],
    )
    texts = [" ".join(draw.choices(WORDS, k=draw.randrange(5, 60))) for _ in range(12)]
    write_lines(folder / "prose.jsonl", [{"text": text} for text in texts])
    (folder / "tasks").mkdir()
    for name, text in TASKS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    (folder / "tasks/own.py").write_text("def kept(docs):\n    return docs.select(range(4))\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


def asked(language: Path, *tasks: str, **more: Any) -> Asked:
    return Asked(tasks=tasks or TASKS_RUN, include_path=(language / "tasks",), device="cpu", **more)


@pytest.fixture(scope="session")
def scored(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, results.Results]:
    """Two models on three tasks, by one call."""
    places = loadables({name: language / "models" / name for name in ("a", "b")})
    files = run(places, asked(language), tmp_path_factory.mktemp("scored") / "out", Watcher())
    return {name: results.read(file) for name, file in files.items()}


def lines(found: results.Results, task: str) -> list[dict[str, Any]]:
    path = found.tasks[task].file
    assert path is not None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


Samples = Mapping[str, Mapping[str, Sequence[Any]]]
"""Task → metric → what it made of each sample."""
Write = Callable[..., Path]


def _hash(*parts: object) -> str:
    return hashlib.sha256("".join(map(str, parts)).encode()).hexdigest()


def write_results(
    folder: Path,
    samples: Samples,
    scores: Mapping[str, Mapping[str, float]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    filters: Sequence[str] = ("none",),
    lower: Sequence[str] = (),
    aggregations: Mapping[str, str] | None = None,
    prompt: str = "",
    **changes: Any,
) -> Path:
    """Writes what lm-eval writes of one model."""
    folder.mkdir(parents=True)
    told = {
        "results": {task: {"alias": task, **of} for task, of in scores.items()},
        "group_subtasks": dict(groups or {}),
        "configs": {
            task: {"metric_list": [{"metric": m, "aggregation": (aggregations or {}).get(m, "mean")} for m in of]}
            for task, of in samples.items()
        },
        "versions": dict.fromkeys(scores, 1.0),
        "n-shot": dict.fromkeys(scores, 0),
        "higher_is_better": {task: {m: m not in lower for m in of} for task, of in samples.items()},
        "n-samples": {task: {"effective": len(next(iter(of.values())))} for task, of in samples.items()},
        "lm_eval_version": "0.4.13",
        "model_name": folder.name,
    }
    (folder / f"results_{DATE}.json").write_text(json.dumps(told | changes), encoding="utf-8")
    for task, of in samples.items():
        lines = [
            {
                "doc_id": number,
                "filter": each,
                "metrics": list(of),
                "doc_hash": _hash(task, number),
                "prompt_hash": _hash(task, number, prompt),
                "target_hash": _hash(number),
                **{metric: values[number] for metric, values in of.items()},
            }
            for each in filters
            for number in range(len(next(iter(of.values()))))
        ]
        write_lines(folder / f"samples_{task}_{DATE}.jsonl", lines)
    return folder


@pytest.fixture
def logged(tmp_path: Path) -> Write:
    """``logged(name, samples, scores, …)`` writes what lm-eval writes of one model, and gives the folder."""
    return lambda name, *of, **more: write_results(tmp_path / "out" / name, *of, **more)
