"""MLflow: a run of ours is a run there, in an SQLite file unless somebody names a server."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import merging
from merging.plugins.registry import sinks
from merging_sinks.told import curves, decisions, words

ENDED = {"finished": "FINISHED", "limit": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""How a run has ended → MLflow's word for it."""
MOST, OFTEN = 500, 2.0
"""Points, or seconds, after which points are written."""


@sinks.register("mlflow")
@dataclass(frozen=True)
class MlFlow(merging.Sink):
    """Writes a run's curves, decisions, scores, verdict and files as a run of MLflow.

    By default they are in ``mlflow.db`` and ``artifacts`` in the run's folder, and nothing leaves the machine.
    """

    summary: ClassVar[str] = "a run of MLflow, in an SQLite file unless asked"
    packages: ClassVar[tuple[str, ...]] = ("mlflow",)
    brought_by: ClassVar[str] = "merging-sinks[mlflow]"
    patience: ClassVar[float] = 300.0  # a server may be slow to take files

    experiment: str = merging.option("merging", "experiment that the run belongs to")
    folder: str | None = merging.option(None, "folder of the store, for all runs; none: mlflow, in the run's")
    uri: str | None = merging.option(None, "tracking server or store; none: the SQLite file in that folder")
    model: bool = merging.option(False, "keep the model's files too, not only what describes it")

    def check(self, run: merging.SinkRun) -> None:
        """Refuses a run that has no folder where neither one nor a server is given."""
        if self.uri is None:
            run.place("mlflow", self.folder, shared=True)

    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        """Begins a run there, in an experiment that is made where it is not there."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read where mlflow is imported
        from mlflow import MlflowClient
        from mlflow.entities import Param

        for name in ("mlflow.store.db.utils", "alembic"):  # a new store is no news
            logging.getLogger(name).setLevel(logging.WARNING)
        uri, artifacts = self.uri, None
        if uri is None:
            folder = run.place("mlflow", self.folder, shared=True)
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else client.create_experiment(self.experiment, artifacts)
        own = client.create_run(experiment, run_name=run.part or run.name, tags={"resumed": str(run.resumed).lower()})
        client.log_batch(own.info.run_id, params=[Param(name, str(value)) for name, value in run.settings.items()])
        return _Run(run, client, own.info.run_id, model=self.model)


class _Run(merging.SinkWriter):
    """One run of MLflow."""

    def __init__(self, run: merging.SinkRun, client: Any, own: str, *, model: bool) -> None:
        self._run, self._client, self._id, self._model = run, client, own, model
        self._decided: list[merging.SinkEvent] = []
        self._points: list[Any] = []
        self._step, self._written = 0, time.monotonic()

    def event(self, event: merging.SinkEvent) -> None:
        """Adds points over evaluations, and over forward-equivalents, rounded up, under ``by_passes``."""
        from mlflow.entities import Metric

        self._step = event.evaluations
        self._decided += [event] if event.name == "decision" else []
        when, passes = int(event.time * 1000), math.ceil(event.forward_equivalents)
        for name, value in curves(event, self._run).items():
            self._points.append(Metric(name, value, when, event.evaluations))
            if not name.startswith("accepted"):
                self._points.append(Metric(f"by_passes/{name}", value, when, passes))
        if len(self._points) >= MOST or time.monotonic() - self._written > OFTEN:
            self._write()

    def _write(self) -> None:
        """Writes the points that are due: in one go, because a store writes to the disk each time."""
        self._client.log_batch(self._id, metrics=self._points)
        self._points, self._written = [], time.monotonic()

    def end(self, end: merging.SinkEnd) -> None:
        """Scores as metrics, the verdict as a tag and the run's note, and the files that describe the result."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        self._points += [Metric(f"final/{name}", score, now, self._step) for name, score in end.scores.items()]
        self._write()
        told = {"state": end.state, "verdict": end.verdict, "mlflow.note.content": words(end)}
        self._client.log_batch(self._id, tags=[RunTag(name, text) for name, text in told.items()])
        self._client.log_text(self._id, decisions(self._decided), "decisions.jsonl")
        for file in end.files:
            self._client.log_artifact(self._id, str(file))
        for file in end.model if self._model else ():
            self._client.log_artifact(self._id, str(file), "model")
        self._client.set_terminated(self._id, ENDED[end.state])
