"""Strategies over small language models: what a run says of its result is transformers' own loss of what it wrote."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import merging
from merging.errors import RequirementError
from merging.plugins.sequences import HEADER
from merging.plugins.task import Split
from merging.tasks.meant import task_of
from merging.values import statistics

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
WORDS = [f"w{number}" for number in range(60)]


@dataclass(frozen=True)
class Pools:
    """A folder with models, their base, and tasks."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def models(self) -> list[Path]:
        return [self.folder / "models" / f"m{number}" for number in range(3)]

    def task(self, name: str = "texts") -> str:
        return str(self.folder / f"{name}.toml")


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Pools:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Pools(tmp_path_factory.mktemp("language"))
    words = {word: number for number, word in enumerate(["<s>", "</s>", *WORDS])}
    plain = Tokenizer(models.WordLevel(words, "</s>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=32, **special)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = transformers.LlamaForCausalLM(config)
        _trained(base, rows(0, 64), 12, 1e-2)
        for number, folder in enumerate(made.models):
            own = copy.deepcopy(base)
            _trained(own, rows(number, 32), 8, 5e-3)
            own.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    base.save_pretrained(made.base)
    tokenizer.save_pretrained(made.base)
    for name, start in (("held", 3), ("test", 4), ("code", 5)):
        found = [" ".join(WORDS[number - 2] for number in row) for row in rows(start, 24).tolist()]
        texts = [json.dumps({"text": text[: 20 + 2 * place]}) for place, text in enumerate(found)]
        (made.folder / f"{name}.jsonl").write_text("\n".join(texts), encoding="utf-8")
    choices = [
        {"question": WORDS[place], "choices": [WORDS[place + 1], WORDS[place + 9]], "answer": 0} for place in range(24)
    ]
    lines = "\n".join(map(json.dumps, choices))
    (made.folder / "qa.jsonl").write_text(lines, encoding="utf-8")
    model = '[task]\nmodel = "transformers:base"\n'
    for name, data in {
        "texts": 'held_out = "held.jsonl"\ntest = "test.jsonl"\n',
        "questions": 'held_out = "qa.jsonl"\n',
        "both": 'held_out = { docs = "held.jsonl", code = "code.jsonl", qa = "qa.jsonl" }\ntest = "test.jsonl"\n',
    }.items():
        Path(made.task(name)).write_text(model + data, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def adapters(pools: Pools) -> list[Path]:
    peft = pytest.importorskip("peft", reason="peft is in the extra dev-full")
    made = [pools.folder / "adapters" / f"a{number}" for number in range(2)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, folder in enumerate(made):
            settings = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
            own = peft.get_peft_model(transformers.LlamaForCausalLM.from_pretrained(pools.base), settings)
            _trained(own, rows(number, 32), 8, 2e-2)
            own.save_pretrained(folder)
    return made


def rows(seed: int, count: int) -> torch.Tensor:
    """Rows of 16 words that count upwards, more or less: what there is to be learned."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, 3, (count, 16), generator=generator)
    return (steps.cumsum(1) + torch.randint(0, 20, (count, 1), generator=generator)) % len(WORDS) + 2


def _trained(model: Any, data: torch.Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], rate * 100)
    for _ in range(steps):
        loss = model(input_ids=data, labels=data).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def loss_of(folder: Path, split: Split) -> float:
    """The mean over all scored tokens of what transformers says is the loss of a model's folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    whole, tokens = 0.0, 0
    for place in range(len(split)):
        batch = split.sequences[place].collated()[:, HEADER:].long()
        scored = batch < 0
        ids = torch.where(scored, ~batch, batch)
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids.masked_fill(~scored, -100)).loss)
        whole, tokens = whole + loss * int(scored.sum()), tokens + int(scored.sum())
    return whole / tokens


STRATEGIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": (merging.Greedy(), {}),
    "manifoldmix, part": (merging.ManifoldMix(budget=6), {"partitioner": "part"}),
    "manifoldmix by CMA-ES, block": (
        merging.ManifoldMix(budget=6),
        {"partitioner": "block", "optimizer": merging.Nevergrad(method="CMA")},
    ),
    "learned": (merging.Learned(steps=3), {"partitioner": "block"}),
    "affine, layer": (merging.Learned(profile="affine", steps=3), {}),
    "wise-ft": (merging.WiseFt(inner=merging.Uniform()), {}),
    "task-arithmetic, searched": (merging.TaskArithmetic(scale="search:0..1"), {"budget": 5}),
    "ties": (merging.Ties(), {}),
    "dare": (merging.Dare(), {}),
}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are not what these tests look at."""
    monkeypatch.setattr(statistics, "RESAMPLES", 99)


def merged(pools: Pools, strategy: Any, task: str = "texts", models: list[Path] | None = None, **more: Any) -> Any:
    more = {"baselines": False, "tests": False} | more
    return merging.merge(models or pools.models, strategy, base=pools.base, task=pools.task(task), **more)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_score_of_record_is_the_loss_of_what_is_written(name: str, pools: Pools, tmp_path: Path) -> None:
    strategy, more = STRATEGIES[name]
    result = merged(pools, strategy, output=tmp_path / "run", **more)
    assert result.report.measure == "token-nll"
    row = result.report.merged
    assert row is not None
    held_out = task_of(pools.task(), None).held_out
    assert -row.held_out == pytest.approx(loss_of(tmp_path / "run", held_out), abs=1e-5)


def test_learning_lowers_the_loss(pools: Pools) -> None:
    """The mean of the models, where it begins, loses to what has been learned, and the gradient is that of scores."""
    mean = merged(pools, "uniform").report.merged
    learned = merged(pools, merging.Learned(steps=12, rate=0.1)).report.merged
    assert learned.held_out > mean.held_out + 1e-4


def test_adapters_are_models_too(pools: Pools, adapters: list[Path], tmp_path: Path) -> None:
    result = merged(pools, merging.ManifoldMix(budget=4), models=adapters, output=tmp_path / "run")
    held_out = task_of(pools.task(), None).held_out
    assert -result.report.merged.held_out == pytest.approx(loss_of(tmp_path / "run", held_out), abs=1e-5)


def test_a_weighted_sum_decides_is_resumed_and_applied(pools: Pools, tmp_path: Path) -> None:
    told: dict[str, Any] = {"task": "both", "objective": "0.6*docs:nll + 0.2*code:nll + 0.2*qa:accuracy"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = merged(pools, merging.ManifoldMix(budget=6), output=whole, **told)
    merged(pools, merging.ManifoldMix(budget=6), output=parts, max_evaluations=5, **told)
    again = merged(pools, merging.ManifoldMix(budget=6), output=parts, resume=True, **told)
    assert again.report.content_hash == first.report.content_hash
    assert again.report.merged.held_out == first.report.merged.held_out
    merging.apply(whole / "recipe.json", output=tmp_path / "applied")
    assert merging.Checkpoint(tmp_path / "applied").hash == first.report.content_hash
    task = task_of(pools.task("both"), None)
    split = task.held_out
    assert split.groups is not None
    losses = {
        name: loss_of(whole, split.part((split.groups == split.group_names.index(name)).nonzero()[:, 0]))
        for name in ("docs", "code")
    }
    (note,) = (each for each in first.report.notes if each.startswith("held-out by its terms"))
    for name, loss in losses.items():
        assert f"{name}:nll perplexity" in note
        assert f"{torch.tensor(loss).exp():.2f}" in note
    assert first.report.objective == "0.6*docs:nll + 0.2*code:nll + 0.2*qa:accuracy"


@pytest.mark.parametrize(
    ("strategy", "task", "said"),
    [
        (
            merging.Fisher(),
            "texts",
            "takes gradients of the probabilities of choices, and the held-out texts have none",
        ),
        (merging.OutputEnsemble(), "texts", "are log-likelihoods, which are no probabilities of classes"),
        (merging.Learned(), "both", "minimises one loss, and the held-out data are documents and questions"),
    ],
)
def test_what_makes_no_sense_of_texts_is_refused(strategy: Any, task: str, said: str, pools: Pools) -> None:
    with pytest.raises(RequirementError, match=said):
        merged(pools, strategy, task)


def test_of_questions_accuracies_count_and_ensembles_work(pools: Pools) -> None:
    for strategy in (merging.OutputEnsemble(), merging.Learned(steps=2), merging.Fisher(samples=4)):
        report = merged(pools, strategy, "questions").report
        assert report.measure == "accuracy"
        assert 0 <= report.merged.held_out <= 1


def test_people_read_perplexities_and_files_keep_scores(pools: Pools, tmp_path: Path) -> None:
    report = merged(pools, "greedy", output=tmp_path / "run", baselines=True, tests=True).report
    kept = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    assert kept["validation"]["merged"] == report.merged.held_out < 0
    perplexity = f"{torch.tensor(-report.merged.held_out).exp():.2f}"
    card = (tmp_path / "run/README.md").read_text(encoding="utf-8")
    assert "perplexity" in card
    assert perplexity in card
    assert perplexity in report._repr_html_()
