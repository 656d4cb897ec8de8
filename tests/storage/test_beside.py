"""Keys that change what a model computes, and vocabularies: a line for each difference, none for provenance."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from merging.storage.beside import PROVENANCE
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.storage.result import carry
from merging.storage.vocabulary import read_vocabulary
from tests.conftest import TASK, Merge

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "hidden_act": "gelu",
    "rope_theta": 10000.0,
    "layer_norm_eps": 1e-12,
    "num_attention_heads": 2,
    "_name_or_path": "a",
    "transformers_version": "4.50.0",
    "vision_config": {"image_size": 16, "torch_dtype": "float32", "_name_or_path": "x", "deep": {"er": [1, {"x": 2}]}},
}


def write(folder: Path, value: float = 1.0, **files: Any) -> Path:
    """A folder that is a model; ``config_json={…}`` writes config.json, text and bytes go as they are."""
    folder.mkdir(parents=True)
    save_file({"w": torch.full((3, 2), value)}, folder / "model.safetensors")
    for name, content in ({"config_json": CONFIG} | files).items():
        stem, suffix = name.rsplit("_", 1)
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / f"{stem}.{suffix}").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def said(folder: Path, base: Path | None = None) -> tuple[str, ...]:
    return ModelPool.open([folder], base).beside


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("rope_theta", 500000.0, "rope_theta is 10000.0 in a, 500000.0 in b"),
        ("hidden_act", "relu", 'hidden_act is "gelu" in a, "relu" in b'),
        ("layer_norm_eps", 1e-5, "layer_norm_eps is 1e-12 in a, 1e-05 in b"),
        ("num_attention_heads", 4, "num_attention_heads is 2 in a, 4 in b"),
        ("architectures", ["X"], 'architectures is ["BertForSequenceClassification"] in a, ["X"] in b'),
        ("nobody_knows_it", [1, 2], "nobody_knows_it is not set in a, [1, 2] in b"),
    ],
)
def test_a_key_that_differs_has_a_line(tmp_path: Path, key: str, value: Any, line: str) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", config_json={**CONFIG, key: value, "_name_or_path": "b"})
    assert said(tmp_path) == (f"config.json: {line}; the result takes a's",)


@pytest.mark.parametrize("key", sorted(PROVENANCE))
def test_provenance_has_none(tmp_path: Path, key: str) -> None:
    write(tmp_path / "a", config_json=CONFIG | {key: "one"})
    write(tmp_path / "b", config_json=CONFIG | {key: {"an": ["other"]}})
    assert said(tmp_path) == ()


def test_what_is_no_difference_has_none(tmp_path: Path) -> None:
    write(tmp_path / "a", config_json={"x": 1, "y": None, "z": float("nan"), "list": [1, 2], "n": 2**60})
    write(tmp_path / "b", config_json='{"list": [1.0, 2],\n "z": NaN, "x": 1.0, "n": 1152921504606846976, "w": null}')
    write(
        tmp_path / "c", config_json={"x": True, "z": float("nan"), "list": [1, 2.0], "n": 2**60, "architectures": ["X"]}
    )
    assert said(tmp_path) == ()
    write(tmp_path / "d", config_json={"x": 1, "z": float("nan"), "list": [1, 2.0], "n": 2**60 + 1})
    assert said(tmp_path) == (f"config.json: n is {2**60} in a, b and c, {2**60 + 1} in d; the result takes a's",)


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where the values of JSON stand."""
    if isinstance(value, dict) and value:
        return [found for key, inner in value.items() for found in paths_of(inner, (*path, key))]
    if isinstance(value, list) and any(isinstance(each, list | dict) for each in value):
        return [found for number, inner in enumerate(value) for found in paths_of(inner, (*path, number))]
    return [path]


