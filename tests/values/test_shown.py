"""What values show of themselves: one short line, a table for a notebook, and no name that anything obeys."""

from __future__ import annotations

import pickle
import pydoc
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import merging
from merging.benchmarking.results import Benchmark, BenchmarkRow, Single
from merging.benchmarking.runs import Coefficients
from merging.errors import showable
from merging.harness.comparing import Compared, Scores
from merging.harness.comparing import Row as LmEvalRow
from merging.harness.results import Results
from merging.looking.check import Checked, CheckedModel
from merging.looking.geometry import Geometry
from merging.looking.inspection import Barrier, Inspection
from merging.looking.interpolation import Interpolation
from merging.looking.ranking import Ranked, Ranking
from merging.running.run import Result
from merging.running.saved import SavedRun
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool
from merging.values import shown
from merging.values.recipe import Aligned, Place, Vocabulary
from merging.values.report import Row
from merging.values.shown import Grid, Sheet, Shown, environment
from merging.values.states import RunState
from merging.values.verdict import Family, Role, Verdict

SHORT = 300
HOSTILE = [
    "<script>alert(1)</script>",
    "a & b < c > d",
    "\"quoted\" 'twice'",
    "{{ 7919 * 7907 }}{% raw %}",
    "\x1b[2J\u202eevil",
    "line\nbreak",
    "模型-é",
    "x" * 5000,
]
"""Names as a stranger may give them."""


