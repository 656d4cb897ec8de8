"""Causal language models and texts, as merge check, merge init and merging.task see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import merging
from merging.errors import TaskError
from merging.looking.guessing.guess import Given, propose
from merging.looking.guessing.proposal import Proposal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
Merge = Callable[..., Any]
TEXTS = [f"text {'long ' * (number % 4)}{number}" for number in range(12)]
ASKED = [{"question": f"{n}?", "choices": ["yes", "no", "or"][: 2 + n % 2], "answer": n % 2} for n in range(6)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny language models that read bytes, documents, and questions."""
    folder = tmp_path_factory.mktemp("language")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(["</s>", *letters])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")  # noqa: S106
    config = transformers.GPT2Config(
        vocab_size=len(own), n_embd=8, n_layer=1, n_head=1, n_positions=24, bos_token_id=0, eos_token_id=0
    )
    for number in range(2):
        torch.manual_seed(number)
        model = transformers.GPT2LMHeadModel(config)
        model.save_pretrained(folder / f"models/m{number}")
        own.save_pretrained(folder / f"models/m{number}")
    return folder


@pytest.fixture
def here(pool: Path, tmp_path: Path, own_cache: Path) -> Path:
    """A folder with the models and texts."""
    del own_cache
    (tmp_path / "models").symlink_to(pool / "models")
    write(tmp_path / "val.jsonl", [{"text": text} for text in TEXTS])
    write(tmp_path / "test.jsonl", [{"text": text} for text in [*TEXTS[2:4], "another one"]])
    write(tmp_path / "quiz.jsonl", ASKED)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def task_file(folder: Path, **sets: str) -> None:
    said = "\n".join(f"{name} = {value}" for name, value in sets.items())
    (folder / "merge.toml").write_text(
        '[pool]\nmodels = ["models/m*"]\n[run]\nstrategy = "uniform"\n'
        f'[task]\nmodel = "transformers:models/m0"\n{said}\n'
    )


def test_check_counts_tokens_and_shows_what_is_scored(merge: Merge, here: Path) -> None:
    task_file(here, held_out='"val.jsonl"', test='{ path = "test.jsonl", context = 8, stride = 4 }')
    ran = merge("check")
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "held-out 12 documents" in said
    assert "t⟦ext 0⟧" in said
    assert "t⟦ext long⟧ (and 2 windows more)" in said
    assert "2 samples of test also in held-out" in said, "whatever the windows"
    assert "tokens on cpu" in said
    found = json.loads(merge("check", "--json").out)
    assert found["outputs"] == 1
    (held, test) = found["sets"]
    assert (held["labels"], held["choices"], held["counts"]) == ("documents", 0, [])
    assert held["scored"] == sum(map(len, TEXTS)) - len(TEXTS)
    assert held["tokens"] >= held["scored"]
    assert test["shape"] == [9]


def test_check_shows_questions_and_both(merge: Merge, here: Path) -> None:
    task_file(here, held_out='"quiz.jsonl"')
    ran = merge("check")
    assert ran.code == 0, ran.err
    said = " ".join(ran.out.split())
    assert "questions, 3 choices" in said
    assert "Question: 0?\\nAnswer: ✓ ⟦ yes⟧ ⟦ no⟧" in said
    assert "no samples of" not in said
    found = json.loads(merge("check", "--json").out)["sets"][0]
    assert (found["labels"], found["choices"], found["counts"], found["missing"]) == ("questions", 3, [3, 3, 0], [])
    task_file(here, held_out='{ docs = "val.jsonl", quiz = "quiz.jsonl" }', test='"quiz.jsonl"')
    said = " ".join(merge("check").out.split())
    assert "documents and questions, 3 choices" in said
    assert "6 samples of test also in held-out: scores" in said, "with the same right choice"


def test_check_says_that_one_place_is_always_right(merge: Merge, here: Path) -> None:
    write(here / "quiz.jsonl", [{"question": f"{n}?", "choices": ["a", "b"], "answer": 1} for n in range(24)])
    task_file(here, held_out='"quiz.jsonl"')
    said = " ".join(merge("check").out.split())
    assert "held-out: the right choice is always number 2" in said
    assert "no better than a guess" in said
    assert "do the answers count from 0" in said, "and nothing of pictures"
    assert "normalisation" not in said


