"""Command line of the programs in this folder."""

from __future__ import annotations

import os
from pathlib import Path

import click

from benchmarks.language.compare import SEARCHES, STUDIES

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


STEPS = ("corpus", "tokenizer", "pretrain", "finetune", "score", "compare", "tables", "all")


@click.command(help=__doc__)
@click.argument("step", type=click.Choice(STEPS))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of corpora, models and results.")
@click.option("--threads", default=2, show_default=True, help="Threads that train and score.")
@click.option(
    "--study", "studies", multiple=True, type=click.Choice(tuple(STUDIES)), help="Compare this alone; repeatable."
)
@click.option("--searches", multiple=True, type=click.Choice(SEARCHES), help="All methods, or CMA-ES's; default: both.")
def main(step: str, output: Path, threads: int, studies: tuple[str, ...], searches: tuple[str, ...]) -> None:
    """Makes one step, or all of them; what is there is kept."""
    import torch

    from benchmarks.language import compare, corpus, models, tables

    torch.set_num_threads(threads)
    corpora, base = output / "corpus", output / "base"
    if step in ("corpus", "all") and not (corpora / "corpus.json").is_file():
        corpus.build(output / "debs", corpora)
    if step in ("tokenizer", "all") and not (base / "tokenizer.json").is_file():
        models.make_tokenizer(corpora, base)
    if step in ("pretrain", "all"):
        models.pretrain(corpora, base)
    if step in ("finetune", "all"):
        for domain in ("manuals", "essays"):
            for number, settings in enumerate(models.sweep(domain)):
                print(f"{domain} {number}: {settings}", flush=True)
                models.finetune(corpora, base, domain, output / domain / f"model_{number}", settings)
    if step in ("score", "all"):
        tables.score(output, threads)
    if step in ("compare", "all"):
        compare.run(output, studies or STUDIES, threads, searches or SEARCHES)
    if step in ("tables", "all"):
        tables.write(output)


main()
