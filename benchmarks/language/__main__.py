"""Command line of the programs in this folder."""

from __future__ import annotations

import os
from pathlib import Path

import click

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.command(help=__doc__)
@click.argument("step", type=click.Choice(["corpus", "tokenizer", "pretrain", "finetune", "compare", "all"]))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of corpora, models and results.")
@click.option("--threads", default=2, show_default=True, help="Threads that train and score.")
@click.option("--study", "studies", multiple=True, help="Compare these alone: manuals, essays, both, questions.")
def main(step: str, output: Path, threads: int, studies: tuple[str, ...]) -> None:
    """Makes one step, or all of them; what is there is kept."""
    import torch

    from benchmarks.language import corpus, models

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
    if step in ("compare", "all"):
        from benchmarks.language import compare

        compare.run(output, studies or tuple(compare.STUDIES), threads)


main()
