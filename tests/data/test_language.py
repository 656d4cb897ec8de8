"""Texts for causal language models: what is scored of documents, completions, conversations and questions."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from merging.cli.asking.request import combine
from merging.cli.asking.tables import read_toml
from merging.data import tokenized as on_disk
from merging.data.opening import load_data
from merging.data.passages import MOST, coded, windows
from merging.errors import MergingError, TaskError
from merging.looking.marked import shown
from merging.models.catalogue import model_source
from merging.plugins.progress import Silent
from merging.plugins.task import Split
from merging.storage.pool import ModelPool
from merging.tasks.described import described_task
from merging.tasks.table import TaskTable
from merging.testing.forms import TinyTexts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
CONTEXT = 64
TURNS = "{% for m in messages %}<{{ m.role }}> {{ m.content | trim }}</s>\n{% endfor %}"
MARKED = (
    "{% for m in messages %}<{{ m.role }}> {% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}</s>\n"
    "{% endgeneration %}{% else %}{{ m.content | trim }}</s>\n{% endif %}{% endfor %}"
)
TALK = [
    {"role": "user", "content": "no"},
    {"role": "assistant", "content": " good day "},
    {"role": "user", "content": "what?"},
    {"role": "assistant", "content": "no"},
]


def words(begins: bool = True) -> Any:
    """A byte-level BPE tokenizer of a few merges, perhaps with a token for the beginning."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = "Question: Answer: the good day of a user and an assistant, no and yes"
    train = trainers.BpeTrainer(  # type: ignore[attr-defined]
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([text] * 3, train)
    if begins:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")  # noqa: S106
    found.chat_template = TURNS
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as far as texts need it: configuration and tokenizer."""
    place = tmp_path_factory.mktemp("model")
    own = words()
    config = transformers.LlamaConfig(
        vocab_size=len(own),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=CONTEXT,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(place)
    own.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def source(folder: Path) -> Any:
    return model_source(f"transformers:{folder}")


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


Load = Callable[..., Split]


@pytest.fixture
def load(source: Any, tmp_path: Path, own_cache: Path) -> Load:
    """Writes rows as a file, and loads it; keywords are keys of the set's table."""
    del own_cache

    def loaded(rows: Any, name: str = "set.jsonl", source: Any = source, notes: Any = None, **table: Any) -> Split:
        text = rows if isinstance(rows, str) else "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / name).write_text(text, "utf-8")
        return load_data({"path": str(tmp_path / name), **table}, source, progress=notes)

    return loaded


def seen(split: Split, source: Any) -> list[str]:
    """Each sample as it is shown, what is scored in brackets."""
    return [str(shown(split, number, source.decode)) for number in range(len(split))]


def test_documents_are_scored_but_for_their_beginning(load: Load, source: Any) -> None:
    split = load([{"text": "a good day"}, {"text": "no"}, {"text": "a good\nday"}])
    assert seen(split, source) == ["<s>⟦no⟧", "<s>⟦a good day⟧", "<s>⟦a good\\nday⟧"], "the shortest first"
    assert split.labels.tolist() == split.sequences.scored.tolist()
    assert split.labels.dtype == torch.float32
    assert split.counts_tokens
    prefixed = load([{"text": "no"}], prefix=True)
    assert seen(prefixed, source) == ["<s>⟦<s>no⟧"], "as lm-evaluation-harness counts it"


def test_rows_are_sorted_by_length_and_equal_ones_keep_their_order(load: Load) -> None:
    split = load([{"text": text} for text in ("bbb", "c", "aaa", "d")])
    assert [len(row) for row in np.split(split.sequences.tokens, split.sequences.starts[1:-1])] == [2, 2, 4, 4]
    again = load([{"text": text} for text in ("c", "d", "bbb", "aaa")])
    assert again.fingerprint == split.fingerprint


@given(
    st.integers(2, 90),
    st.integers(1, 20).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context))),
)
@example(41, (20, 20))
@example(42, (20, 20))
def test_windows_score_each_token_once_with_all_the_context_there_is(length: int, size: tuple[int, int]) -> None:
    context, stride = size
    tokens = coded(range(100, 100 + length))
    rows = windows(tokens, context, stride)
    assert np.concatenate([~row[row < 0] for row in rows]).tolist() == list(range(101, 100 + length))
    assert max(map(len, rows)) <= context + 1
    for row in rows[1:]:
        assert len(row) == context + 1, "filled from the left"
        assert (row < 0).sum() <= stride
    for row in rows:
        ids = np.where(row < 0, ~row, row)
        assert (np.diff(ids) == 1).all()
        assert (np.diff((row < 0).astype(int)) >= 0).all(), "what is scored comes last"
    for row in rows[1:-1]:
        assert (row < 0).sum() == stride