KEYS = st.sampled_from(
    [
        "rope_theta",
        "hidden_act",
        "eps",
        "image_mean",
        "size",
        "Zahl",
        "unknown-key",
        "text_config",
        "0",
        "[/x]",
        *sorted(PROVENANCE),
    ]
)
LEAVES = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=80),
    st.booleans(),
    st.lists(st.integers(), max_size=3),
)
NESTED = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3))
CONFIGS = st.dictionaries(KEYS, NESTED, min_size=1, max_size=6)


@given(config=CONFIGS, data=st.data(), models=st.integers(2, 5))
def test_every_change_but_of_provenance_is_said(config: dict[str, Any], data: st.DataObject, models: int) -> None:
    """A generator: any JSON, changed at any place, in any model of the pool."""
    places = paths_of(config)
    place = data.draw(st.sampled_from(places))
    changed = copy.deepcopy(config)
    inner: Any = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = "changed" * data.draw(st.integers(1, 20))
    at = data.draw(st.integers(0, models - 1))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(models):
            content = json.dumps(changed if number == at else config, indent=data.draw(st.sampled_from([None, 2])))
            write(Path(folder) / f"m{number}", config_json=content)
        lines = said(Path(folder))
    if PROVENANCE & set(map(str, place)) or inner[place[-1]] == _at(config, place):
        assert lines == ()
        return
    (line,) = [line for line in lines if "changed" in line]
    keys = [".".join(map(str, place[:end])) for end in (len(place), len(place) - 1)]  # a list without lists is a value
    assert line.startswith(tuple(f"config.json: {key} is " for key in keys))
    assert line.endswith("; the result takes m0's")
    assert f"m{at}" in line
    assert line.isprintable()
    assert len(line) < 500


def _at(value: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


def test_long_values_are_shown_where_they_differ(tmp_path: Path) -> None:
    long = "{% for message in messages %}" * 20
    write(tmp_path / "a", tokenizer_config_json={"chat_template": long + "A" + long})
    write(tmp_path / "b", tokenizer_config_json={"chat_template": long + "B\x1b" + long})
    (line,) = said(tmp_path)
    assert len(line) < 250
    assert "%}A{%" in line
    assert r"%}B\u001b{%" in line


def test_many_differences_end_in_names(tmp_path: Path) -> None:
    write(tmp_path / "a", config_json={f"key_{number:03}": 0 for number in range(100)})
    write(tmp_path / "b", config_json={f"key_{number:03}": 1 for number in range(100)})
    lines = said(tmp_path)
    assert len(lines) == 21
    assert lines[-1].startswith("config.json: also differ: key_020, key_021, ")
    assert lines[-1].endswith("key_059 and 40 more; the result takes a's")


def test_timm_and_open_clip_and_preprocessing(tmp_path: Path) -> None:
    timm = {
        "architecture": "resnet18",
        "num_classes": 3,
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "crop_pct": 0.875},
    }
    other = {"mean": [0.4, 0.5, 0.5], "crop_pct": 0.875, "tag": "x", "url": "https://…", "hf_hub_id": "timm/x"}
    clip = {"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {"interpolation": "bicubic"}}
    processor = {"size": {"shortest_edge": 256}, "resample": 3, "image_std": [1, 1, 1]}
    write(tmp_path / "a", config_json=timm, open_clip_config_json=clip, preprocessor_config_json=processor)
    write(
        tmp_path / "b",
        config_json=timm | {"pretrained_cfg": other},
        open_clip_config_json=clip | {"preprocess_cfg": {"interpolation": "bilinear"}},
        preprocessor_config_json={"size": {"shortest_edge": 224}, "resample": 2, "image_std": [1, 1, 1.0]},
    )
    lines = [
        "config.json: pretrained_cfg.mean is [0.5, 0.5, 0.5] in a, [0.4, 0.5, 0.5] in b",
        'open_clip_config.json: preprocess_cfg.interpolation is "bicubic" in a, "bilinear" in b',
        "preprocessor_config.json: size.shortest_edge is 256 in a, 224 in b",
        "preprocessor_config.json: resample is 3 in a, 2 in b",
    ]
    assert said(tmp_path) == tuple(f"{line}; the result takes a's" for line in lines)
    files = [tmp_path / name / "model.safetensors" for name in "ab"]
    names = [line.replace(" a,", " a/model,").replace(" b", " b/model") for line in lines[:2]]
    assert list(ModelPool.open(files).beside) == names  # of single files nothing but transformers' goes along


def test_which_file_goes_along_is_said(tmp_path: Path) -> None:
    base = write(tmp_path / "base", config_json={"x": 0}, merges_txt="a b\n")
    write(tmp_path / "m" / "a", config_json={"x": 1}, vocab_txt="a\nb\n")
    write(tmp_path / "m" / "b", config_json={"x": 1})
    assert said(tmp_path / "m", base) == (
        "merges.txt lies beside the base, not beside a and b; the result takes the base's",
        "vocab.txt lies beside a, not beside b and the base; the result has none",
        "config.json: x is 1 in a and b, 0 in the base; the result takes the base's",
    )
    pool = ModelPool.open([tmp_path / "m"], base)
    (tmp_path / "out").mkdir()
    carry(pool.base or pool.checkpoints[0], tmp_path / "out", None)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"x": 0}
    shutil.rmtree(base)
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "base.safetensors")
    assert said(tmp_path / "m", tmp_path / "base.safetensors") == (
        "config.json lies beside a and b, not beside the base; the result has none",
        "vocab.txt lies beside a, not beside b and the base; the result has none",
    )


