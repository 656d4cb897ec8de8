"""Language models of several vocabularies, against transformers' ``resize_token_embeddings`` and mergekit's outputs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

import merging
from benchmarks.vocabularies import CASES, MODELS, rows_of, write_inputs
from merging.errors import PoolError
from merging.plugins.discovery import load_installed
from merging.plugins.registry import strategies
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.storage.vocabulary_rows import rows_of_vocabulary
from tests.conftest import Merge

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
SPECIAL = ["<pad>", "<unk>", "</s>"]
WORDS = [*SPECIAL, *(f"w{number}" for number in range(12))]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def tokenizer(words: Sequence[str], added: Sequence[str] = ()) -> Any:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIAL, *added)])
    marks = dict(zip(("pad_token", "unk_token", "eos_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=16, **marks)


def write(folder: Path, kind: str, words: Sequence[str] = WORDS, added: Sequence[str] = (), **config: Any) -> Any:
    """A model and its tokenizer, as transformers saves them; ``seed`` draws its weights."""
    own = tokenizer(words, added)
    torch.manual_seed(config.pop("seed", 0))
    of = {"vocab_size": len(own), "pad_token_id": own.pad_token_id, "eos_token_id": own.eos_token_id}
    name = kind.partition("For")[0].removesuffix("LMHeadModel")
    made = getattr(transformers, f"{name}Config")(**SMALL | of | config)
    made.bos_token_id = None
    model = getattr(transformers, kind)(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    own.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def aligned_by_transformers(model: Any, own: dict[str, int], ids: dict[str, int], fill: dict[str, Any]) -> Any:
    """The same model in another vocabulary: resized by transformers, and its rows put where their tokens are.

    ``fill`` has for each lacking token what stands in a model that has it: (model, its ids).
    """
    old = {"in": model.get_input_embeddings().weight.clone(), "out": model.get_output_embeddings().weight.clone()}
    model.resize_token_embeddings(len(ids))
    places = (("in", model.get_input_embeddings()), ("out", model.get_output_embeddings()))
    with torch.no_grad():
        for place, layer in places:
            for token, number in ids.items():
                if token in own:
                    layer.weight[number] = old[place][own[token]]
                else:
                    donors = [
                        (donor.get_input_embeddings() if place == "in" else donor.get_output_embeddings(), known)
                        for donor, known in fill[token]
                    ]
                    layer.weight[number] = torch.stack([layer.weight[known[token]] for layer, known in donors]).mean(0)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_models_aligned_by_hand(tmp_path: Path, *, tied: bool) -> None:
    how = {"tie_word_embeddings": tied, "num_key_value_heads": 1}
    shuffled = [*SPECIAL, *random.Random(0).sample(WORDS[3:], 12)]  # noqa: S311
    base = write(tmp_path / "base", "LlamaForCausalLM", seed=1, **how)
    one = write(tmp_path / "m1", "LlamaForCausalLM", shuffled, ["<a>", "<b>"], seed=2, **how)
    two = write(tmp_path / "m2", "LlamaForCausalLM", WORDS[:12], ["<b>"], seed=3, vocab_size=24, **how)
    folders = [tmp_path / "m1", tmp_path / "m2"]
    told = {"base": tmp_path / "base", "tokenizer_source": "union", "pad_to_multiple_of": 8}
    merging.merge(folders, "uniform", output=tmp_path / "out", **told)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert model.config.vocab_size == 24
    assert model.get_input_embeddings().weight.shape == (24, 16)
    ids = read.get_vocab()
    assert len(ids) == 17
    assert [read.convert_ids_to_tokens(number) for number in (0, 15, 16)] == ["<pad>", "<a>", "<b>"]
    maps = {name: tokenizer_of(tmp_path / name) for name in ("base", "m1", "m2")}
    fill: dict[str, Any] = {token: [(base, maps["base"])] for token in maps["base"]}
    fill |= {"<a>": [(one, maps["m1"])]}
    whole = [aligned_by_transformers(made, maps[name], ids, fill) for made, name in ((two, "m2"), (one, "m1"))]
    states = [made.state_dict() for made in whole]
    mean = transformers.LlamaForCausalLM(whole[1].config).eval()
    mean.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in states[0]})
    asked = read("w1 <a> w11 w7 <b> unheard w2", return_tensors="pt")
    assert asked["input_ids"][0].tolist() == [ids[token] for token in ("w1", "<a>", "w11", "w7", "<b>", "<unk>", "w2")]
    with torch.no_grad():
        torch.testing.assert_close(model(**asked).logits[..., :17], mean(**asked).logits, rtol=1e-5, atol=1e-5)


def tokenizer_of(folder: Path) -> dict[str, int]:
    return dict(transformers.AutoTokenizer.from_pretrained(folder).get_vocab())


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 1, "n_head": 2}, ["transformer.wte.weight"]),
        (
            "BertForMaskedLM",
            {},
            ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"],
        ),
        ("PhiForCausalLM", {}, ["lm_head.bias", "lm_head.weight", "model.embed_tokens.weight"]),
        (
            "BartForConditionalGeneration",
            {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2},
            ["final_logits_bias", "model.shared.weight"],
        ),
    ],
)  # fmt: skip
def test_rows_of_a_vocabulary_are_found_by_the_architecture(
    tmp_path: Path, kind: str, config: dict[str, Any], names: list[str]
) -> None:
    """Widths and numbers of positions that are the vocabulary's own size mislead nobody."""
    write(tmp_path / "a", kind, **{"max_position_embeddings": len(WORDS), "n_positions": len(WORDS)} | config)
    found, how = rows_of_vocabulary([Checkpoint(tmp_path / "a")])
    assert (sorted(found), how) == (names, "")
    write(tmp_path / "b", kind, WORDS[::-1], ["<x>"], seed=1, **{"max_position_embeddings": len(WORDS)} | config)
    pool = ModelPool.open([tmp_path / "a", tmp_path / "b"], tokenizer_source="union", pad_to_multiple_of=8)
    assert {shape for name, (shape, _) in pool.tensors.items() if name in names} <= {(16, 16), (16,), (1, 16)}


