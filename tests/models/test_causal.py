"""Causal language models: log-likelihoods are transformers' own, whatever the architecture, the files and the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import merging
from benchmarks.causal_models import ROWS, SETTINGS, differences, documents, losses, model_of, questions, read, saved
from merging.errors import PoolError, TaskError
from merging.evaluation.network import Network
from merging.forward.device import on_device
from merging.forward.fitting import check_fits, untouched
from merging.forward.live import LiveModel
from merging.forward.stages import stages_of
from merging.models import causal_scorer
from merging.models.causal import TransformersCausal
from merging.models.causal_scorer import CausalScorer
from merging.models.transformers import TransformersText
from merging.partitioners.whole import Whole
from merging.plugins.sequences import ABSENT
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool
from tests.models.test_vocabularies import WORDS, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
SOME = (
    "Llama, tied",
    "Mistral, windows",
    "Gemma2, caps and windows",
    "GPT-2",
    "GPT-NeoX",
    "GPT-J, bias of the head",
    "OPT, projected",
    "Bloom",
    "Cohere, scaled",
    "Mixtral, experts",
)


@pytest.mark.parametrize("name", SOME)
def test_likelihoods_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Documents, questions, a backward pass; what is divided into stages has the same bits."""
    found = differences(name, tmp_path)
    assert found["loss"] < 1e-5
    assert found["choice"] < 1e-5
    assert found["gradient"] < 1e-4
    assert found["stages"] == 5, "embedding, two blocks, choice of positions, head"
    assert found["same_bits"]


def test_the_committed_figures_are_of_all_architectures() -> None:
    found = json.loads(Path("docs/causal-models.json").read_text(encoding="utf-8"))
    assert found["architectures"].keys() == SETTINGS.keys()
    assert max(found["worst"]["loss"], found["worst"]["choice"]) < 1e-5
    assert all(row["same_bits"] and row["stages"] == 5 for row in found["architectures"].values())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("llama")
    return saved("Llama, tied", folder), folder


def test_a_sample_is_its_own_whatever_it_is_batched_with(llama: tuple[Any, Path]) -> None:
    module, texts = read(llama[1]), questions()
    with torch.no_grad():
        together = module(texts.collated())
        alone = torch.cat([module(texts[number].collated()) for number in range(len(texts))])
    assert together.dtype == torch.float32
    assert (together == ABSENT).sum(1).tolist() == [3, 0, 2, 1], "choices that a question does not have"
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_logits_are_made_a_few_at_a_time(llama: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under autograd, which keeps none of them."""
    module, batch = read(llama[1]), documents().collated()
    whole = module(batch)
    whole.sum().backward()
    slopes = {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    module.zero_grad()
    heights: list[int] = []
    module.decoder.model.lm_head.register_forward_pre_hook(lambda part, given: heights.append(len(given[0])))
    monkeypatch.setattr(causal_scorer, "_LOGITS", {"cpu": 4 * ROWS * 7})
    parts = module(batch)
    assert max(heights) == 7
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    parts.sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name], rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_divided_still_scores(llama: tuple[Any, Path]) -> None:
    module, batch = read(llama[1]), questions().collated()
    with torch.no_grad():
        expected = module(batch)
        module.decoder.blocks = ()
        assert len(module.forward_steps()) == 1
        torch.testing.assert_close(module(batch), expected, rtol=1e-5, atol=1e-5)


def test_blocks_that_are_told_of_the_tokens_are_not_divided() -> None:
    """What a block is called with is kept by the batch's shape; here it is not of the shape alone."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SETTINGS["Llama"][1]))

    class Telling(type(model.model.rotary_emb)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
            cos, sin = super().forward(x, position_ids)
            return cos + x.mean(), sin

    model.model.rotary_emb.__class__ = Telling
    module = CausalScorer(model, {}).eval()
    assert not module.decoder.blocks
    texts = documents()
    with torch.no_grad():
        found = -module(texts[3].collated())[0, 0] / 29
    assert float(found) == pytest.approx(losses(model.eval(), texts)[3], abs=1e-5)


def test_in_bfloat16_losses_are_those_of_transformers_in_bfloat16(llama: tuple[Any, Path]) -> None:
    texts = documents()
    with torch.no_grad():
        found = -read(llama[1]).bfloat16()(texts.collated())[:, 0] / torch.from_numpy(texts.scored)
        own = losses(saved("Llama, tied", llama[1]).bfloat16(), texts)
    torch.testing.assert_close(found, torch.tensor(own), rtol=5e-3, atol=5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["Gemma3, windows", "Falcon, slopes", "OPT"])
def test_nothing_stays_behind(name: str, tmp_path: Path, device: str) -> None:
    """Rotations, masks, slopes and positions are where the batch is, in the whole pass and from each stage on."""
    saved(name, tmp_path)
    module, batch = read(tmp_path), questions().collated()
    with torch.no_grad():
        expected = module(batch)
        there = on_device(module, device)(on_device(batch, device))
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), expected, rtol=1e-4, atol=1e-4)
        stages = stages_of(module, on_device(batch, device))
    assert [stage.entry for stage in stages] == [False, True, True, False, True]
    module(on_device(batch, device)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.is_cuda for parameter in module.parameters())