def sentencepiece(*pieces: str) -> bytes:
    """A model's bytes, as sentencepiece writes them: pieces with text, score and kind, and a message beside them."""
    content = b""
    for piece in pieces:
        text = piece.encode()
        inner = b"\x0a" + bytes([len(text)]) + text + b"\x15\x00\x00\x80\xbf" + b"\x18\x01"
        content += b"\x0a" + bytes([len(inner)]) + inner
    return content + b"\x12\x04\x18\x01\x20\x02" + b"\x28\x96\x01"


def tiktoken(*tokens: str) -> bytes:
    """As Llama 3 and others keep byte pairs: a token in base 64 and its rank a line."""
    return b"".join(base64.b64encode(token.encode()) + f" {number}\n".encode() for number, token in enumerate(tokens))


def tokenizers(*tokens: str, **more: Any) -> dict[str, Any]:
    return {"model": {"type": "WordLevel", "vocab": {t: n for n, t in enumerate(tokens)}}, "added_tokens": []} | more


def unigrams(*tokens: str) -> dict[str, Any]:
    return {"model": {"type": "Unigram", "vocab": [[token, -1.0] for token in tokens]}}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("vocab_txt", lambda *t: "\n".join(t) + "\n"),
        ("vocab_json", lambda *t: {token: number for number, token in enumerate(t)}),
        ("tokenizer_json", tokenizers),
        ("tokenizer_json", unigrams),
        ("spiece_model", sentencepiece),
        ("sentencepiece.bpe_model", sentencepiece),
    ],
)
def test_a_vocabulary_that_differs(name: str, make: Any, tmp_path: Path) -> None:
    write(tmp_path / "a", **{name: make("[PAD]", "the", "cat", "sat")})
    write(tmp_path / "b", **{name: make("[PAD]", "the", "dog", "sat", "down")})
    write(tmp_path / "c", **{name: make("[PAD]", "the", "cat", "sat")})
    lines = [line for line in said(tmp_path) if "tokens" in line]
    file = name.replace("_", ".")
    assert lines == [
        f"{file}: 4 tokens in a and c, 5 in b; the first that differs is number 2, 'cat' in a and c, 'dog' in b; the "
        "result takes a's"
    ]


