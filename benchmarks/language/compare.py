"""Every method over the pools, by ``merge benchmark``: what docs/results/protocol-language.md fixes, as values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from merging.storage import atomic

DOMAINS = ("manuals", "essays")
SHIFT = "jargon"
METHODS = (
    "best,uniform,greedy,manifoldmix,learned,affine,wise-ft,wise-ft-searched=wise-ft,task-arithmetic,"
    "task-arithmetic-searched=task-arithmetic,ties,ties-searched=ties,dare-ties,dare-linear,model-stock"
)
OPTIONS = (
    "wise-ft-searched.alpha=search",
    "task-arithmetic-searched.scale=search",
    "ties-searched.scale=search",
    "manifoldmix.tau=0.97",
)
"""τ is one of ratios of scores; a likelihood that is 3 % worse is promising, as accuracy is in the paper."""
EVOLVED = "best,manifoldmix,task-arithmetic-searched=task-arithmetic"
"""Methods whose searches are made again by CMA-ES (Optuna's)."""
BUDGET = 60


@dataclass(frozen=True)
class Study:
    """One pool and what it is scored on.

    Attributes:
        name: of its folder.
        domains: whose models are in the pool, and whose texts are held out.
        objective: what is maximised.
    """

    name: str
    domains: tuple[str, ...]
    objective: str = "nll"


STUDIES = (
    Study("manuals", ("manuals",)),
    Study("essays", ("essays",)),
    Study("both", DOMAINS, "0.5*manuals:nll + 0.5*essays:nll"),
)


def run(output: Path, studies: tuple[Study, ...] = STUDIES, options: Mapping[str, str] | None = None) -> None:
    """Makes the benchmarks that are not finished; each goes on where it was interrupted.

    Args:
        output: folder of corpora and models.
        studies: what is compared.
        options: flags in the place of the usual ones.
    """
    for study in studies:
        task = output / f"{study.name}.toml"
        atomic.write(task, _task(output, study))
        shared = ["benchmark", "--task", str(task), "--objective", study.objective, "--base", str(output / "base")]
        shared += ["--models", *_between("--models", [f"{output / domain}/model_*" for domain in study.domains])]
        shared += ["--partitioner", "block", "--budget", str(BUDGET), "--seed", "0"]
        shared += [word for pair in (options or {}).items() for word in pair]
        chosen = _between("-o", OPTIONS)
        _merge(*shared, "--strategies", METHODS, "-o", *chosen, "--output", str(output / f"bench_{study.name}"))
        evolved = ["--strategies", EVOLVED, "-o", *_between("-o", (OPTIONS[1], OPTIONS[3]))]
        by = ["--optimizer", "optuna", "-o", "optimizer.sampler=cmaes"]
        _merge(*shared, *evolved, *by, "--output", str(output / f"evolved_{study.name}"))


def _task(output: Path, study: Study) -> str:
    corpora = output / "corpus"

    def sets(part: str) -> str:
        if len(study.domains) == 1:
            return f'"{corpora / study.domains[0]}_{part}.jsonl"'
        inner = ", ".join(f'{name} = "{corpora / name}_{part}.jsonl"' for name in study.domains)
        return f"{{ {inner} }}"

    return (
        f'[task]\nmodel = "transformers:{output / "base"}"\nheld_out = {sets("held_out")}\ntest = {sets("test")}\n'
        f'[task.shifts]\n{SHIFT} = "{corpora / SHIFT}_test.jsonl"\n'
    )


def _between(flag: str, values: tuple[str, ...] | list[str]) -> list[str]:
    """The values, the flag again before each but the first."""
    return [word for number, value in enumerate(values) for word in ([flag, value] if number else [value])]


def _merge(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "merging", *words], check=True)  # noqa: S603 (our own)
