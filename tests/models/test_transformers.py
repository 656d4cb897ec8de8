"""``transformers:FOLDER``: names as in the files, merges that are right, and folders that transformers loads again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

import merging
from merging.cli.asking.tables import read_toml
from merging.data.opening import load_data
from merging.errors import PoolError, TaskError
from merging.forward.device import on_device
from merging.forward.fitting import check_fits
from merging.looking.scoring import evaluate
from merging.mixing.arithmetic import materialise
from merging.models.stored_names import StoredNames, _parts
from merging.models.transformers import TransformersImage, TransformersText
from merging.plugins.task import Split, Task
from merging.running.leaks import digests
from merging.storage.pool import ModelPool
from merging.tasks.described import described_task
from merging.training.finetune import finetune
from merging.training.hyperparameters import Sweep
from merging.values.recipe import Recipe
from tests.conftest import Merge

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
WORDS = {"vocab_size": 40, "max_position_embeddings": 16, "pad_token_id": 0, "num_labels": 3}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 3}
CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "bert": transformers.BertConfig(**SMALL, **WORDS),
    "roberta": transformers.RobertaConfig(**SMALL, **{**WORDS, "pad_token_id": 1}),
    "distilbert": transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=40),
    "vit": transformers.ViTConfig(**SMALL, **IMAGES),
    "dinov2": transformers.Dinov2Config(**SMALL, **IMAGES),
    "swin": transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=3
    ),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3),
    "resnet": transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    ),
}
TEXTS = ("bert", "roberta", "distilbert")


def model_of(name: str, seed: int = 0) -> Any:
    """A model of transformers with random weights of a sensible size."""
    torch.manual_seed(seed)
    kind = "SequenceClassification" if name in TEXTS else "ImageClassification"
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(CONFIGS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def saved(name: str, folder: Path, seed: int = 0, **how: Any) -> Any:
    model = model_of(name, seed)
    model.save_pretrained(folder, **how)
    return model


def ids(count: int = 4, length: int = 9, padding: int = 0) -> Tensor:
    """Token ids of texts of different lengths."""
    found = torch.randint(5, 40, (count, length), generator=torch.Generator().manual_seed(1))
    for row in range(count):
        found[row, length - row :] = padding
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "model")
    source = merging.model_source(f"transformers:{tmp_path / 'model'}")
    assert isinstance(source, TransformersText if name in TEXTS else TransformersImage)
    pool = ModelPool.open([tmp_path / "model"])
    module = source.build(pool).eval()
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert (
        set(module.state_dict())
        == set(stored)
        == {n for n, _ in module.named_parameters()} | {n for n, _ in module.named_buffers() if n in stored}
    )
    module.load_state_dict(stored)
    padding = getattr(CONFIGS[name], "pad_token_id", 0) or 0
    with torch.no_grad():
        if name in TEXTS:
            x = ids(padding=padding)
            expected = model(input_ids=x, attention_mask=(x != padding).long()).logits
        else:
            x = torch.randn(2, 3, 32, 32)
            expected = model(pixel_values=x).logits
        assert torch.equal(module(x), expected)
    assert module.train().training
    assert all(part.training for part in module.whole.modules())
    assert len(module(x)) == len(x)


MORE: dict[str, transformers.PretrainedConfig] = {
    "relative positions": transformers.DebertaV2Config(
        **SMALL, **WORDS, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
    "rotations": transformers.ModernBertConfig(**SMALL, **WORDS, cls_token_id=2, sep_token_id=3),
    "a decoder": transformers.LlamaConfig(**SMALL, **WORDS, num_key_value_heads=2, bos_token_id=2, eos_token_id=3),
    "slopes": transformers.BloomConfig(
        vocab_size=40, hidden_size=16, n_layer=2, n_head=2, pad_token_id=0, num_labels=3
    ),
    "windows": transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=3
    ),
}


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_nothing_stays_behind(name: str, tmp_path: Path, device: str) -> None:
    """Positions, masks and buffers that no file holds are where the inputs are; the logits are the CPU's."""
    config = CONFIGS.get(name) or MORE[name]
    text = name in TEXTS or (name in MORE and name != "windows")
    auto = transformers.AutoModelForSequenceClassification if text else transformers.AutoModelForImageClassification
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(tmp_path / "model")
    pool = ModelPool.open([tmp_path / "model"])
    module = merging.model_source(f"transformers:{tmp_path / 'model'}").build(pool).eval()
    module.load_state_dict(pool.checkpoints[0].load())
    x = ids(padding=getattr(config, "pad_token_id", 0) or 0) if text else torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = module(x)
        there = on_device(module, device)(on_device(x, device))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), expected, rtol=1e-2, atol=5e-3)
    module.train()(on_device(x, device)).sum().backward()
    assert any(p.grad is not None and p.grad.is_cuda for p in module.parameters())


