"""A command that takes a configuration of mergekit where others take models: ``merge run config.yml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import click

from merging.cli.asking.options import CONFIGURATIONS, Asking
from merging.cli.asking.tables import File, Found, find
from merging.errors import RequirementError, showable


class Configured(Asking):
    """A command that reads merge.toml, or a configuration of mergekit in its place: models, strategy and options.

    Beside a configuration no merge.toml is read but one that ``--task`` names, and of that its [task].
    """

    def prepare(self, ctx: click.Context, typed: Mapping[str, Any]) -> None:
        """Finds the configuration by what was typed, and puts what it says behind the command line.

        Raises:
            MergingError: it is wrong, or models, a base or a run that goes on were typed beside it.
        """
        given = typed.get("positional")
        alone = given if isinstance(given, tuple) else ()
        configurations = [name for name in alone if is_configuration(name)]
        helps = any(option.is_eager and option.name in typed for option in self.get_params(ctx))
        if not configurations or helps or ctx.resilient_parsing:
            super().prepare(ctx, typed)
            return
        file = configurations[0]
        for flag, beside in {
            "another one": configurations[1:],
            "models": [name for name in alone if name not in configurations],
            "--models": typed.get("models"),
            "--base": typed.get("base"),
            "--key": typed.get("key"),
            "--resume": typed.get("resume"),
        }.items():
            if beside:
                raise RequirementError(f"{file} says what is merged: leave {flag} out, or the configuration")
        ctx.obj = _found(Path(file), typed.get("task"))
        said = ctx.obj.file.run.model_dump()
        for kind, own in (said.get("options") or {}).items():
            if own and typed.get(kind) not in (None, said.get(kind)):
                raise RequirementError(
                    f"{file} has options of {kind} '{said.get(kind)}', which '{typed[kind]}' may not have: leave "
                    f"--{kind} out, or go on from what `merge convert` writes"
                )
        self.put_behind(ctx)

    def models(self, alone: Sequence[str]) -> Sequence[str]:
        """The models among what stands alone: none of them, where a configuration does."""
        return () if any(is_configuration(name) for name in alone) else alone


def is_configuration(name: str) -> bool:
    """Whether what stands alone on the command line is a configuration by its name."""
    return PurePath(name).suffix.lower() in CONFIGURATIONS and not Path(name).expanduser().is_dir()


def _found(path: Path, task: str | None) -> Found:
    """What a configuration says, in the form of a merge.toml, with the [task] of the one that ``--task`` names."""
    from merging.mergekit.translation import translation

    meant = translation(path)
    for note in meant.notes:
        click.echo(showable(f"{path}: {note}"), err=True)
    tables = File.model_validate(meant.tables)
    if task is None or not task.endswith(".toml"):
        return Found(Path(path.name), tables)
    beside = find(task)
    assert beside is not None  # noqa: S101 (for the type checker: a named file is read, or there is an error)
    return Found(beside.path, File(task=beside.file.task, pool=tables.pool, run=tables.run))