def test_a_document_of_many_windows_is_several_samples(load: Load) -> None:
    notes = Notes()
    split = load([{"text": "x" * 500}], notes=notes, context=8, stride=4)
    assert np.diff(split.sequences.samples).max() <= MOST
    assert split.labels.sum() == 500
    assert [note.partition(": ")[2] for note in notes.said] == ["1 long document scored as 4 samples"]


def test_completions_take_the_prompts_spaces(load: Load, source: Any) -> None:
    """As lm-evaluation-harness: tokens of the whole beyond the prompt's, whose spaces at the end are not its own."""
    rows = [
        {"prompt": "Answer: ", "completion": "good"},
        {"prompt": "Answer:", "completion": " good"},
        {"prompt": "", "completion": "no"},
    ]
    split = load(rows)
    assert seen(split, source) == ["<s>⟦no⟧", "<s>Answer:⟦ good⟧", "<s>Answer:⟦ good⟧"]
    notes = Notes()
    long = load([{"prompt": "x" * 100 + "y", "completion": "no"}], notes=notes)
    assert seen(long, source) == ["x" * (CONTEXT - 1) + "y⟦no⟧"]
    assert long.sequences.shape[1] == CONTEXT + 1, "the last token is only predicted"
    assert "1 row is longer than the model reads; its beginning is cut off" in notes.said[0]


def test_of_a_conversation_the_assistant_is_scored(load: Load, source: Any, folder: Path, tmp_path: Path) -> None:
    """Also where the user has said the same before; a template that says itself what is generated says the same."""
    said = "<user> no</s>\\n<assistant>⟦ good day</s>\\n⟧<user> what?</s>\\n<assistant>⟦ no</s>\\n⟧"
    assert seen(load([{"messages": TALK}]), source) == [said]
    assert seen(load([{"messages": TALK[1:2]}]), source) == ["<assistant>⟦ good day</s>\\n⟧"]
    assert seen(load(f"messages\n'{json.dumps(TALK)}'\n".replace('"', '""').replace("'", '"'), "set.csv"), source) == [
        said
    ]
    marking = templated(folder, tmp_path / "marking", MARKED)
    assert seen(load([{"messages": TALK}], source=marking), marking) == [said]


def templated(folder: Path, place: Path, template: str | None) -> Any:
    """The same model with another chat template."""
    shutil.copytree(folder, place)
    (place / "chat_template.jinja").unlink()
    if template is not None:
        (place / "chat_template.jinja").write_text(template, "utf-8")
    return model_source(f"transformers:{place}")