def test_merges_and_added_tokens_that_differ(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    added = [{"id": 3, "content": "[X]", "special": True}]
    write(tmp_path / "a", tokenizer_json={"model": model, "added_tokens": added}, merges_txt="#version: 0.2\na b\n")
    write(
        tmp_path / "b",
        merges_txt="#version: 0.1\na b\nb a\n",
        added_tokens_json={"[X]": 3},
        tokenizer_json={
            "model": model | {"merges": ["a b", "b a"], "unk_token": "a"},
            "normalizer": {"type": "Lowercase"},
            "added_tokens": [{"id": 3, "content": "[Y]", "special": True}],
        },
    )
    assert said(tmp_path) == tuple(
        f"{line}; the result takes a's" if "added_tokens.json" not in line else f"{line}; the result has none"
        for line in (
            "added_tokens.json lies beside b, not beside a",
            "merges.txt: 1 merges in a, 2 in b; the first that differs is number 1, none in a, 'b a' in b",
            "tokenizer.json: 4 tokens each; the first that differs is number 3, '[X]' in a, '[Y]' in b",
            "tokenizer.json: 1 merges in a, 2 in b; the first that differs is number 1, none in a, 'b a' in b",
            "tokenizer.json: added_tokens.[X].special is true in a, not set in b",
            'tokenizer.json: normalizer.type is not set in a, "Lowercase" in b',
            'tokenizer.json: model.unk_token is not set in a, "a" in b',
            "tokenizer.json: added_tokens.[Y].special is not set in a, true in b",
        )
    )


@given(
    tokens=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=9),
        min_size=2,
        max_size=20,
        unique=True,
    ),
    swap=st.data(),
)
def test_any_exchange_of_tokens_is_found(tokens: list[str], swap: st.DataObject) -> None:
    order = swap.draw(st.permutations(tokens))
    for name, make in (("vocab.txt", lambda t: "\n".join(t).encode()), ("spiece.model", lambda t: sentencepiece(*t))):
        first, other = read_vocabulary(name, make(tokens)), read_vocabulary(name, make(order))
        assert first is not None
        assert other is not None
        lines = list(first.differs(other, "a", "b"))
        if order == tokens:
            assert lines == []
            continue
        number = next(n for n in range(len(tokens)) if tokens[n] != order[n])
        assert lines[0].startswith(f"{len(tokens)} tokens each; the first that differs is number {number}, ")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "chat_template.jinja"]
)
def test_files_that_nobody_understands_are_compared_by_their_bytes(name: str, tmp_path: Path) -> None:
    key = name.replace(".", "_")
    write(tmp_path / "a", **{key: b"\xff\xfe{"})
    write(tmp_path / "b", **{key: b"\xff\xfe{}"})
    assert said(tmp_path) == (f"{name}: 3 bytes in a, 4 bytes in b, not the same; the result takes a's",)


def test_a_damaged_configuration_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", config_json='{"a":' * 3000 + "1" + "}" * 3000)
    write(tmp_path / "c", config_json="{")
    lines = said(tmp_path)
    assert len([line for line in lines if line.startswith("config.json: ") and "not the same" in line]) == 2


def test_a_thousand_models_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from merging.storage import beside, companions

    reads: list[Path] = []
    plain = companions.read_companion

    def counted(file: Path) -> bytes:
        reads.append(file)
        return plain(file)

    monkeypatch.setattr(beside, "read_companion", counted)
    counts = []
    for models in (30, 60):
        home = tmp_path / str(models)
        for number in range(models):
            write(home / f"m{number}", config_json=CONFIG | {"lr": number})
        reads.clear()
        (line,) = said(home)
        assert line.startswith("config.json: lr is 0 in m0, 1 in m1, 2 in m2, 3 in m3 and ")
        counts.append(len(reads))
    assert counts[1] == 2 * counts[0]


