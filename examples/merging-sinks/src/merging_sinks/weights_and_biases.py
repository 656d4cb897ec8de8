"""Weights & Biases: a run of ours is a run there, offline unless somebody asks for more."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import merging
from merging.plugins.registry import sinks
from merging_sinks.told import curves, decisions, words


@sinks.register("wandb")
@dataclass(frozen=True)
class WeightsAndBiases(merging.Sink):
    """Writes a run's curves, decisions, scores and verdict as a run of Weights & Biases.

    Offline by default, without an account: ``wandb sync`` uploads what lies in the folder.
    """

    summary: ClassVar[str] = "a run of Weights & Biases, offline unless asked"
    packages: ClassVar[tuple[str, ...]] = ("wandb",)
    brought_by: ClassVar[str] = "merging-sinks[wandb]"
    patience: ClassVar[float] = 300.0  # online, files are uploaded at the end

    project: str = merging.option("merging", "project that the run belongs to")
    entity: str | None = merging.option(None, "user or team; none: the account's own")
    mode: str = merging.option("offline", "whether anything leaves this machine", choices=("offline", "online"))
    folder: str | None = merging.option(None, "folder in which wandb makes its own; none: the run's")
    model: bool = merging.option(False, "keep the model's files too, not only what describes it")

    def check(self, run: merging.SinkRun) -> None:
        """Refuses a run that has no folder where none is given either."""
        run.place("wandb", self.folder, shared=True)

    def begin(self, run: merging.SinkRun) -> merging.SinkWriter:
        """Begins a run there."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read where wandb is imported
        import wandb

        place = run.place("wandb", self.folder, shared=True)
        folder = place.parent if self.folder is None else place  # wandb makes "wandb" in it
        folder.mkdir(parents=True, exist_ok=True)
        there = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,  # type: ignore[arg-type]  # one of the choices
            dir=str(folder),
            name=run.part or run.name,
            group=run.name,
            config={**run.settings, "resumed": run.resumed},
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        there.define_metric("evaluations")
        there.define_metric("*", step_metric="evaluations")
        return _Run(run, there, model=self.model)


class _Run(merging.SinkWriter):
    """One run of Weights & Biases."""

    def __init__(self, run: merging.SinkRun, there: Any, *, model: bool) -> None:
        self._run, self._there, self._model = run, there, model
        self._decided: list[merging.SinkEvent] = []

    def event(self, event: merging.SinkEvent) -> None:
        """Adds points over evaluations; ``forward_equivalents`` goes along, to be chosen as the axis."""
        self._decided += [event] if event.name == "decision" else []
        if points := curves(event, self._run):
            at = {"evaluations": event.evaluations, "forward_equivalents": event.forward_equivalents}
            self._there.log(points | at)

    def end(self, end: merging.SinkEnd) -> None:
        """Scores and verdict in the run's summary, and the files that describe the result."""
        summary: dict[str, Any] = {f"final/{name}": score for name, score in end.scores.items()}
        self._there.summary.update(summary | {"state": end.state, "verdict": end.verdict})
        self._there.notes = words(end)
        own = Path(self._there.dir)
        (own / "decisions.jsonl").write_text(decisions(self._decided), encoding="utf-8")
        for file in (*end.files, *(end.model if self._model else ())):
            shutil.copyfile(file, own / file.name)  # a link would lead nowhere once the run's folder has moved
        for name in ("decisions.jsonl", *(file.name for file in end.files), *(file.name for file in end.model)):
            if (own / name).is_file():
                self._there.save(str(own / name), base_path=str(own), policy="now")
        self._there.finish(exit_code=1 if end.state == "failed" else 0)