TEMPLATES = {
    "none": (None, r"holds messages, and the tokenizer of .* has no chat template; save one there"),
    "refuses a role": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ raise_exception('no users') }}{% endif %}{% endfor %}",
        r"row 1: the chat template refuses it \(TemplateError: no users\)",
    ),
    "is no template": ("{% for m in %}", r"row 1: the chat template refuses it \(TemplateSyntaxError"),
    "runs code": (
        "{{ cycler.__init__.__globals__.os.system('touch HACKED') }}{{ messages.__class__.__mro__ }}",
        r"row 1: the chat template refuses it \(SecurityError",
    ),
    "depends on the text": (
        "{% for m in messages %}{{ m.content | length }} {{ m.content }}{% endfor %}",
        r"row 1: what the chat template writes around message 2 depends on its text",
    ),
    "leaves the text out": (
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        r"row 1: what the chat template writes around message 2 depends on its text",
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_that_cannot_be_used(kind: str, load: Load, folder: Path, tmp_path: Path) -> None:
    template, message = TEMPLATES[kind]
    other = templated(folder, tmp_path / "other", template)
    with pytest.raises(TaskError, match=message) as refused:
        load([{"messages": TALK}], source=other)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300
    assert not list(Path.cwd().glob("HACKED"))


ASKED = {
    "number": {"question": "a", "choices": ["no", "yes"], "answer": 1},
    "number of a column with gaps": {"question": "a", "choices": ["no", "yes"], "answer": 1.0},
    "letter": {"question": "a", "choices": ["no", "yes"], "answer": "B"},
    "text": {"question": "a", "choices": ["no", "yes"], "answer": "yes"},
    "label": {"question": "a", "choices": {"text": ["no", "yes"], "label": ["1", "2"]}, "answer": "2"},
    "JSON": {"question": "a", "choices": '["no", "yes"]', "answer": "1"},
    "columns": {"question": "a", "A": "no", "B": "yes", "answer": "B"},
}


@pytest.mark.parametrize("way", ASKED)
def test_questions_as_people_write_them(way: str, load: Load, source: Any) -> None:
    split = load([ASKED[way]])
    assert seen(split, source) == ["<s>Question: a\\nAnswer:⟦ no⟧⟦ yes⟧"]
    assert split.labels.tolist() == [1]
    assert split.categorical
    assert split.sequences.weights.tolist() == [1, 1]


def test_columns_that_are_named_and_lengths(load: Load, source: Any) -> None:
    named = [{"q": "a", "right": "good", "wrong": "nö", "third": "", "key": "right"}]
    table = {"question": "q", "choices": "wrong,right,third", "answer": "key", "template": "{question}?\n"}
    split = load(named, **table, length="bytes")
    assert seen(split, source) == ["<s>a?⟦\\n nö⟧⟦\\n good⟧"], "an empty cell is no choice"
    np.testing.assert_allclose(split.sequences.weights, [1 / 3, 1 / 4])
    np.testing.assert_allclose(load(named, **table, length="characters").sequences.weights, [1 / 2, 1 / 4])
    tokens = load(named, **table, length="tokens").sequences
    rows = np.split(tokens.tokens, tokens.starts[1:-1])
    np.testing.assert_allclose(tokens.weights, [1 / (row < 0).sum() for row in rows])
    csv = load("question,A,B,C,answer\na,no,yes,,B\nb,no,yes,day,C\n", "set.csv")
    assert csv.sequences.outputs == 3
    assert csv.labels.tolist() == [1, 2]
    notes = Notes()
    twice = load([{"question": "a", "choices": ["no", "no", "yes"], "answer": 1}], notes=notes)
    assert twice.labels.tolist() == [1]
    assert "1 question with a choice twice" in notes.said[0]


BAD: Mapping[str, tuple[Any, Mapping[str, Any], str]] = {
    "empty text": ([{"text": "no"}, {"text": ""}], {}, r"row 2 is empty; a document needs something to score"),
    "number": ([{"text": "no"}, {"text": 3}], {}, r"row 2 has 3 in 'text', which is not a text"),
    "null": ([{"text": None}], {}, r"row 1 has None in 'text', which is not a text"),
    "half a character": ('{"text": "\\ud800"}\n', {}, r"half of a surrogate pair is in it"),
    "no columns": ([{"txt": "no"}], {}, r"takes columns 'text', .* it has txt"),
    "two kinds": ([{"text": "no", "messages": []}], {}, r"has columns of documents and conversations"),
    "half a kind": ([{"prompt": "no"}], {}, r"has a column 'prompt' and none called 'completion'"),
    "unknown column": ([{"text": "no"}], {"text": "txt"}, r"unknown column in .*: 'txt'; did you mean 'text'"),
    "pairs": ([{"text": "no"}], {"text": ["text", "b"]}, r"a language model reads no pairs of texts"),
    "misspelt key": ([{"text": "no"}], {"strid": 3}, r"unknown key in a data set: 'strid'; did you mean 'stride'"),
    "key of images": ([{"text": "no"}], {"border": 3}, r"'border' means nothing to this kind of data"),
    "key of a classifier": ([{"text": "no", "label": 1}], {"label": "label"}, r"'label' means nothing"),
    "key of another kind": ([{"text": "no"}], {"length": "bytes"}, r"holds documents, to which 'length' means"),
    "stride": ([{"text": "no"}], {"stride": 80}, r"stride is 80, and a row holds 64 tokens"),
    "context": ([{"text": "no"}], {"context": 99}, r"context is 99, and transformers:.* reads 64 tokens"),
    "empty completion": ([{"prompt": "a ", "completion": ""}], {}, r"row 1 has an empty 'completion'"),
    "long completion": (
        [{"prompt": "a", "completion": "x" * 80}],
        {},
        r"row 1: 80 tokens are to be scored, and the model reads 64 at once",
    ),
    "nothing of the assistant": ([{"messages": TALK[:1]}], {}, r"row 1 has nothing to score: no message of the assist"),
    "null of the assistant": ([{"messages": [{"role": "assistant", "content": None}]}], {}, r"without a text"),
    "no messages": ([{"messages": "no"}], {}, r"row 1: its messages are no JSON list of {role, content}"),
    "no content": ([{"messages": [{"role": "user"}]}], {}, r"row 1: messages are a list of {role, content}"),
    "one choice": ([{"question": "a", "choices": ["b"], "answer": 0}], {}, r"row 1 has 1 choice; a question needs two"),
    "many choices": (
        [{"question": "a", "choices": [*map(str, range(32769))], "answer": 0}],
        {},
        r"row 1 has 32,769 choices; a question may have 32,768 at the most",
    ),
    "empty choice": ([{"question": "a", "choices": ["b", ""], "answer": 0}], {}, r"row 1: choice 2 is empty"),
    "no choice": (
        [{"question": "a", "choices": ["b", "c"], "answer": "E"}],
        {},
        r"row 1: the answer 'E' is none of its 2 choices; write the number \(from 0\), A to B, or the text of one",
    ),
    "label that is none": (
        [{"question": "a", "choices": {"text": ["b", "c"], "label": ["1", "2"]}, "answer": "3"}],
        {},
        r"row 1: the answer '3' is none of its 2 choices; write the number \(from 0\), 1 to 2",
    ),
    "number that is none": ([{"question": "a", "choices": ["b", "c"], "answer": 2}], {}, r"row 1: the answer '2'"),
    "number without end": (
        [{"question": "a", "choices": ["b", "c"], "answer": "9" * 5000}],
        {},
        r"row 1: the answer '9{40}' is none of its 2 choices",
    ),
    "labels that are no list": (
        [{"question": "a", "choices": {"text": ["b", "c"], "label": 3}, "answer": 0}],
        {},
        r"row 1: its choices are \['b', 'c'\]; they are a list of texts",
    ),
    "no choices": ([{"question": "a", "choices": [], "answer": 0}], {}, r"row 1 has 0 choices; a question needs two"),
    "right choice twice": (
        [{"question": "a", "choices": ["b", "b"], "answer": "b"}],
        {},
        r"row 1 has the right choice 'b' twice; write its number",
    ),
    "no answer": ([{"question": "a", "choices": ["b", "c"], "answer": None}], {}, r"row 1 has no 'answer'"),
    "choices": ([{"question": "a", "choices": [1, 2], "answer": 0}], {}, r"row 1: its choices are \[1, 2\]"),
    "template": (
        [{"question": "a", "choices": ["b", "c"], "answer": 0}],
        {"template": "{questions}"},
        r"template '{questions}' has no {question} in it",
    ),
    "no group": ([{"text": "no", "of": None}], {"group": "of"}, r"row 1 has the group None"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(kind: str, load: Load, tmp_path: Path) -> None:
    rows, table, message = BAD[kind]
    with pytest.raises(MergingError, match=message) as refused:
        load(rows, **table)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text.replace(str(tmp_path), "")) < 300
    if not table:
        assert str(tmp_path / "set.jsonl") in text


def test_bytes_that_are_no_text_and_data_of_other_kinds(source: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(TaskError, match=r"bad.jsonl is not UTF-8 text"):
        load_data(str(tmp_path / "bad.jsonl"), source)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for path in ("photos", "digits.npz:held_out", "gone.jsonl"):
        with pytest.raises(TaskError, match=r"no such (texts|file)|No such file"):
            load_data(str(tmp_path / path), source)
    (tmp_path / "set.jsonl").write_text('{"text": "no"}\n')
    with pytest.raises(TaskError, match=r"unknown column in .*: 'path'"):
        load_data(str(tmp_path / "set.jsonl"), model_source("timm:test_resnet"))


def test_documents_are_not_for_a_classifier(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('{"text": "no"}\n')
    with pytest.raises(TaskError, match=r"has no column 'label', and the model classifies texts; .*…ForCausalLM"):
        load_data(str(tmp_path / "set.jsonl"), TinyTexts())


def test_a_cell_may_hold_a_book_and_labels_be_null(load: Load) -> None:
    split = load(f'text,n\n"{"no, " * 40_000}",1\n', "book.csv")
    assert int(split.labels.sum()) >= 40_000
    split = load([{"question": "a", "choices": {"text": ["b", "c"], "label": None}, "answer": "B"}])
    assert split.labels.tolist() == [1]


def test_a_document_of_one_token(load: Load, folder: Path, tmp_path: Path) -> None:
    """Nothing comes before it where the tokenizer adds no beginning; a prefix may."""
    shutil.copytree(folder, tmp_path / "plain")
    words(begins=False).save_pretrained(tmp_path / "plain")
    plain = model_source(f"transformers:{tmp_path / 'plain'}")
    with pytest.raises(TaskError, match=r"row 1 is one token, before which nothing stands"):
        load([{"text": "x"}], source=plain)
    assert seen(load([{"text": "x"}], source=plain, prefix=True), plain) == ["<s>⟦x⟧"]
    assert seen(load([{"prompt": "", "completion": "x"}], source=plain), plain) == ["<s>⟦x⟧"]


def test_a_model_of_another_vocabulary_is_not_scored(folder: Path, source: Any, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(folder))
    made.save_pretrained(tmp_path / "other")
    pool = ModelPool([tmp_path / "other"])
    source.build(pool)
    said = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    ids = said["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises(MergingError, match=r"other.*: its tokenizer has 'a' as \d+, and that of .* as \d+"):
        source.build(ModelPool([tmp_path / "other"]))


def test_another_models_tokenizer_is_refused(load: Load, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "small")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (tmp_path / "small" / "config.json").write_text(json.dumps(config | {"vocab_size": 100}), "utf-8")
    with pytest.raises(TaskError, match=r"gives '.*' the id \d+, and the model has 100 rows, from 0; is it another"):
        load([{"text": "the good day"}], source=model_source(f"transformers:{tmp_path / 'small'}"))


def test_saved_data_sets_and_groups(source: Any, tmp_path: Path, own_cache: Path) -> None:
    del own_cache
    rows = {"text": ["no", "a day", "yes"], "of": ["b", "a", "b"]}
    datasets.DatasetDict({"dev": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "saved"))
    split = load_data({"path": f"{tmp_path / 'saved'}:dev", "group": "of"}, source)
    assert seen(split, source) == ["<s>⟦no⟧", "<s>⟦yes⟧", "<s>⟦a day⟧"]
    assert split.group_names == ("a", "b")
    assert split.groups is not None
    assert split.groups.tolist() == [1, 1, 0]
    with pytest.raises(TaskError, match="unknown split"):
        load_data(f"{tmp_path / 'saved'}:test", source)


def test_texts_are_tokenized_once_and_mapped(load: Load, source: Any, monkeypatch: Any, own_cache: Path) -> None:
    rows = [{"text": "a good day"}, {"text": "no"}]
    first = load(rows)
    assert isinstance(first.sequences.tokens.base, np.memmap) or isinstance(first.sequences.tokens, np.memmap)
    monkeypatch.setattr(type(source), "tokenizer", property(lambda _: pytest.fail("tokenized again")))
    assert load(rows, "renamed.jsonl").fingerprint == first.fingerprint, "its content decides"
    (kept,) = (own_cache / "texts").glob("*/tokens.npy")
    whole = kept.read_bytes()
    monkeypatch.undo()
    monkeypatch.setenv("MERGING_CACHE", str(own_cache))
    kept.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])
    assert load(rows).fingerprint == first.fingerprint, "what was damaged is made again"
    assert kept.read_bytes() == whole
    assert load(rows, context=4).fingerprint == first.fingerprint
    assert len(list((own_cache / "texts").glob("*/tokens.npy"))) == 2, "another context is another entry"
    for number, name in enumerate(("tekken.json", "source.spm"), 3):
        (source.folder / name).write_text("{}", encoding="utf-8")
        assert load(rows).fingerprint == first.fingerprint
        (source.folder / name).unlink()
        assert len(list((own_cache / "texts").glob("*/tokens.npy"))) == number, "so is another tokenizer"


def test_a_cache_that_cannot_be_written_costs_time_only(load: Load, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "file"))
    assert load([{"text": "no"}]).labels.tolist() == [1]


def test_named_sets_are_one_set_with_groups(folder: Path, tmp_path: Path, own_cache: Path) -> None:
    del own_cache
    (tmp_path / "a.jsonl").write_text('{"text": "a good day"}\n{"text": "no"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "a", "choices": ["no", "yes"], "answer": 1}\n')
    told = {
        "model": f"transformers:{folder}",
        "held_out": {
            "docs": str(tmp_path / "a.jsonl"),
            "asked": {"path": str(tmp_path / "b.jsonl"), "length": "bytes"},
        },
        "test": {"again": {"path": str(tmp_path / "a.jsonl"), "context": 4}},
    }
    table = TaskTable.model_validate(told).model_dump(exclude_unset=True)
    task = described_task(table)
    assert task.held_out.group_names == ("asked", "docs")
    assert task.held_out.groups is not None
    assert task.held_out.groups.tolist() == [1, 1, 0]
    assert task.held_out.labels.tolist() == [[-1, 1], [-1, 3], [1, 0]]
    assert task.tests["test"].group_names == ("again",)


def test_the_forms_on_the_page(folder: Path, tmp_path: Path, own_cache: Path) -> None:
    del own_cache
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "documents.jsonl").write_text('{"text": "a good day"}\n' + json.dumps({"text": "no way " * 20}) + "\n")
    (tmp_path / "questions.csv").write_text("question,A,B,C,answer\nwhat,a good day,no,,B\nwho,he,you,me,1\n")
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": TALK}) + "\n")
    blocks = re.findall(
        r"<!-- language-form -->\n```toml\n(.*?)```", Path("docs/data.md").read_text("utf-8"), re.DOTALL
    )
    found = []
    for block in blocks:
        (tmp_path / "t.toml").write_text(f"[task]\nmodel = 'transformers:model'\n{block}", "utf-8")
        found.append(described_task(combine({}, read_toml(tmp_path / "t.toml"), tmp_path)["task"]))
    plain, strides, asked, several = found
    assert plain.held_out.labels.tolist() == strides.held_out.labels.tolist()
    assert plain.held_out.sequences.rows == 3
    assert strides.held_out.sequences.shape[1] == 33
    assert asked.held_out.labels.tolist() == [1, 1]
    assert several.held_out.group_names == ("prose", "quiz")
    assert several.held_out.labels.shape == (4, 2)
    assert several.tests["test"].group_names == ("talk",)


def test_keys_of_a_task_for_classifiers_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "no"}\n')
    told = {"model": f"transformers:{folder}", "held_out": str(tmp_path / "a.jsonl")}
    for key, value in {"classes": ["a", "b"], "corrupt": 0.1, "mean": [0.0, 0.0, 0.0], "templates": ["a {}"]}.items():
        with pytest.raises(TaskError, match=key):
            described_task({**told, key: value})


def test_two_processes_at_once(folder: Path, tmp_path: Path, own_cache: Path) -> None:
    """Both have the same samples, and one entry is kept."""
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "a good day {number}"}}\n' for number in range(50)))
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        found = pool.starmap(_fingerprint, [(str(folder), str(tmp_path / "a.jsonl"))] * 2)
    assert found[0] == found[1]
    assert len(list((own_cache / "texts").glob("*/split.json"))) == 1


def _fingerprint(folder: str, path: str) -> str:
    torch.set_num_threads(1)
    return load_data(path, model_source(f"transformers:{folder}")).fingerprint


def test_what_is_kept_is_a_whole_split(load: Load) -> None:
    """Its arrays fit together, whatever the file has."""
    rows: Sequence[Mapping[str, Any]] = [{"question": "a", "choices": ["no", "x" * n], "answer": 0} for n in (1, 5)]
    split = load(rows)
    split.sequences.checked()
    assert tuple(split.sequences.arrays()) == on_disk.ARRAYS