def accuracy(folder: Path, texts: Sequence[tuple[str, int]]) -> float:
    """A plain loop over transformers."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    read = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits: list[Tensor] = [model(**read(text, return_tensors="pt")).logits for text, _ in texts]
    return sum(int(one.argmax()) == label for one, (_, label) in zip(logits, texts, strict=True)) / len(texts)


def test_a_text_task_scores_models_of_several_vocabularies(
    tmp_path: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model as it is with its own tokenizer; a search over them, its result, and a run that goes on."""
    monkeypatch.chdir(tmp_path)
    kind, how = "BertForSequenceClassification", {"num_labels": 3, "type_vocab_size": 1}
    write(tmp_path / "base", kind, seed=1, **how)
    draw = random.Random(1)  # noqa: S311
    for number in range(3):
        words = [*SPECIAL, *draw.sample(WORDS[3:], 12)]
        write(tmp_path / "pool" / f"m{number}", kind, words, [f"<{number}>"] * number, seed=2 + number, **how)
    texts = [(" ".join(draw.choices(WORDS[3:], k=draw.randint(2, 6))), draw.randrange(3)) for _ in range(60)]
    lines = [json.dumps({"text": text, "label": f"LABEL_{label}"}) for text, label in texts]
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines), encoding="utf-8")
    classes = json.dumps([f"LABEL_{number}" for number in range(3)])
    (tmp_path / "merge.toml").write_text(
        f'[task]\nmodel = "transformers:base"\nheld_out = "held_out.jsonl"\nclasses = {classes}\n'
        '[pool]\nmodels = ["pool/*"]\nbase = "base"\n[run]\ntokenizer_source = "union"\npad_to_multiple_of = 4\n'
    )
    ran = merge("run", "--strategy", "greedy", "--output", "out", "--max-evaluations", "4")
    assert ran.code in (0, 3), ran.err
    ran = merge("run", "--resume", "out", "--max-evaluations", "40")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    alone = {name: accuracy(tmp_path / "pool" / name, texts) for name in ("m0", "m1", "m2")}
    assert report["validation"]["best_single"] == pytest.approx(max(alone.values()))
    assert accuracy(tmp_path / "out", texts) == pytest.approx(report["validation"]["merged"])
    (tmp_path / "out/model.safetensors").rename(tmp_path / "kept.safetensors")
    ran = merge("evaluate", "out/recipe.json", "--task", "merge.toml", "--json")
    assert ran.code == 0, ran.err
    assert f"{report['validation']['merged']:.6f}" in ran.out or str(report["validation"]["merged"]) in ran.out
    assert merge("apply", "out", "--output", "again").code == 0
    again = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in load_file(tmp_path / "kept.safetensors").items())
    ran = merge("run", "--strategy", "uniform", "--output", "other", "--tokenizer-source", "m1")
    assert ran.code == 2
    assert "name the model whose ids that has: transformers:" in " ".join(ran.err.split())


def test_a_task_of_images_has_no_vocabulary(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=3)
    for name in "ab":
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path / name)
    with pytest.raises(PoolError, match=r"a has no tokenizer beside it .* leave out `tokenizer_source`"):
        merging.merge([tmp_path / "a", tmp_path / "b"], "uniform", tokenizer_source="union")


GOLDEN = Path(__file__).parent / "vocabularies"
CANCELS = {"ties, union, padded": 4}
"""Entries, at most, whose sign nobody elects: of a token that two models have and the base lacks, for which the mean
stands, the two changes cancel but for the rounding of that mean, which mergekit does in float32."""


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_mergekit(tmp_path: Path, name: str) -> None:
    """Token by token: mergekit gives several new tokens ids in the order of a hash table, which changes."""
    load_installed()
    case, wanted = CASES[name], load_file(GOLDEN / "outputs.safetensors")
    theirs = json.loads((GOLDEN / "mergekit.json").read_text(encoding="utf-8"))["ids"][name]
    write_inputs(tmp_path / "inputs", case.dtype)
    merging.merge(
        [tmp_path / "inputs" / model for model in MODELS if model != "base"],
        strategies[case.ours](**case.options),
        base=tmp_path / "inputs" / "base" if case.base else None,
        tokenizer_source=case.tokenizer_source,
        pad_to_multiple_of=case.multiple,
        output=tmp_path / "out",
    )
    rows, ids = rows_of(tmp_path / "out")
    assert ids.keys() == theirs.keys()
    limit = 4e-6 if case.dtype == "float32" else 2**-7  # mergekit's means and sums are in the models' own dtype
    for key, found in rows.items():
        golden = wanted[f"{name}/{key}"]
        assert (found.shape, found.dtype) == (golden.shape, golden.dtype)
        order = [theirs[token] for token in sorted(ids, key=ids.__getitem__)]
        same = torch.cat([golden[order], golden[len(order) :]])
        apart = (found.double() - same.double()).abs() > limit * same.double().abs().clamp(min=1.0)
        assert int(apart.sum()) <= CANCELS.get(name, 0)
        assert not apart[[number for token, number in ids.items() if token not in ("<b>",)]].any()
