"""What TensorBoard's own reader finds in the event files of a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import merging
from merging.plugins.sink import SinkEnd, SinkRun
from merging.storage.pool import ModelPool
from merging.testing import tiny_task
from tests.heard import Heard

pytest.importorskip("tensorboard", reason="TensorBoard's reader comes with dev-full")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in found.Scalars(tag)]


def text(found: EventAccumulator, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in found.Tensors(f"{tag}/text_summary")]


def test_a_run(pool: ModelPool, tmp_path: Path) -> None:
    result = merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "run", sinks="tensorboard")
    whole, report = read(tmp_path / "run" / "tensorboard"), result.report
    ranked = read(tmp_path / "run" / "tensorboard" / "best")
    scores = curve(ranked, "held_out/score")
    assert [step for step, _ in scores] == list(range(1, len(pool) + 1))
    assert max(value for _, value in scores) == pytest.approx(report.top_single)
    best = [max(value for _, value in scores[: place + 1]) for place in range(len(scores))]
    assert [value for _, value in curve(ranked, "held_out/incumbent")] == best
    greedy = read(tmp_path / "run" / "tensorboard" / "greedy")
    assert curve(greedy, "held_out/incumbent")[-1][1] == pytest.approx(report.rows[-1].held_out)
    assert curve(greedy, "held_out_by_passes/score")[-1][0] == math.ceil(report.forward_equivalents)
    decided = [float(facts["accepted"]) for facts in report.decisions]
    assert [value for _, value in curve(greedy, "decisions/accepted")] == decided
    assert f"candidate {report.decisions[0]['candidate']}" in text(greedy, "decisions")[0]
    final = {tag: curve(whole, tag)[0][1] for tag in whole.Tags()["scalars"]}
    assert final == {f"final/{name}": pytest.approx(score) for name, score in report.rows[-1].tests.items()} | {
        "final/held-out": pytest.approx(report.rows[-1].held_out)
    }
    (verdict,), (table,) = text(whole, "verdict"), text(whole, "coefficients")
    assert merging.answer(report).headline in verdict.replace("\\", "")
    assert verdict.endswith("finished")
    assert all(name.replace("_", "\\_") in table or name in table for name in report.ingredients)
    told = HParamsPluginData.FromString(whole.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    settings = told.session_start_info.hparams
    assert settings["strategy"].string_value == "greedy"
    assert settings["strategy.order"].string_value == "sorted"
    assert settings["models"].number_value == len(pool)


def test_a_run_that_goes_on_has_each_point_once(pool: ModelPool, tmp_path: Path) -> None:
    for limit in (5, 6, None):
        merging.merge(
            pool,
            "greedy",
            task=tiny_task(),
            output=tmp_path / "run",
            resume=limit != 5,
            max_evaluations=limit,
            sinks="tensorboard",
        )
    merging.merge(pool, "greedy", task=tiny_task(), output=tmp_path / "once", sinks="tensorboard")
    for name in ("best", "uniform", "greedy", "."):
        several, once = (read(tmp_path / run / "tensorboard" / name) for run in ("run", "once"))
        assert several.Tags() == once.Tags()
        for tag in once.Tags()["scalars"]:
            assert curve(several, tag) == curve(once, tag)
        for tag in once.Tags()["tensors"]:
            assert len(several.Tensors(tag)) == len(once.Tensors(tag))


def test_a_run_that_is_replaced_leaves_no_curve(pool: ModelPool, tmp_path: Path) -> None:
    own, given = tmp_path / "run" / "tensorboard", {"baselines": False, "overwrite": True, "sinks": "tensorboard"}
    for strategy in ("greedy", "uniform"):
        merging.merge(pool, strategy, task=tiny_task(), output=tmp_path / "run", **given)
        (own / "greedy" / "events.out.tfevents.1.of-a-training").write_bytes(b"kept")
    assert [path.name for path in (own / "greedy").iterdir()] == ["events.out.tfevents.1.of-a-training"]
    assert len(list((own / "uniform").iterdir())) == 1


def test_each_method_of_a_benchmark_is_a_run(pool: ModelPool, tmp_path: Path) -> None:
    sink = merging.TensorBoard(folder=str(tmp_path / "boards"))
    found = merging.benchmark(pool, ["best", "greedy"], task=tiny_task(), output=tmp_path / "bench", sinks=sink)
    for row in found.rows:
        run = read(tmp_path / "boards" / "bench" / f"{row.strategy}.whole.seed0")
        assert max(value for _, value in curve(run, "held_out/incumbent")) == pytest.approx(row.held_out)
        assert curve(run, "final/test")[0][1] == pytest.approx(row.tests["test"])
    assert not (tmp_path / "bench" / "tensorboard").exists()


def test_a_place_that_cannot_be_written_is_a_warning(pool: ModelPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    heard, sink = Heard(), merging.TensorBoard(folder=str(tmp_path / "file"))
    result = merging.merge(pool, "greedy", task=tiny_task(), sinks=sink, progress=heard)
    assert result.report.status == "finished"
    (said,) = [text for text in heard.said if "sink" in text]
    assert "sink 'tensorboard' failed: NotADirectoryError" in said


def test_a_run_without_a_score_leaves_nothing(tmp_path: Path) -> None:
    writer = merging.TensorBoard().begin(SinkRun(name="run", folder=tmp_path))
    writer.end(SinkEnd(state="failed", why="no memory"))
    assert not list(tmp_path.iterdir())