def test_every_tensor_of_the_files_reaches_the_outputs(llama: tuple[Any, Path]) -> None:
    source = merging.model_source(f"transformers:{llama[1]}")
    module = source.build(ModelPool.open([llama[1]]))
    idle, shape = untouched(module.eval(), source.example())
    assert idle == frozenset()
    assert tuple(shape) == (2, 1)


def test_a_digest_of_the_network_knows_nothing_of_earlier_passes(llama: tuple[Any, Path], tmp_path: Path) -> None:
    """What blocks are called with is kept by shape; a setting that no short text shows is told all the same."""
    pool = ModelPool.open([llama[1]])
    task = Task(name="texts", build=lambda pool: nn.Identity(), held_out=Split.of(documents(), torch.ones(4)))

    def digest(module: nn.Module, passes: int = 0) -> str:
        live = LiveModel(module, pool, Whole().split(pool.tensors), "cpu")
        for number in range(passes):
            module(documents()[number].collated())
        return Network(live, task).digest(task.held_out)

    expected = digest(read(llama[1]))
    assert digest(read(llama[1]), passes=3) == expected
    for file in llama[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}), encoding="utf-8")
    assert digest(read(tmp_path)) != expected


# --- files ------------------------------------------------------------------------------------------------------------


def score(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(documents().collated())
    return found


def test_a_tied_head_that_the_files_hold(llama: tuple[Any, Path], tmp_path: Path) -> None:
    """It stays one tensor with the embeddings, and in one component, unless its values are its own."""
    model, folder = llama
    expected = score(read(folder))
    state = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in state
    both = state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(both, tmp_path / "model.safetensors", {"format": "pt"})
    module: Any = read(tmp_path)
    assert torch.equal(score(module), expected)
    assert module.lm_head.weight is module.model.embed_tokens.weight
    both["lm_head.weight"] += 0.1 * torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(0))
    save_file(both, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    own = -score(read(tmp_path))[:, 0] / torch.from_numpy(documents().scored)
    torch.testing.assert_close(own, torch.tensor(losses(loaded, documents())), rtol=1e-5, atol=1e-5)
    del state["model.embed_tokens.weight"]
    save_file(state | {"lm_head.weight": both["lm_head.weight"]}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    own = -score(read(tmp_path))[:, 0] / torch.from_numpy(documents().scored)
    torch.testing.assert_close(own, torch.tensor(losses(loaded, documents())), rtol=1e-5, atol=1e-5)
    del model


def test_names_and_buffers_of_older_files(tmp_path: Path) -> None:
    """GPT-2's first files begin below the head and hold masks; Llama's held rotations layer by layer."""
    saved("GPT-2", tmp_path / "gpt2")
    state = load_file(tmp_path / "gpt2" / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    old |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(2)}
    save_file(old, tmp_path / "gpt2" / "old.safetensors")
    source = merging.model_source(f"transformers:{tmp_path / 'gpt2'}")
    pool = ModelPool.open([tmp_path / "gpt2" / "old.safetensors"])
    module = source.build(pool).eval()
    assert set(module.state_dict()) == set(old)
    module.load_state_dict(old)
    assert torch.equal(score(module), score(read(tmp_path / "gpt2")))
    saved("Llama", tmp_path / "llama")
    expected = score(read(tmp_path / "llama"))
    state = load_file(tmp_path / "llama" / "model.safetensors")
    state |= {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    save_file(state, tmp_path / "llama" / "model.safetensors", {"format": "pt"})
    assert torch.equal(score(read(tmp_path / "llama")), expected)


# --- the source -------------------------------------------------------------------------------------------------------


def test_the_source_reads_and_writes_texts(tmp_path: Path) -> None:
    write(tmp_path, "LlamaForCausalLM")
    source = merging.model_source(f"transformers:{tmp_path}")
    assert isinstance(source, TransformersCausal)
    assert source.reads_language
    assert source.context == 16, "the tokenizer's limit, below the model's 32"
    assert source.padding == 0
    assert source.encode("w1 w2 unheard") == [4, 5, 1]
    assert source.decode([4, ~5]) == "w1 w2"
    longer = merging.model_source(f"transformers:{tmp_path}(context=24)")
    assert isinstance(longer, TransformersCausal)
    assert longer.context == 24
    assert merging.model_source(longer.spec).spec == longer.spec
    with pytest.raises(TaskError, match="context is 33, and the model reads 32 tokens"):
        merging.model_source(f"transformers:{tmp_path}(context=33)")
    with pytest.raises(TaskError, match="context is a number of tokens"):
        merging.model_source(f"transformers:{tmp_path}(context='all')")
    with pytest.raises(TaskError, match="'context'"):
        merging.model_source(f"transformers:{tmp_path}(contxt=4)")
    classifier = f"transformers:{tmp_path}(architectures=['LlamaForSequenceClassification'], context=8)"
    with pytest.raises(TaskError, match="'context'"):
        merging.model_source(classifier)
    assert isinstance(merging.model_source(classifier.replace(", context=8", "")), TransformersText)


def test_models_of_several_vocabularies(tmp_path: Path) -> None:
    """Rows are those of the merge's vocabulary; a source whose tokenizer gives tokens other ids is refused."""
    write(tmp_path / "a", "LlamaForCausalLM", seed=1)
    write(tmp_path / "b", "LlamaForCausalLM", WORDS[:3] + WORDS[:2:-1], ["<x>"], seed=2)
    pool = ModelPool.open([tmp_path / "a", tmp_path / "b"], tokenizer_source="union", pad_to_multiple_of=8)
    module = merging.model_source(f"transformers:{tmp_path / 'a'}").build(pool).eval()
    check_fits(module, pool)
    assert module.state_dict()["model.embed_tokens.weight"].shape == (16, 16)
    with pytest.raises(PoolError, match="name the model whose ids that has: transformers:"):
        merging.model_source(f"transformers:{tmp_path / 'b'}").build(pool)


def test_mistakes(tmp_path: Path) -> None:
    def said(**config: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(TaskError) as caught:
            merging.model_source(f"transformers:{tmp_path}").module()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(tmp_path))
        return str(caught.value)

    assert "reads with an encoder" in said(model_type="t5", architectures=["T5ForConditionalGeneration"])
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 8}
    assert "sees the tokens that follow" in said(model_type="bert", architectures=["BertLMHeadModel"], **small)
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **small}
    assert "quantised (gptq)" in said(**llama, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "cannot be built" in said(**llama | {"hidden_size": -8})
    (tmp_path / "config.json").write_text(json.dumps(llama), encoding="utf-8")
    source = merging.model_source(f"transformers:{tmp_path}")
    assert isinstance(source, TransformersCausal)
    with pytest.raises(TaskError, match="no tokenizer there"):
        source.encode("a")


def test_experts_one_by_one_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """Transformers joins them when it loads files of the Hub; written as they are in memory, they are read."""
    model_of("Mixtral, experts").save_pretrained(tmp_path / "hub")
    assert any("experts.3." in name for name in load_file(tmp_path / "hub" / "model.safetensors"))
    with pytest.raises(TaskError, match=r"joins or cuts tensors .* save_original_format=False"):
        read(tmp_path / "hub")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hub").eval()
    loaded.save_pretrained(tmp_path / "joined", save_original_format=False)
    own = -score(read(tmp_path / "joined"))[:, 0] / torch.from_numpy(documents().scored)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "joined").eval()
    torch.testing.assert_close(own, torch.tensor(losses(again, documents())), rtol=1e-5, atol=1e-5)