def test_every_command_says_the_same(merge: Merge, tmp_path: Path) -> None:
    from merging.testing import tiny_pool

    tiny_pool(tmp_path / "tiny", models=2)
    for number in range(2):
        folder = tmp_path / "pool" / f"m{number}"
        folder.mkdir(parents=True)
        (tmp_path / "tiny" / f"model_{number}.safetensors").rename(folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"rope_theta": 1 + number, "[/x]": [True, number]}))
    lines = [
        "config.json: rope_theta is 1 in m0, 2 in m1; the result takes m0's",
        "config.json: [/x] is [true, 0] in m0, [true, 1] in m1; the result takes m0's",
    ]
    flags = ["--models", str(tmp_path / "pool")]
    for task in ([], ["--task", TASK]):
        output = f"out{len(task)}"
        ran = merge("run", "--strategy", "uniform", *flags, *task, "--output", output)
        assert ran.code == 0, ran.err
        for line in lines:
            assert line in " ".join(ran.out.split())
            assert line in json.loads(Path(output, "report.json").read_text())["notes"]
            assert f"- {line}" in Path(output, "README.md").read_text()
    checked, inspected = merge("check", "--strategy", "uniform", *flags), merge("inspect", *flags)
    for line in lines:
        assert " ".join(checked.out.split()).count(line) == 1
        assert line in " ".join(inspected.out.split())
    compared = merge("benchmark", "--strategies", "uniform", *flags, "--task", TASK, "--output", "compared")
    assert compared.code == 0, compared.err
    folder, file = merge("apply", "out0", "--output", "again"), merge("apply", "out0", "--output", "again.safetensors")
    for line in lines:
        assert line in " ".join(compared.out.split())
        assert f"note: {line}" in folder.err
        assert f"note: {line.removesuffix(chr(59) + ' the result takes m0' + chr(39) + 's')}\n" in file.err


def test_extras_are_what_goes_along(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", vocab_txt="a\n", notes_md="x")
    assert [file.name for file in Checkpoint(folder).extras] == ["config.json", "vocab.txt"]


def test_settings_in_the_file_itself(tmp_path: Path, merge: Merge) -> None:
    """Heads of attention change nothing in the shapes, and everything in the result; rates and seeds do not count."""
    for number, heads in enumerate((12, 6)):
        content = {"model": {"w": torch.ones(2)}, "model_args": {"n_head": heads, "n_layer": 2}, "iter_num": number}
        content |= {"hyper_parameters": {"lr": 0.1 * number, "seed": number, "activation": "gelu"}}
        torch.save(content, tmp_path / f"m{number}.pt")
        facts = {"n_heads": str(heads), "seed": str(number)}
        save_file({"w": torch.ones(2)}, tmp_path / f"s{number}.safetensors", metadata=facts)
    for pattern, line in (
        ("m*.pt", "model_args.n_head is 12 in m0, 6 in m1"),
        ("s*", 'n_heads is "12" in s0, "6" in s1'),
    ):
        ran = merge("run", "--strategy", "uniform", "--models", pattern, "--output", f"out-{pattern[0]}")
        assert ran.code == 0, ran.err
        said = " ".join(ran.out.split())
        assert line in said
        assert "seed" not in said
        assert "n_layer" not in said


def test_a_file_of_weights_alone_differs_in_no_setting(tmp_path: Path, merge: Merge) -> None:
    """Such as a base often is, beside checkpoints that say how they were made; what differs among these is said."""
    torch.save({"w": torch.ones(2)}, tmp_path / "start.pth")
    for number, size in enumerate((64, 64, 96)):
        content = {"state_dict": {"w": torch.ones(2) * number}, "arch": "net", "args": {"img_size": size}}
        torch.save(content, tmp_path / f"m{number}.pth")
    for pattern, line in (("m[01].pth", None), ("m*.pth", "args.img_size is 64 in m0 and m1, 96 in m2")):
        ran = merge("run", "--strategy", "uniform", "--models", pattern, "--base", "start.pth", "--overwrite")
        assert ran.code == 0, ran.err
        said = " ".join(ran.out.split())
        assert "not set" not in said
        assert ("in the files themselves" in said) == (line is not None)
        assert line is None or line in said