@dataclass(frozen=True)
class Named:
    """A value of each kind whose names are all the same one."""

    name: str
    pool: ModelPool

    def values(self) -> dict[str, Any]:
        name, zeros = self.name, np.zeros(1)
        ingredient = merging.Ingredient(name, "0" * 64, name)
        component = merging.Component(name, (name, *(f"{name}.{k}" for k in range(200))))
        partition = merging.Partition((component,), (name,))
        recipe = merging.Recipe.mean([ingredient, replace(ingredient, name=name + "2")], partition)
        split = merging.Split.of(torch.zeros(6, 3), torch.arange(6) % 2, groups=[name] * 6)
        verdict = self.verdict()
        scores = {"held-out": 0.5, name: 0.4}
        ranked = Ranked(name=name, outcomes={}, scores=scores, verdicts=(replace(verdict, set=name),))
        row = Row(
            strategy="greedy",
            label=name,
            held_out=0.5,
            tests=dict.fromkeys([name, "b"], 0.5),
            shifted=0.5,
            ingredients=(name,) * 40,
            evaluations=1,
            cached=0,
            forward_equivalents=1.0,
            seconds=1.0,
        )
        report = self.report(row, verdict)
        weights = merging.Weights(
            tensors={name: torch.zeros(1)}, ingredients=(ingredient,), strategy=name, options={}, hash="0"
        )
        coefficients = Coefficients((name, "b"), (name, "d"), np.array([[0.0, 1.0], [1.0, 0.0]]))
        line = Interpolation(
            first=name,
            second=name,
            objective="accuracy",
            shares=(0.0, 1.0),
            scores={"held-out": (0.1, 0.2), name: (0.3, 0.1)},
            samples={"held-out": 5, name: 9},
        )
        seen = Vocabulary("union", None, (Place(name, name),))
        return {
            "Aligned": Aligned(name, "0" * 64, name, seen_in=seen),
            "Benchmark": self.benchmark(verdict, coefficients),
            "BenchmarkRow": self.benchmark(verdict, coefficients).rows[0],
            "Checked": Checked(
                models=(CheckedModel(name=name, path=name, error=name),),
                base=None,
                sets=(),
                shared=(),
                outputs=None,
                cost=None,
                errors=(name,),
                warnings=(name,),
            ),
            "Coefficients": coefficients,
            "Compared": Compared(
                rows=(LmEvalRow(task=name, column=("acc", "none")),),
                models=(self.lm_eval_scores(verdict),) * 2,
                reference=name,
                percent=frozenset((f"{name} acc",)),
            ),
            "Component": component,
            "Ensemble": merging.Ensemble((recipe, recipe), (1.0, 2.0)),
            "Geometry": Geometry(np.ones((2, 2)), 2.0, np.ones(2), np.ones((2, 2)), zeros),
            "Ingredient": ingredient,
            "Inspection": self.inspection(partition, component),
            "Interpolation": line,
            "Outcome": merging.Outcome(score=0.5, samples=2000, correct=np.zeros(250, dtype=np.uint8), nan=3),
            "Partition": partition,
            "Ranked": ranked,
            "Ranking": Ranking(
                task=name, objective="accuracy", measure="accuracy", by="held-out", shifts=(), models=(ranked, ranked)
            ),
            "Recipe": recipe,
            "Report": report,
            "Result": Result(merge=recipe, report=report, pool=self.pool, folder=Path(name)),
            "Row": row,
            "SavedRun": SavedRun(merge=recipe, report=report, folder=Path(name)),
            "Scores": self.lm_eval_scores(verdict),
            "Single": Single(
                name=name, held_out=0.5, tests={name: 0.5}, shifted=0.5, soups=(name,), trained={name: name}
            ),
            "Solution": merging.Solution(np.zeros(500), 0.5, 10, name),
            "Split": split,
            "Task": merging.Task(
                name=name,
                build=lambda pool: torch.nn.Linear(1, 1),
                held_out=split,
                tests={name: split},
                shifts=(name,),
                classes=(name,) * 60,
            ),
            "Verdict": verdict,
            "Weights": weights,
            "ModelPool": self.pool,
            "Checkpoint": self.pool.checkpoints[0],
        }

    def verdict(self) -> Verdict:
        return Verdict(
            set=self.name,
            role=Role.TEST,
            reference="best",
            against=self.name,
            measure="accuracy",
            family=Family.PRIMARY,
            difference=0.02,
            interval=(0.01, 0.03),
            p=0.001,
            corrected=0.002,
            level=0.95,
            tests=2,
            samples=800,
        )

    def report(self, row: Row, verdict: Verdict) -> merging.Report:
        name = self.name
        return merging.Report(
            strategy="greedy",
            options={},
            partitioner="whole",
            optimizer="random",
            objective="accuracy",
            task=name,
            state=RunState.INTERRUPTED,
            seed=0,
            components=1,
            active_components=1,
            component_names=(name,) * 300,
            pool=(name,) * 40,
            ingredients=(name,) * 40,
            evaluations=1,
            cached=0,
            forward_equivalents=1.0,
            wall_seconds=1.0,
            peak_memory_bytes=1,
            held_out_samples=800,
            shifts=(name,),
            numerics={},
            versions={},
            content_hash="0",
            top_single=0.4,
            rows=(replace(row, strategy="best"), row),
            verdicts=(verdict,),
            notes=(name,),
            samples={name: 800},
        )

    def benchmark(self, verdict: Verdict, coefficients: Coefficients) -> Benchmark:
        name = self.name
        row = BenchmarkRow(
            strategy="greedy",
            label=name,
            held_out=0.5,
            tests={name: 0.5},
            shifted=0.5,
            intervals={name: (0.4, 0.6), "held-out": (0.4, 0.6)},
            ingredients=(name,),
            verdicts=(verdict, replace(verdict, set="average of shifts", role=Role.AVERAGE)),
            coefficients=coefficients,
        )
        return Benchmark(
            task=name,
            objective="accuracy",
            rows=(row, replace(row, strategy="best", label=f"{name} again", verdicts=())),
            singles=(Single(name=name, held_out=0.5, tests={name: 0.5}, shifted=0.5),),
            samples={"held-out": 800, name: 800},
            shifts=(name,),
            pool=(name,),
            seeds=(0,),
            notes=(name,),
            state=RunState.INTERRUPTED,
        )

    def lm_eval_scores(self, verdict: Verdict) -> Scores:
        """Scores of a model on one task of lm-eval."""
        read = Results(path=Path(self.name), model=self.name, version="0.4.13", tasks={})
        label = f"{self.name} acc"
        return Scores(name=self.name, results=read, scores={label: 0.5}, verdicts=(replace(verdict, set=label),))

    def inspection(self, partition: merging.Partition, component: merging.Component) -> Inspection:
        name = self.name
        return Inspection(
            partition=partition,
            tensors=dict.fromkeys(component.tensors, ((2, 3), "float32")),
            marked=True,
            pool=(name, "b"),
            duplicates=((name, "b"),),
            geometry=Geometry(np.ones((2, 2)), 2.0, np.ones(2), np.ones((2, 2)), np.zeros(1)),
            scores=(0.5, 0.4),
            barriers=(Barrier(name, "b", (0.5, 0.4), 0.3),),
            notes=(name,),
        )


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelPool]:
    """Pools whose checkpoints are called like that, as far as a file can be."""
    made = {}
    folder = tmp_path_factory.mktemp("pools")
    for number, name in enumerate(HOSTILE):
        called = (showable(name).replace("/", "-")[:60] or "x") + ".safetensors"
        tiny_pool(folder / str(number), models=2)
        paths = sorted((folder / str(number)).glob("model_*.safetensors"))
        paths[0].rename(paths[0].with_name(called))
        made[name] = ModelPool.open([str(folder / str(number))])
    return made


ELEMENTS = {"div", "style", "p", "b", "u", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "span", "br"}
ELEMENTS |= {"section", "strong", "dl", "dt", "dd", "figure", "details", "summary"}
ELEMENTS |= {"svg", "g", "path", "line", "rect", "text", "tspan"}
DRAWN = {"Report", "Result", "SavedRun", "Benchmark"}
"""Kinds that are shown with a picture."""
LIKE_A_REPORT = {"Result", "SavedRun"}
"""Kinds that are shown as their report is."""
NAMELESS = {"Checked", "Compared", "Geometry", "ModelPool", "Outcome", "Report", "Result", "SavedRun"}
"""Kinds whose line at the prompt may be without that name."""
AS = {"Aligned": "Ingredient", "SavedRun": "Result"}
"""Kinds that are shown as others."""
KINDS = [
    *(
        "Aligned",
        "Benchmark",
        "BenchmarkRow",
        "Checked",
        "Checkpoint",
        "Coefficients",
        "Component",
        "Ensemble",
        "Geometry",
    ),
    *("Ingredient", "Inspection", "Interpolation", "ModelPool", "Outcome", "Partition", "Ranked", "Ranking"),
    *("Recipe", "Report", "Result", "Row", "SavedRun", "Single", "Solution", "Split", "Task", "Verdict", "Weights"),
    *("Compared", "Scores"),
]


