"""The contract, and what the tools' own readers find of a run; nothing leaves the machine meanwhile."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from merging_sinks.ml_flow import MlFlow
from merging_sinks.weights_and_biases import WeightsAndBiases

import merging
from merging.testing import SinkContract, tiny_pool, tiny_task
from merging.testing.sinks import nothing_leaves

pytestmark = pytest.mark.filterwarnings("ignore")
"""What these packages warn of is their own affair."""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "MERGING_CACHE", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def wandb() -> Iterator[Any]:
    """The package, whose service begins anew: it then has the environment of the test."""
    module = pytest.importorskip("wandb", reason="wandb comes with dev-full")
    module.teardown()
    yield module
    module.teardown()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all runs: a new one takes a second."""
    pytest.importorskip("mlflow", reason="mlflow comes with dev-full")
    return str(tmp_path_factory.mktemp("tracking"))


class TestWeightsAndBiases(SinkContract):
    @pytest.fixture
    def plugin(self, wandb: Any) -> WeightsAndBiases:
        return WeightsAndBiases()


class TestMlFlow(SinkContract):
    @pytest.fixture
    def plugin(self, store: str) -> MlFlow:
        return MlFlow(folder=store)


def test_weights_and_biases(wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_leaves(monkeypatch) as tried:
        result = merging.merge(
            tiny_pool(tmp_path / "pool"),
            "greedy",
            task=tiny_task(),
            output=tmp_path / "run",
            sinks=WeightsAndBiases(model=True),
        )
        wandb.teardown()
        assert not tried()
    assert not wandb.env.error_reporting_enabled()
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    records = list(read(next(folder.glob("*.wandb"))))
    history = [fields(record.history.item) for record in records if record.HasField("history")]
    report = result.report
    scores = [point["score/greedy"] for point in history if "score/greedy" in point]
    best = [point["incumbent/greedy"] for point in history if "incumbent/greedy" in point]
    assert best == [max(report.top_single or 0, *scores[: place + 1]) for place in range(len(scores))]
    assert [point["accepted/greedy"] for point in history if "accepted/greedy" in point] == [
        float(facts["accepted"]) for facts in report.decisions
    ]
    assert history[-1]["evaluations"] == report.evaluations
    assert history[-1]["forward_equivalents"] == report.forward_equivalents
    summary: dict[str, Any] = {}
    for record in records:
        summary |= fields(record.summary.update)
    row = report.rows[-1]
    assert {name: summary[f"final/{name}"] for name in row.tests} == dict(row.tests)
    assert (summary["state"], summary["verdict"]) == ("finished", merging.answer(report).headline)
    kept = {item.path for record in records for item in record.files.files}
    assert {"README.md", "recipe.json", "report.json", "model.safetensors", "decisions.jsonl"} <= kept
    assert json.loads((folder / "files" / "report.json").read_bytes())["content_hash"] == report.content_hash


def fields(items: Any) -> dict[str, Any]:
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def read(path: Path) -> Iterator[Any]:
    """The records of wandb's own file: seven bytes, then LevelDB's log format, blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield Record.FromString(whole)
            whole = b""


def test_mlflow(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_leaves(monkeypatch) as tried:
        result = merging.merge(
            tiny_pool(tmp_path / "pool"),
            "greedy",
            task=tiny_task(),
            output=tmp_path / "read-back",
            sinks=MlFlow(folder=store, experiment="soups", model=True),
        )
        assert not tried()
    from mlflow import MlflowClient
    from mlflow.telemetry import utils

    monkeypatch.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)  # where it is off anyway
    assert utils.is_telemetry_disabled()
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("soups")
    (run,) = client.search_runs([experiment.experiment_id])
    report, row = result.report, result.report.rows[-1]
    assert (run.info.run_name, run.info.status) == ("read-back", "FINISHED")
    assert (run.data.params["strategy"], run.data.params["strategy.order"]) == ("greedy", "sorted")
    curve = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "score/greedy")]
    assert curve == sorted(set(curve))
    assert curve[-1][0] == report.evaluations
    best = [point.value for point in client.get_metric_history(run.info.run_id, "incumbent/greedy")]
    assert best == [max(report.top_single or 0, *(v for _, v in curve[: place + 1])) for place in range(len(curve))]
    decided = [point.value for point in client.get_metric_history(run.info.run_id, "accepted/greedy")]
    assert decided == [float(facts["accepted"]) for facts in report.decisions]
    assert {name: run.data.metrics[f"final/{name}"] for name in row.tests} == dict(row.tests)
    assert run.data.tags["verdict"] == merging.answer(report).headline
    assert run.data.tags["mlflow.note.content"].endswith("finished")
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"README.md", "recipe.json", "report.json", "decisions.jsonl", "model"}
    model = client.download_artifacts(run.info.run_id, "model/model.safetensors", str(tmp_path))
    assert Path(model).read_bytes() == (tmp_path / "read-back" / "model.safetensors").read_bytes()


def test_without_the_package_the_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("wandb", "mlflow") else found(name))
    for sink in (WeightsAndBiases(), MlFlow()):
        said = f"needs {sink.name}; install it with: pip install 'merging-sinks\\[{sink.name}\\]'"
        with pytest.raises(merging.errors.RequirementError, match=said):
            merging.merge(tiny_pool(tmp_path / sink.name), "uniform", sinks=sink)