def test_parts_that_no_file_knows_move_too(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Where names in memory and in files differ, parts without tensors of their own are in the model alone."""

    class Turns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.ones(4), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.frequencies

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turns, self.new = Turns(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.new(self.turns(x))
            return found

    monkeypatch.setattr(
        "merging.models.stored_names._stored",
        lambda model, tensors: {n: n.replace("new", "old") for n in model.state_dict()},
    )
    tree = StoredNames(Inside(), {})
    assert set(tree.state_dict()) == {"old.weight", "old.bias"}
    on_device(tree, device)
    assert tree.whole(torch.ones(1, 4, device=device)).is_cuda
    assert tree.double().whole.turns.frequencies.dtype == torch.float64


def test_padding_changes_nothing(tmp_path: Path) -> None:
    saved("bert", tmp_path / "model")
    module = merging.model_source(f"transformers:{tmp_path / 'model'}").module().eval()
    short = ids(1, 6)
    long = torch.nn.functional.pad(short, (0, 5))
    with torch.no_grad():
        torch.testing.assert_close(module(short), module(long), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_components(name: str, tmp_path: Path) -> None:
    """Blocks and layers are those that the architecture has."""
    saved(name, tmp_path / "model")
    pool = ModelPool.open([tmp_path / "model"])
    module = merging.model_source(f"transformers:{tmp_path / 'model'}").build(pool)
    blocks = [c.name for c in merging.Block().split(pool.tensors, module).components]
    assert blocks == ["stem", f"{name}.encoder.layer.0", f"{name}.encoder.layer.1", "head"]
    parts = {c.name: c.tensors for c in merging.Block().split(pool.tensors, module).components}
    assert all(".embeddings." in tensor for tensor in parts["stem"])
    assert {"classifier.weight", "classifier.bias"} <= set(parts["head"])
    layers = merging.Layer().split(pool.tensors, module).components
    attention = f"{name}.encoder.layer.0.attention.{'self' if name == 'bert' else 'attention'}.query"
    assert {f"{attention}.weight", f"{attention}.bias"} in [set(c.tensors) for c in layers]


def test_the_head_follows_the_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, **{**WORDS, "num_labels": 7})
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "seven")
    saved("bert", tmp_path / "three")
    source = merging.model_source(f"transformers:{tmp_path / 'three'}")
    assert source.build(ModelPool.open([tmp_path / "seven"])).state_dict()["classifier.weight"].shape[0] == 7
    assert source.heads() == {"classifier.weight": 0, "classifier.bias": 0}
    saved("distilbert", tmp_path / "other")
    with pytest.raises(PoolError, match=r"has no 'classifier\.weight'|does not fit the task's model"):
        check_fits(source.build(other := ModelPool.open([tmp_path / "other"])), other)


def test_buffers_of_older_files(tmp_path: Path) -> None:
    """Versions before 4.31 stored ``position_ids``; such files load too."""
    model = saved("bert", tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    state["bert.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save(state, tmp_path / "old.pt")
    source = merging.model_source(f"transformers:{tmp_path / 'model'}")
    pool = ModelPool.open([tmp_path / "old.pt"])
    module = source.build(pool).eval()
    assert set(module.state_dict()) == set(pool.tensors)
    module.load_state_dict(state)
    with torch.no_grad():
        x = ids()
        assert torch.equal(module(x), model(input_ids=x, attention_mask=(x != 0).long()).logits)


def test_a_folder_without_processor_says_which_one_is_taken(tmp_path: Path) -> None:
    saved("vit", tmp_path)
    found = merging.model_source(f"transformers:{tmp_path}").transform()
    assert found.sides == (32, 32), "the configuration's"
    assert found.normalisation is not None
    assert found.normalisation.mean == (0.5, 0.5, 0.5), "the type's own"
    assert "no preprocessor_config.json" in found.notes[0]
    assert "ViTImageProcessor" in found.notes[0]


def test_sizes(tmp_path: Path) -> None:
    saved("vit", tmp_path / "vit")
    saved("resnet", tmp_path / "resnet")
    assert merging.model_source(f"transformers:{tmp_path / 'vit'}").fixed_size
    assert not merging.model_source(f"transformers:{tmp_path / 'resnet'}").fixed_size


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(TaskError) as caught:
            merging.model_source(f"transformers:{folder}")
        return str(caught.value)

    assert "no config.json there" in said(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in said(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    assert "classifies neither images nor texts" in said(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    assert "nothing-known" in said(tmp_path)
    saved("vit", tmp_path / "vit")
    for content in ('{"size": ', "[]", '{"image_processor_type": "Nobodys"}', '{"size": "large"}'):
        (tmp_path / "vit" / "preprocessor_config.json").write_text(content)
        with pytest.raises(TaskError) as caught:
            _ = merging.model_source(f"transformers:{tmp_path / 'vit'}").transform().divided
        assert len(str(caught.value).splitlines()) == 1, content
    saved("bert", tmp_path / "bert")
    source = merging.model_source(f"transformers:{tmp_path / 'bert'}")
    assert isinstance(source, TransformersText)
    with pytest.raises(TaskError, match="no tokenizer there"):
        source.tokenize(["a"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'merging[text]'" in said(tmp_path / "bert")


def test_a_module_that_cannot_be_placed() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.zeros(2))

    with pytest.raises(TaskError, match="is stored at a place of its own"):
        list(_parts("", Odd(), {"own": "elsewhere"}))


# --- texts, from start to end ---------------------------------------------------------------------------------------

MARKS = ("pad_token", "unk_token", "cls_token", "sep_token")
RULES = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a word tokenizer, and texts whose class is the colour that is said last; some labels are wrong."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("texts")
    fill = [f"word{number}" for number in range(30)]
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    vocabulary |= {word: number for number, word in enumerate([*RULES, *fill], len(vocabulary))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=16, **dict(zip(MARKS, list(vocabulary)[:4], strict=True))
    ).save_pretrained(folder / "start")
    names = dict(enumerate(RULES))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{**SMALL, **WORDS, "hidden_size": 32}, initializer_range=0.1, hidden_dropout_prob=0.0, id2label=names
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "start")
    draw = np.random.default_rng(0)
    for part, count in {"train": 600, "held_out": 300, "test": 300}.items():
        with (folder / f"{part}.jsonl").open("w") as file:
            for _ in range(count):
                colour = str(draw.choice(list(RULES)))
                text = " ".join([*draw.choice(fill, int(draw.integers(2, 10))), colour])
                label = colour if draw.random() < 0.9 else str(draw.choice(list(RULES)))
                file.write(json.dumps({"text": text, "label": label}) + "\n")
    (folder / "texts.toml").write_text(
        '[task]\nmodel = "transformers:start"\n'
        'train = "train.jsonl"\nheld_out = "held_out.jsonl"\ntest = "test.jsonl"\n'
    )
    return folder


def test_tokenizing(texts: Path) -> None:
    source = merging.model_source(f"transformers:{texts / 'start'}")
    assert isinstance(source, TransformersText)
    assert source.classes == ("red", "green", "blue")
    found = source.tokenize(["red word0", "blue", "word1 " * 40])
    assert found.shape == (3, 16)  # the longest, cut to what the model takes
    assert found[0].tolist() == [2, 4, 7, 3] + [0] * 12
    assert found[2, -1] == 3
    assert source.decode(found[0]) == "red word0"


def test_pairs_are_read_as_transformers_reads_them(texts: Path, tmp_path: Path, merge: Merge) -> None:
    """Logits of pairs, each alone and unpadded; the segments matter to them."""
    folder = tmp_path / "pairs"
    shutil.copytree(texts / "start", folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, model_max_length=16)
    tokenizer.save_pretrained(folder)
    first, second = ["red word0", "blue", "word1 " * 40], ["green", "word2 word3 red", "blue " * 30]
    rows = [{"a": a, "b": b, "label": label} for a, b, label in zip(first, second, RULES, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = merging.model_source(f"transformers:{folder}")
    split = load_data({"path": str(tmp_path / "pairs.jsonl"), "text": ["a", "b"]}, source)
    assert split.inputs.shape == (3, 2, 16)
    module = source.module().eval()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        whole = module(split.inputs)
        for row, a, b in zip(whole, first, second, strict=True):
            encoded = tokenizer(a, b, truncation=True, return_tensors="pt")
            assert encoded["token_type_ids"].any()
            torch.testing.assert_close(row, model(**encoded).logits[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(module(split.inputs[:, 0]), whole, atol=1e-3)
    assert source.decode(split.inputs[0]) == "red word0 green"  # type: ignore[attr-defined]
    (tmp_path / "pairs.toml").write_text(
        f'[task]\nmodel = "transformers:{folder}"\nheld_out = {{ path = "pairs.jsonl", text = ["a", "b"] }}\n'
    )
    ran = merge("evaluate", folder, "--task", tmp_path / "pairs.toml", "--json")
    right = sum(int(row.argmax()) == label for row, label in zip(whole, split.labels.tolist(), strict=True))
    assert json.loads(ran.out)["models"][0]["sets"]["held-out"]["score"] == right / 3
    longer = torch.nn.functional.pad(split.inputs[:2], (0, 3))
    assert digests(Split.of(longer, split.labels[:2]), 0).items() <= digests(split, 0).items()


@pytest.mark.slow
def test_finetune_merge_evaluate(texts: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands; the merge is the float64 average, and its accuracy that of a plain loop over transformers."""
    monkeypatch.chdir(texts)
    task = ["--task", "texts.toml"]
    fixed = ["--set", "augmentation=none", "--set", "mixup=0", "--set", "batch_size=20", "--jobs", "1"]
    made = merge(
        "finetune",
        *task,
        "--base",
        "start",
        "--models",
        "1",
        "--output",
        "base",
        *fixed,
        "--set",
        "learning_rate=4e-3",
        "--set",
        "epochs=4",
    )
    assert made.code == 0, made.err
    made = merge(
        "finetune",
        *task,
        "--base",
        "base/model_00.safetensors",
        "--models",
        "3",
        "--output",
        "pool",
        *fixed,
        "--set",
        "epochs=1",
        "--set",
        "learning_rate=1e-3",
    )
    assert made.code == 0, made.err
    flags = ["--models", "pool/model_*.safetensors"]
    ran = merge("run", *task, *flags, "--strategy", "uniform", "--output", "uniform")
    assert ran.code == 0, ran.err
    states = [load_file(f"pool/model_{number:02d}.safetensors") for number in range(3)]
    merged = load_file("uniform/model.safetensors")
    for name, tensor in merged.items():
        assert torch.equal(tensor, sum((1 / 3) * state[name].double() for state in states).to(tensor.dtype))

    assert (Path("base") / "tokenizer.json").is_file()
    assert (Path("pool") / "config.json").read_bytes() == Path("start/config.json").read_bytes()
    model = transformers.AutoModelForSequenceClassification.from_pretrained("uniform").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("uniform")
    report = json.loads(Path("uniform/report.json").read_text())
    for part, score in {"held_out": report["validation"]["merged"], "test": report["tests"]["test"]["merged"]}.items():
        rows = [json.loads(line) for line in Path(f"{part}.jsonl").read_text().splitlines()]
        with torch.no_grad():
            said = [int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax()) for row in rows]
        right = sum(guess == RULES[row["label"]] for guess, row in zip(said, rows, strict=True))
        assert score == right / len(rows)
    assert report["validation"]["merged"] > 0.8
    scored = json.loads(merge("evaluate", "uniform", *task, "--json").out)
    assert scored["models"][0]["sets"]["test"]["score"] == report["tests"]["test"]["merged"]

    mixed = merge("run", *task, *flags, "--partitioner", "block", "--budget", "6", "--output", "mix")
    assert mixed.code == 0, mixed.err
    report = json.loads(Path("mix/report.json").read_text())
    assert report["validation"]["merged"] >= report["validation"]["best_single"]