@cache
def every(name: str, pool: ModelPool) -> dict[str, Any]:
    return Named(name, pool).values()


def below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


class Read(HTMLParser):
    """Elements and text of a fragment; those that are open at its end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""


def test_every_kind_of_value_is_made_here() -> None:
    own = {each.__name__ for each in below(Shown) if each.__module__.startswith("merging.")}
    assert {name for name in own if not name.endswith("Views")} <= set(KINDS)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_shows_a_short_line(kind: str, name: str, pools: dict[str, ModelPool]) -> None:
    value = every(name, pools[name])[kind]
    said = repr(value)
    assert len(said) < SHORT
    assert said.isprintable()
    assert said.startswith(f"<{AS.get(kind, kind)}: ")
    assert "\\x1b[2J" in said or "\x1b" not in name or kind in NAMELESS


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind}-{name[:12]!a}")
        for kind in KINDS
        for name in HOSTILE[: 1 if kind in LIKE_A_REPORT else None]
    ],
)
def test_a_notebook_shows_names_and_obeys_none(kind: str, name: str, pools: dict[str, ModelPool]) -> None:
    text = every(name, pools[name])[kind]._repr_html_()
    read = Read()
    read.feed(text)
    read.close()
    assert not read.open
    assert read.elements <= ELEMENTS
    assert not [each for each in read.attributes if each.startswith("on") or each in ("href", "src", "style")]
    assert ("svg" in read.elements) == (kind in DRAWN)
    assert "62615533" not in text, "a name is no template"
    for character in text:
        assert character.isprintable() or character == "\n"
    if kind in ("Task", "Partition", "Report", "Result", "Benchmark", "Inspection", "Recipe"):
        assert showable(name, keep="\n")[:20] in read.text


def test_the_fragment_has_no_ground_of_its_own_and_colours_for_both() -> None:
    """Text and ground are the page's; what is coloured is told from white and from black (WCAG 1.4.11)."""
    html = Sheet(name="x", facts=()).html()
    assert "background: none" in html
    assert f":is({shown.DARK}) .merging-shown" in html
    colours = re.findall(r"\.merging-shown \{ --accent: #(\w{6}); --worse: #(\w{6});", html)[0]
    for colour in colours:
        linear = [int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
        light = sum(c * share for c, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
        assert 1.05 / (light + 0.05) >= 4
        assert (light + 0.05) / 0.0559 >= 3.5  # #111111, the ground of Jupyter's dark theme


def test_long_tables_say_how_much_is_left_out() -> None:
    text = Sheet(name="x", facts=(), grids=(Grid(("a",), [[str(k)] for k in range(100)]),)).html()
    assert text.count("<tr>") == 1 + shown.ROWS
    assert "and 60 more" in text


def test_what_is_half_made_can_be_seen_in_a_debugger() -> None:
    assert repr(ModelPool.__new__(ModelPool)) == "<ModelPool>"
    assert repr(merging.Recipe.__new__(merging.Recipe)) == "<Recipe>"


def test_help_is_whole() -> None:
    for kind in (merging.Report, merging.Result, merging.ModelPool, merging.Task, merging.Benchmark, merging.merge):
        text = pydoc.plain(pydoc.render_doc(kind))
        assert "progress: Told what happens" in text if kind is merging.merge else "_sheet" not in text


def test_one_environment_escapes_for_all() -> None:
    assert environment().from_string("{{ x }}").render(x="<b>\x1b") == "&lt;b&gt;\\x1b"
    assert environment() is environment()


def test_a_short_line_changes_nothing_else(pools: dict[str, ModelPool]) -> None:
    """Equality, hash, pickle and replace are those of the values as they were."""
    name = "plain"
    values = every(name, pools[HOSTILE[0]])
    for kind in ("Ingredient", "Component", "Partition", "Verdict", "Row", "Interpolation", "Benchmark", "Report"):
        one = values[kind]
        again = pickle.loads(pickle.dumps(one))  # noqa: S301 (our own)
        assert type(again) is type(one)
        assert repr(again) == repr(one)
        if kind not in ("Benchmark",):  # holds arrays
            assert again == one
        assert replace(one) == one or kind == "Benchmark"
    assert hash(values["Ingredient"]) == hash(replace(values["Ingredient"]))
    assert hash(values["Partition"]) == hash(replace(values["Partition"]))
    assert values["Ingredient"] != replace(values["Ingredient"], name="other")
