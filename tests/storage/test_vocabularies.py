"""Models of several vocabularies: rows are aligned by token, as a reference that goes token by token says."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging
from merging.errors import MergingError, PoolError
from merging.storage import aligned
from merging.storage.pool import ModelPool
from tests.conftest import Merge
from tests.project.test_docs import blocks

ROWS = ("embed.weight", "head.weight", "head.bias")
WORDS = ["<unk>", "<pad>", *(f"w{number}" for number in range(8))]


def tokenizer(ids: Mapping[str, int], added: Sequence[str] = (), **model: Any) -> dict[str, Any]:
    """What ``tokenizer.json`` holds, of a tokenizer that knows whole words."""
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **entry} for token in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {t: n for t, n in ids.items() if t not in added}, "unk_token": "<unk>"}
        | model,
    }


def write(
    folder: Path,
    tokens: Sequence[str] | Mapping[str, int] = tuple(WORDS),
    *,
    added: Sequence[str] = (),
    rows: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
) -> Path:
    """A folder with a model of a vocabulary: an embedding, a head with its bias, and a tensor that is none of these."""
    ids = dict(tokens) if isinstance(tokens, Mapping) else {token: number for number, token in enumerate(tokens)}
    rows = rows or max(ids.values()) + 1
    draw = torch.Generator().manual_seed(seed)
    state = {
        "embed.weight": torch.randn(rows, 4, generator=draw),
        "head.weight": torch.randn(rows, 4, generator=draw),
        "head.bias": torch.randn(rows, generator=draw),
        "body.weight": torch.randn(40, 2, generator=draw),
    }
    if not bias:
        del state["head.bias"]
    folder.mkdir(parents=True)
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, folder / "model.safetensors")
    config = {"model_type": "own", "vocab_size": rows, "pad_token_id": ids.get("<pad>"), "eos_token_id": [ids["w1"]]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(ids, added)), encoding="utf-8")
    return folder


def ids_of(folder: Path) -> dict[str, int]:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    vocab = vocab if isinstance(vocab, dict) else {piece: number for number, (piece, _) in enumerate(vocab)}
    return vocab | {each["content"]: each["id"] for each in data["added_tokens"]}


def view(folder: Path, pool: Sequence[Path], base: Path | None, ids: Mapping[str, int], rows: int, name: str) -> Tensor:
    """The reference: one token after the other, by the words of the documentation."""
    states = {path: load_file(path / "model.safetensors")[name] for path in {folder, *pool, *([base] if base else [])}}
    maps = {path: ids_of(path) for path in states}
    found = torch.full((rows, *states[folder].shape[1:]), torch.nan, dtype=torch.float64)
    for token, number in ids.items():
        if token in maps[folder]:
            found[number] = states[folder][maps[folder][token]].double()
        elif base is not None and token in maps[base]:
            found[number] = states[base][maps[base][token]].double()
        else:
            own = [states[path][maps[path][token]].double() for path in pool if token in maps[path]]
            found[number] = torch.stack(own).mean(0).to(states[folder].dtype).double()
    with_token = sorted(ids.values())
    for number in set(range(rows)) - set(with_token):
        found[number] = found[with_token].mean(0)
    return found.to(states[folder].dtype)


def union(paths: Sequence[Path]) -> dict[str, int]:
    ids = ids_of(paths[0])
    for path in paths[1:]:
        own = ids_of(path)
        for token in sorted(own, key=own.__getitem__):
            ids.setdefault(token, max(ids.values()) + 1)
    return ids


VOCABULARIES = st.lists(
    st.tuples(
        st.permutations([f"w{number}" for number in range(6)]), st.integers(1, 6), st.sets(st.sampled_from("abc"))
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=25)
@given(
    drawn=VOCABULARIES,
    with_base=st.booleans(),
    source=st.sampled_from(["union", "base", "first", "m1"]),
    multiple=st.sampled_from([None, 1, 4, 16]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_rows_are_those_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: Sequence[tuple[list[str], int, set[str]]],
    with_base: bool,
    source: str,
    multiple: int | None,
    dtype: torch.dtype,
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    paths = []
    for number, (words, count, more) in enumerate(drawn):
        added = sorted(f"<{letter}>" for letter in more)
        own = ["<unk>", "w1", *[word for word in words[:count] if word != "w1"], *added]
        paths.append(
            write(folder / f"m{number}", own, added=added, rows=len(own) + number % 3, seed=number, dtype=dtype)
        )
    base, models = (paths[-1], paths[:-1]) if with_base else (None, paths)
    if source == "m1" and len(models) < 2:
        source = "m0"
    if source == "base" and base is None:
        with pytest.raises(PoolError, match=r"there is no base"):
            ModelPool.open(models, tokenizer_source="base")
        return
    pool = ModelPool.open(models, base, tokenizer_source=source, pad_to_multiple_of=multiple)
    if pool.alignment is None:  # one vocabulary, and nothing to pad
        assert len({tuple(ids_of(path).items()) for path in paths}) == 1
        return
    leaders = {
        "union": base or models[0],
        "base": base,
        "first": models[0],
        "m1": models[-1] if len(models) < 2 else models[1],
    }
    leader = leaders.get(source) or models[0]
    ids = union([leader, *(path for path in models if path != leader)]) if source == "union" else ids_of(leader)
    rows = -(-(max(ids.values()) + 1) // (multiple or 1)) * (multiple or 1)
    assert pool.alignment.ids == ids
    for checkpoint in pool.with_base:
        path = checkpoint.path
        for name in ROWS:
            wanted = view(path, models, base, ids, rows, name)
            got = checkpoint.read(name)
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            own = sorted(number for token, number in ids.items() if token in ids_of(path))
            assert torch.equal(got[own], wanted[own])
            torch.testing.assert_close(got, wanted)
        assert torch.equal(checkpoint.read("body.weight"), load_file(path / "model.safetensors")["body.weight"])


def test_any_part_of_a_tensor_is_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned, "BLOCK", 8)
    write(tmp_path / "a", [*WORDS[:4], "w1", "w9", "<x>"], added=["<x>"], seed=1)
    write(tmp_path / "b", WORDS[::-1], seed=2, dtype=torch.float32)
    pool = ModelPool.open([tmp_path / "a", tmp_path / "b"], tokenizer_source="union", pad_to_multiple_of=8)
    for checkpoint in pool.checkpoints:
        for name in ROWS:
            whole = checkpoint.read(name).numpy().reshape(-1).view(np.uint8)
            for begin in range(0, len(whole), 12):
                part = np.zeros(min(28, len(whole) - begin), dtype=np.uint8)
                checkpoint.read_bytes(name, begin, part.data)
                assert np.array_equal(part, whole[begin : begin + len(part)])


def test_where_nobody_asked_and_they_differ_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", seed=1)
    write(tmp_path / "b", [*WORDS[:5], *WORDS[:4:-1]], seed=2)  # as many rows, for other tokens
    with pytest.raises(PoolError) as raised:
        merging.merge([tmp_path / "a", tmp_path / "b"], "uniform")
    assert str(raised.value) == (
        f"token 'w3' is 9 in {tmp_path / 'b'} and 5 in {tmp_path / 'a'}: their vocabularies differ; add "
        "`tokenizer_source=union` (or base, first) to align their rows by token"
    )
    write(tmp_path / "c", [*WORDS, "<new>"], added=["<new>"])
    write(tmp_path / "d", WORDS, rows=11)  # its last row is of no token
    with pytest.raises(PoolError, match=r"token '<new>' is missing in .*d and 10 in .*c: their vocabularies differ"):
        merging.merge([tmp_path / "c", tmp_path / "d"], "uniform")
    with pytest.raises(PoolError, match=r"token '<new>' is 10 in .*c and missing in .*a: their vocabularies differ"):
        merging.merge([tmp_path / "a", tmp_path / "c"], "uniform")
    with pytest.raises(
        PoolError, match=r"11 rows in .*d and 10 in .*a, for the same tokens; add `tokenizer_source=first`"
    ):
        merging.merge([tmp_path / "a", tmp_path / "d"], "uniform")


def test_one_vocabulary_has_the_bits_that_it_has_without(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, seed=seed, rows=12) for seed, name in enumerate("abc")]
    plain = merging.merge(paths, "uniform").state_dict()
    for source, multiple in (("union", None), ("first", 4), ("b", 2)):
        pool = ModelPool.open(paths, tokenizer_source=source, pad_to_multiple_of=multiple)
        assert pool.alignment is None
        found = merging.merge(paths, "uniform", tokenizer_source=source, pad_to_multiple_of=multiple).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_a_merge_is_rebuilt_from_its_recipe_wherever_the_models_are(tmp_path: Path, merge: Merge) -> None:
    pool = tmp_path / "pool"
    base = write(pool / "base")
    write(pool / "m1", [*WORDS, "<a>"], added=["<a>"], seed=1)
    write(pool / "m2", [*WORDS[::-1], "<b>"], added=["<b>"], seed=2)
    out = tmp_path / "out"
    told = ["--base", base, "--tokenizer-source", "union", "--pad-to-multiple-of", "8", "--output", out]
    ran = merge("run", "--strategy", "uniform", "--models", pool / "m*", *told)
    assert ran.code == 0, ran.err
    state = load_file(out / "model.safetensors")
    ids = union([base, pool / "m1", pool / "m2"])
    assert ids_of(out) == ids
    for name in ROWS:
        both = [view(pool / each, [pool / "m1", pool / "m2"], base, ids, 16, name).double() for each in ("m1", "m2")]
        torch.testing.assert_close(state[name], torch.stack(both).mean(0).float())
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], config["pad_token_id"], config["eos_token_id"]) == (16, 1, [3])
    assert merge("apply", out, "--output", tmp_path / "again").code == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    shutil.move(pool, tmp_path / "moved")
    assert "no longer" in merge("apply", out, "--output", tmp_path / "third").err
    assert merge("apply", out, "--models", tmp_path / "moved" / "*", "--output", tmp_path / "third").code == 0
    assert (tmp_path / "third" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    write(tmp_path / "changed", [*WORDS, "<a>"], added=["<a>"], seed=5)
    shutil.rmtree(tmp_path / "moved" / "m1")
    shutil.move(tmp_path / "changed", tmp_path / "moved" / "m1")
    ran = merge("apply", out, "--models", tmp_path / "moved" / "*", "--output", tmp_path / "fourth")
    assert ran.code == 2
    assert not (tmp_path / "fourth").exists()


def test_ids_of_a_configuration_go_with_their_tokens(tmp_path: Path) -> None:
    write(tmp_path / "base")
    write(tmp_path / "m", [*WORDS[::-1], "<a>"], added=["<a>"])
    write(tmp_path / "n", WORDS)
    settings = {"eos_token_id": [3, 4], "pad_token_id": 1, "bos_token_id": None, "max_length": 3}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    out = tmp_path / "out"
    merging.merge(
        [tmp_path / "m", tmp_path / "n"], "uniform", base=tmp_path / "base", tokenizer_source="first", output=out
    )
    assert json.loads((out / "generation_config.json").read_text(encoding="utf-8")) == {
        "eos_token_id": [6, 5],
        "pad_token_id": 8,
        "bos_token_id": None,
        "max_length": 3,
    }
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "m" / "tokenizer.json").read_bytes()


def _spoil(folder: Path, how: str) -> None:
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    if how == "none":
        file.unlink()
    elif how == "sentencepiece":
        file.rename(folder / "tokenizer.model")
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:99])
    else:
        {
            "two": lambda: vocab.update(w9=3),
            "two ids": lambda: data["added_tokens"].append({"id": 11, "content": "w1"}),
            "missing": lambda: vocab.update(w9=None),
            "beyond": lambda: vocab.update(w9=64),
            "no words": lambda: data["model"].pop("vocab"),
        }[how]()
        file.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("none", "has no tokenizer beside it (tokenizer.json, …), so nobody knows the tokens of its rows"),
        ("sentencepiece", "tokenizer.model: its ids are known to its own library alone; load it with AutoTokenizer"),
        ("cut", "tokenizer.json: no tokenizer can be read there (JSONDecodeError"),
        ("two", "tokenizer.json: tokens 'w1' and 'w9' have one id, 3"),
        ("two ids", "tokenizer.json: token 'w1' has the ids 3 and 11"),
        ("missing", "tokenizer.json: token 'w9' has no id (None)"),
        ("beyond", "token 'w9' has the id 64, and 'embed.weight' has 10 rows; save the model with as many rows"),
        ("no words", "tokenizer.json: no tokenizer can be read there (KeyError: 'vocab')"),
    ],
)
def test_what_is_wrong_with_a_tokenizer_is_one_line(tmp_path: Path, merge: Merge, how: str, line: str) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    _spoil(tmp_path / "b", how)
    told = ["--tokenizer-source", "union", "--output", tmp_path / "out"]
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "*", *told)
    assert ran.code == 2
    said = " ".join(ran.err.partition("error:")[2].split())
    assert line.replace(" ", "") in said.replace(" ", "")
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_other_mistakes_are_one_line(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a"), write(tmp_path / "b", WORDS[::-1])]
    for told, line in (
        ({"tokenizer_source": "unoin"}, "unknown `tokenizer_source` 'unoin'; did you mean 'union'?"),
        ({"tokenizer_source": "base"}, "`tokenizer_source` is base, but there is no base"),
        ({"pad_to_multiple_of": 8}, "`pad_to_multiple_of` pads a common vocabulary: add `tokenizer_source=union`"),
        ({"tokenizer_source": "union", "pad_to_multiple_of": 0}, "`pad_to_multiple_of` is 0, but must be at least 1"),
    ):
        with pytest.raises(MergingError) as raised:
            merging.merge(paths, "uniform", **told)
        assert line in str(raised.value)
    save_file({"w": torch.ones(3, 2)}, tmp_path / "c.safetensors")
    with pytest.raises(PoolError, match=r"c.safetensors has no tokenizer beside it"):
        merging.merge([tmp_path / "c.safetensors"], "uniform", tokenizer_source="union")
    with pytest.raises(PoolError, match=r"has no tokenizer beside it"):
        merging.merge([{"w": torch.ones(3, 2)}], "uniform", tokenizer_source="union")


def _pairs(words: Sequence[str]) -> dict[str, Any]:
    """Byte pairs that make each word from the left; a word's letters come first."""
    vocab: dict[str, int] = {}
    merges: dict[tuple[str, str], None] = {}
    for letter in sorted({*"".join(words)}):
        vocab.setdefault(letter, len(vocab))
    for word in words:
        for end in range(2, len(word) + 1):
            vocab.setdefault(word[:end], len(vocab))
            merges.setdefault((word[: end - 1], word[end - 1]))
    return {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges], "unk_token": None}