@pytest.mark.slow
def test_texts_on_a_device(texts: Path, tmp_path: Path, device: str) -> None:
    """Fine-tuned, completed, averaged, learned, scored; ids, labels and what is drawn from them meet on the device."""

    def task() -> Task:
        source = merging.model_source(f"transformers:{texts / 'start'}")
        parts = [load_data({"path": str(texts / f"{n}.jsonl")}, source, classes=list(RULES)) for n in ("train", "test")]
        train, test = (Split.of(part.inputs[:30], part.labels[:30]) for part in parts)
        return Task(name="texts", build=source.build, held_out=test, tests={"test": test}, train=train)

    sweep = Sweep.of({"learning_rate": [1e-3], "epochs": [1], "batch_size": 20, "augmentation": "none", "mixup": 0.0})
    for models in (1, 2):
        made = finetune(task, tmp_path / "pool", sweep, models=models, base=texts / "start", device=device)
    assert len(made) == 2
    pool = ModelPool.open([tmp_path / "pool" / "model_*.safetensors"], tmp_path / "pool" / "base.safetensors")
    for strategy in (merging.Fisher(samples=4), merging.Learned(epochs=1)):
        result = merging.merge(pool, strategy, task=task(), baselines=False, device=device)
        assert result.report.status == "finished"
    assert 0 <= evaluate(tmp_path / "pool" / "model_00.safetensors", task(), device=device)["test"].score <= 1