def test_pictures_show_texts_as_well(here: Path) -> None:
    from merging.looking.strips import _lines

    source: Any = merging.model_source(f"transformers:{here / 'models/m0'}")
    task = merging.task(source.spec, TEXTS[:2], tests=ASKED)
    lines = [each["text"] for each in _lines(task.held_out, [0, 1], None, source.decode, (900, 0))]
    assert lines == ["5:  t⟦ext 0⟧", "10:  t⟦ext long 1⟧"]
    lines = [each["text"] for each in _lines(task.tests["test"], [0], None, source.decode, (900, 0))]
    assert lines == ["A:  Question: 0?\\nAnswer:⟦ yes⟧⟦ no⟧"]


def proposal(folder: Path) -> Proposal:
    return propose(Given(folder=folder))


def test_init_finds_models_texts_and_the_objective(merge: Merge, here: Path) -> None:
    found = proposal(here)
    said = {entry.key: entry.value for entry in (*found.task, *found.run)}
    assert said["model"].startswith("transformers:")
    assert said["held_out"] == str(here / "val.jsonl")
    assert said["test"] == str(here / "test.jsonl")
    assert said["objective"] == "nll"
    assert "questions, and the held-out data are documents" in " ".join(found.notes)
    assert merge("init").code == 0
    assert merge("check").code == 0


def test_init_of_questions_and_of_a_column_of_another_name(here: Path) -> None:
    for name in ("val", "test"):
        (here / f"{name}.jsonl").unlink()
    found = proposal(here)
    said = {entry.key: entry.value for entry in (*found.task, *found.run)}
    assert (said["held_out"], said["objective"]) == (str(here / "quiz.jsonl"), "accuracy")
    write(here / "val.jsonl", [{"review": text} for text in TEXTS])
    write(here / "broken.jsonl", [{"prompt": text} for text in TEXTS])
    found = proposal(here)
    assert found.task[1].value == {"path": str(here / "val.jsonl"), "text": "review"}
    assert any("broken.jsonl" in note and "completion" in note for note in found.notes)


SAME: dict[str, Callable[[], Any]] = {
    "texts": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "rows": lambda: [{"text": text, "id": number} for number, text in enumerate(TEXTS)],
    "iterator": lambda: (text for text in TEXTS),
    "datasets": lambda: datasets.Dataset.from_dict({"text": TEXTS}),
    "data frame": lambda: pd.DataFrame({"text": TEXTS}),
    "two": lambda: {"a": TEXTS[:5], "b": TEXTS[5:]},
}


@pytest.mark.parametrize("kind", SAME)
def test_texts_in_memory(kind: str, here: Path) -> None:
    model = f"transformers:{here / 'models/m0'}"
    of_file = merging.task(model, str(here / "val.jsonl"))
    task = merging.task(model, SAME[kind](), tests=ASKED, shifts={"more": ["another one"]})
    assert sorted(task.held_out.labels.tolist()) == of_file.held_out.labels.tolist()
    assert task.held_out.group_names == (("a", "b") if kind == "two" else ())
    if kind != "two":
        assert task.held_out.fingerprint == of_file.held_out.fingerprint
    assert task.tests["test"].labels.tolist().count(1) == 3
    assert task.shifts == ("more",)


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "number": (3, {}, r"held-out is an int; give a list of texts"),
    "bytes": (b"no", {}, r"held-out is "),
    "empty": ([], {}, r"held-out is empty; it needs at least one sample"),
    "row": (["no way", 3], {}, r"held-out: row 1 is an int; give a list of texts"),
    "null": ([{"text": None}], {}, r"held-out: row 0 has None in 'text', which is not a text"),
    "images": ((torch.zeros(2, 3), [0, 1]), {}, r"held-out: row 0 is .*; give a list of texts"),
    "classes": (["no way"], {"classes": ["a", "b"]}, r"classes says nothing to a causal language model such as"),
    "prepare": (["no way"], {"prepare": torch.nn.Identity()}, r"prepare says nothing to a causal language model"),
    "split": (merging.Split.of([[0.0], [1.0]], [0, 1]), {}, r"held-out holds no texts, and transformers:.* reads"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_text_is_refused(kind: str, here: Path) -> None:
    given, more, message = BAD[kind]
    with pytest.raises(TaskError, match=message) as refused:
        merging.task(f"transformers:{here / 'models/m0'}", given, **more)
    assert len(str(refused.value).replace(str(here), "")) < 300