def _pieces(words: Sequence[str]) -> dict[str, Any]:
    letters = sorted({*"".join(words)})
    vocab = [["<unk>", 0.0], *([word, -2.0] for word in words), *([letter, -6.0] for letter in letters)]
    return {"type": "Unigram", "vocab": vocab, "unk_id": 0, "byte_fallback": False}


def _parts(words: Sequence[str]) -> dict[str, Any]:
    letters = [f"{before}{letter}" for letter in sorted({*"".join(words)}) for before in ("", "##")]
    vocab = {token: number for number, token in enumerate(["<unk>", *letters, *words])}
    return {
        "type": "WordPiece",
        "vocab": vocab,
        "unk_token": "<unk>",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }


def _of_kind(folder: Path, model: dict[str, Any], added: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    ids = (
        model["vocab"]
        if isinstance(model["vocab"], dict)
        else {piece: n for n, (piece, _) in enumerate(model["vocab"])}
    )
    every = ids | {token: len(ids) + number for number, token in enumerate(added)}
    data = tokenizer(every, added) | {"model": model}
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "vocab_size": len(every)}), encoding="utf-8")
    save_file({"embed.weight": torch.randn(len(every), 4)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", [_pairs, _pieces, _parts])
def test_a_union_cuts_texts_as_its_tokenizers_do(tmp_path: Path, kind: Any) -> None:
    from tokenizers import Tokenizer

    one = _of_kind(tmp_path / "a", kind(["cat", "cart", "trace"]), ["<x>"])
    two = _of_kind(tmp_path / "b", kind(["dog", "godt", "cat"]), ["<y>", "<x>"])
    pool = ModelPool.open([one, two], tokenizer_source="union")
    assert pool.alignment is not None
    assert pool.alignment.ids == union([one, two])
    made = Tokenizer.from_str(pool.alignment.made.decode())
    assert made.get_vocab(with_added_tokens=True) == pool.alignment.ids
    first, second = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (one, two))
    for text in ("cat cart trace", "cat<x> cart trace race"):
        assert made.encode(text).ids == first.encode(text).ids
    assert made.encode("dog godt <y> cat").tokens == second.encode("dog godt <y> cat").tokens
    made.add_tokens(["<next>"])
    assert made.token_to_id("<next>") == len(pool.alignment.ids)


def test_tokenizers_of_two_kinds_have_a_union_of_added_tokens_alone(tmp_path: Path) -> None:
    one = _of_kind(tmp_path / "a", _pairs(["cat"]), ["<x>"])
    two = _of_kind(tmp_path / "b", _parts(["dog"]), [])
    line = r"b: its tokenizer is WordPiece, that of .*a BPE: they have no union; take `tokenizer_source=base`, or first"
    with pytest.raises(PoolError, match=line):
        ModelPool.open([one, two], tokenizer_source="union")
    assert ModelPool.open([one, two], tokenizer_source="first").alignment is not None


def test_the_page(tmp_path: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, *(f"x{number}" for number in range(13))]
    write(tmp_path / "base", words)
    write(tmp_path / "models/coder", [*words, "<tool>"], added=["<tool>"], seed=1)
    write(tmp_path / "models/poet", [*words, "<rhyme>"], added=["<rhyme>"], seed=2)
    refused, *commands = [line for text in blocks("vocabularies.md", "run").values() for line in text.splitlines()]
    ran = merge(*shlex.split(refused)[1:])
    assert ran.code == 2
    said = " ".join((Path(__file__).parents[2] / "docs/vocabularies.md").read_text(encoding="utf-8").split())
    assert " ".join(ran.err[ran.err.index("error:") :].replace(f"{tmp_path}/", "").split()) in said
    assert len(commands) == 3
    for command in commands:
        ran = merge(*shlex.split(command)[1:])
        assert ran.code == 0, ran.err
    assert load_file(tmp_path / "again/model.safetensors")["embed.weight"].shape == (25, 4)
    assert load_file(tmp_path / "agreed/model.safetensors")["embed.weight"].shape == (24, 4)


def _adapter(folder: Path, base: Path, tokens: Sequence[str] = (), added: Sequence[str] = (), seed: int = 0) -> Path:
    """A LoRA adapter of rank 1; with ``tokens``, of a base that was resized: embedding and head are saved whole."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(seed)
    shapes = {"body.lora_A.weight": (1, 2), "body.lora_B.weight": (40, 1)}
    if tokens:
        shapes |= {name: (len(tokens), 4) for name in ROWS[:2]}
        ids = {token: number for number, token in enumerate(tokens)}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer(ids, added)), encoding="utf-8")
    state = {f"base_model.model.{name}": torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    save_file(state, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["body"], "modules_to_save": ["head"]}
    config |= {"base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_adapters_are_aligned_too(tmp_path: Path, merge: Merge) -> None:
    base = write(tmp_path / "base", bias=False)
    one = _adapter(tmp_path / "pool/one", base, seed=1)
    two = _adapter(tmp_path / "pool/two", base, [*WORDS, "<a>"], ["<a>"], seed=2)
    three = write(tmp_path / "pool/three", WORDS[::-1], seed=3, bias=False)
    with pytest.raises(PoolError, match=r"token '.*' is .* their vocabularies differ; add `tokenizer_source=union`"):
        merging.merge([one, two, three], "uniform")
    pool = ModelPool.open([one, two, three], tokenizer_source="union")
    seen = {checkpoint.name: checkpoint.read("embed.weight") for checkpoint in pool.checkpoints}
    whole = load_file(two / "adapter_model.safetensors")["base_model.model.embed.weight"]
    assert torch.equal(seen["two"], whole)
    assert torch.equal(seen["one"][:-1], load_file(base / "model.safetensors")["embed.weight"])
    assert torch.equal(seen["one"][-1], whole[-1])
    assert torch.equal(seen["three"][:-1], load_file(three / "model.safetensors")["embed.weight"].flip(0))
    told = ["--tokenizer-source", "union", "--base", base, "--output", tmp_path / "out"]
    ran = merge("run", "--strategy", "task-arithmetic", "--models", tmp_path / "pool" / "*", *told)
    assert ran.code == 0, ran.err
    assert load_file(tmp_path / "out/model.safetensors")["embed.weight"].shape == (11, 4)
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "pool" / "*", *told[:-1], tmp_path / "mean")
    assert ran.code == 0, ran.err
    assert merge("apply", tmp_path / "mean", "--output", tmp_path / "again").code == 0
    files = [tmp_path / name / "model.safetensors" for name in ("mean", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "pool" / "*", "--as", "adapter", *told)
    assert "error: " in ran.err
    assert ran.code == 2