def test_methods_that_learn_take_texts(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by coefficient, and sample by sample, through a model of transformers."""
    monkeypatch.chdir(texts)
    table = read_toml(Path("texts.toml")).task.model_dump(exclude_defaults=True)
    task = described_task(table)
    start = load_file("start/model.safetensors")
    Path("near").mkdir(exist_ok=True)
    from safetensors.torch import save_file

    for number in range(2):
        torch.manual_seed(number)
        save_file({n: t + 0.02 * torch.randn_like(t) for n, t in start.items()}, f"near/model_{number}.safetensors")
    pool = ModelPool.open(["near/model_*.safetensors"])
    for strategy in (merging.Fisher(samples=20), merging.Learned(epochs=1)):
        result = merging.merge(pool, strategy, partitioner=merging.Block(), task=task, baselines=False)
        assert result.report.status == "finished"


def test_folders_stay_folders(tmp_path: Path, merge: Merge) -> None:
    """Folders of save_pretrained, shards too: the merge loads with from_pretrained, and is the mean."""
    for number in range(2):
        saved("vit", tmp_path / f"run-{number}", seed=number, max_shard_size="10KB" if number else "5GB")
    assert len(list((tmp_path / "run-1").glob("*.safetensors"))) > 1
    ran = merge("run", "--models", str(tmp_path / "run-*"), "--strategy", "uniform", "--output", "merged")
    assert ran.code == 0, ran.err
    model = transformers.AutoModelForImageClassification.from_pretrained("merged").eval()
    pool = ModelPool.open([tmp_path / "run-*"])
    module = merging.model_source("transformers:merged").build(pool).eval()
    module.load_state_dict(materialise(Recipe.mean(pool.ingredients, merging.Whole().split(pool.tensors)), pool))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(pixel_values=pixels).logits, module(pixels))


def test_block_components_in_a_run_of_images(tmp_path: Path, merge: Merge) -> None:
    """A ViT of transformers by ``merge inspect``: nothing is inert but what reaches no logit."""
    saved("vit", tmp_path / "vit")
    ran = merge("inspect", "--model", f"transformers:{tmp_path / 'vit'}", "--partitioner", "block", "--json")
    assert ran.code == 0, ran.err
    names = [component["name"] for component in json.loads(ran.out)["components"]]
    assert names == ["stem", "vit.encoder.layer.0", "vit.encoder.layer.1", "head"]
