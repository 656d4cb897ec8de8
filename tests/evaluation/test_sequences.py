"""Evaluations over rows of tokens: batches of whole samples, stages over tuples, parts, and the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import merging
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.keys import Trial
from merging.evaluation.ledger import Ledger
from merging.evaluation.network import Network
from merging.evaluation.parts import joined
from merging.evaluation.scorer import LiveScorer
from merging.forward.carried import nbytes
from merging.forward.feed import SequenceFeed
from merging.objectives.accuracy import Accuracy
from merging.partitioners.layer import Layer
from merging.plugins.sequences import ABSENT, HEADER, Sequences
from merging.plugins.task import HELD_OUT, Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.values.recipe import Recipe

WORDS, WIDTH = 23, 8


class TinyCausal(nn.Module):
    """Two blocks that see the mean of all earlier tokens, and a head at the positions before scored ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward_steps(self) -> list[Callable[..., Any]]:
        return [self._embedded, *(lambda x, k=k: self._block(k, x) for k in range(2)), self._picked, self._scored]

    def forward(self, batch: Tensor) -> Tensor:
        x: Any = batch
        for step in self.forward_steps():
            x = step(x)
        found: Tensor = x
        return found

    def _embedded(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        tokens = batch[:, HEADER:].long()
        return self.embed(torch.where(tokens < 0, ~tokens, tokens)), batch

    def _block(self, number: int, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, batch = x
        steps = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[:, None]
        return hidden + torch.tanh(self.blocks[number](hidden.cumsum(1) / steps)), batch

    def _picked(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, batch = x
        return hidden[:, :-1][batch[:, HEADER + 1 :] < 0], batch

    def _scored(self, x: tuple[Tensor, Tensor]) -> Tensor:
        hidden, batch = x
        later = batch[:, HEADER + 1 :]
        scored = later < 0
        said = self.head(hidden).log_softmax(1).gather(1, (~later[scored].long())[:, None])[:, 0]
        rows = torch.zeros(scored.shape, dtype=said.dtype).masked_scatter(scored, said).sum(1)
        outputs = torch.full((int(batch[-1, 0]) + 1, int(batch[0, 3])), ABSENT)
        places = batch[:, 0].long(), batch[:, 1].long()
        return outputs.index_put(places, torch.zeros(len(batch))).index_put(
            places, rows * batch[:, 2].view(torch.float32), accumulate=True
        )


def questions(samples: int, seed: int) -> Split:
    """Questions of two to four choices; a choice is right where its last token follows from the first."""
    draw = np.random.default_rng(seed)
    tokens, starts, slots, counts, labels = [], [0], [], [0], []
    lengths = np.sort(draw.integers(2, 12, samples))
    for length in lengths:
        prompt = draw.integers(1, WORDS, length)
        right, choices = int(draw.integers(2)), int(draw.integers(2, 5))
        for choice in range(choices):
            last = (prompt[0] * 3 + (0 if choice == right else 1 + choice)) % WORDS
            tokens += [*prompt.tolist(), ~int(last)]
            starts.append(len(tokens))
            slots.append(choice)
        counts.append(len(slots))
        labels.append(right)
    made = Sequences(
        tokens=np.array(tokens, dtype=np.int32),
        starts=np.array(starts),
        weights=np.ones(len(slots), dtype=np.float32),
        slots=np.array(slots, dtype=np.int16),
        samples=np.array(counts),
        outputs=4,
    )
    return Split.of(made, torch.tensor(labels))


def the_task() -> Task:
    return Task(
        name="questions",
        build=lambda pool: TinyCausal(),
        held_out=questions(90, 1),
        tests={"test": questions(60, 2)},
        train=questions(200, 3),
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    """A base, and three models that learned a little more."""
    folder, task = tmp_path_factory.mktemp("causal"), the_task()
    torch.manual_seed(0)
    start = TinyCausal()

    def trained(seed: int, steps: int) -> TinyCausal:
        module = TinyCausal()
        module.load_state_dict(start.state_dict())
        torch.manual_seed(seed)
        learn = torch.optim.Adam(module.parameters(), 0.03)
        assert task.train is not None
        for _ in range(steps):
            chosen = torch.randint(len(task.train), (64,))
            loss = torch.nn.functional.cross_entropy(
                module(task.train.sequences[chosen].collated()), task.train.labels[chosen]
            )
            learn.zero_grad()
            loss.backward()
            learn.step()
        return module

    start.load_state_dict(trained(0, 30).state_dict())
    for number in range(3):
        save_file(trained(number + 1, 20).state_dict(), folder / f"model_{number}.safetensors")
    return ModelPool.open([folder / "model_*.safetensors"])


def scorer(pool: ModelPool, *, memory: int = 1 << 20, batch: int = 200) -> LiveScorer:
    made = plan(pool, Best(), partitioner=Layer(), task=the_task(), device="cpu")
    assert made.live is not None
    assert made.numerics is not None
    assert made.task is not None
    assert made.numerics.tokens
    assert "tokens" in made.numerics.words
    ledger = Ledger(Journal(None), exact_savings=bool(memory))
    numerics = replace(made.numerics, batch=batch)
    found = Evaluator.over(made.live, made.task, Accuracy(), numerics, ledger, cache_memory=memory).scorer
    assert isinstance(found, LiveScorer)
    return found


def mix(one: LiveScorer, factors: Any) -> Trial:
    """A mix of the pool's first two models."""
    a, b = (Recipe.single(row, one.live.partition) for row in one.live.pool.ingredients[:2])
    return Trial(incumbent=a, candidate=b, mixing="lerp", factors=factors, ends=one._keys.ends(a, b, "lerp"))


def test_batches_of_any_size_give_the_same_answers(pool: ModelPool) -> None:
    found = []
    for batch in (1, 60, 400, 10**6):
        one = scorer(pool, batch=batch)
        recipe = Recipe.single(pool.ingredients[0], one.live.partition)
        found.append(one.logits(recipe, HELD_OUT)[0])
    assert all(torch.allclose(each, found[0], atol=1e-5) for each in found[1:])
    assert found[0].shape == (90, 4)


def test_a_pass_goes_on_from_what_is_kept_with_the_same_bits(pool: ModelPool) -> None:
    staged, whole = scorer(pool), scorer(pool, memory=0)
    components = [component.name for component in staged.live.partition.components]
    shares = []
    for moved in ("head", "head", "blocks.1", "blocks.1", "embed"):
        factors = np.ones(len(components))
        factors[components.index(moved)] = 0.5 if len(shares) % 2 else 0.25
        trial = mix(staged, factors)
        here, there = staged.measure(trial, HELD_OUT), whole.measure(trial, HELD_OUT)
        assert here.score == there.score
        shares.append(here.passes)
    assert shares[0] == shares[4] == 1
    assert shares[1] < 0.7, "the head alone, at the positions before scored tokens"
    assert shares[3] < 1
    assert staged.costs()[components.index("head")] < 0.7


def test_the_memory_of_what_is_kept_is_known_from_the_first_batch() -> None:
    """Also where the first samples score a token each, and the last ones all of theirs."""
    whole = questions(90, 1).sequences
    tokens = whole.tokens.copy()
    inner = np.setdiff1d(np.arange(whole.starts[whole.samples[60]], len(tokens)), whole.starts)
    tokens[inner] = np.where(tokens[inner] < 0, tokens[inner], ~tokens[inner])
    feed = SequenceFeed(Split.of(replace(whole, tokens=tokens), questions(90, 1).labels), "cpu", None)
    module, size = TinyCausal(), 200
    with torch.no_grad():
        made = [module._picked(module._embedded(batch)) for batch, _ in feed.batches(size)]
    hidden = [state[0] for state in made]
    assert feed.bytes_of_all(hidden[0], size) == sum(map(nbytes, hidden))
    assert feed.bytes_of_all(made[0], size) == pytest.approx(sum(map(nbytes, made)), rel=0.1)


def test_what_a_pass_would_cost_is_known_without_it(pool: ModelPool) -> None:
    made, skipped = scorer(pool), scorer(pool)
    for turn, moved in enumerate((4, 4, 2, 2, 3, 4)):
        factors = np.ones(len(made.live.partition))
        factors[moved % len(factors)] = 0.1 * turn
        trial = mix(made, factors)
        assert made.measure(trial, HELD_OUT).passes == pytest.approx(skipped.skipped(trial, HELD_OUT), abs=1e-12)


def test_scores_of_samples_of_several_rows_are_remembered(pool: ModelPool) -> None:
    """A sample is what a network is told by, not a row; of questions there are more rows than answers."""
    one, task = scorer(pool), the_task()
    network = Network(one.live, task)
    found = network.digest(task.held_out)
    assert found == network.digest(task.held_out)
    assert found != network.digest(task.tests["test"])


def test_parts_have_the_bits_of_the_whole(pool: ModelPool) -> None:
    one = scorer(pool)
    recipe = Recipe.single(pool.ingredients[1], one.live.partition)
    borders = the_task().held_out.cuts(200)
    assert len(borders) > 4
    parts = [one.part(recipe, HELD_OUT, *pair, record=True) for pair in itertools.pairwise([*borders[:-1:3], 90])]
    found = joined(parts, Accuracy(), the_task(), HELD_OUT, record=True)
    whole = one.measure(recipe, HELD_OUT, record=True)
    assert (found.score, found.hits.tolist()) == (whole.score, whole.hits.tolist())


def test_a_run_on_workers_has_the_bits_of_one_process(pool: ModelPool, tmp_path: Path) -> None:
    runs = [
        merging.merge(pool, "manifoldmix", task=the_task(), output=tmp_path / str(workers), workers=workers, budget=6)
        for workers in (None, 2)
    ]
    scores = [[row.held_out for row in run.report.rows] for run in runs]
    assert scores[0] == scores[1]
    assert max(scores[0]) > 0.5


def test_some_samples_may_decide(pool: ModelPool) -> None:
    one = scorer(pool)
    recipe = Recipe.single(pool.ingredients[0], one.live.partition)
    easiness = np.arange(90)[::-1].copy()
    found, _ = one.exceeds(recipe, Bar(0.05), easiness, checked=False)
    assert found.exceeds
    assert found.samples_seen < 90
