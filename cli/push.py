"""``merge push``: a run's result as a model of the Hub."""

from __future__ import annotations

from pathlib import Path

import click

from merging.cli.asking.options import shared


@click.command("push")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("target", metavar="ORG/NAME[@BRANCH]")
@click.option("--private", is_flag=True, help="Make the repository a private one, where it is not there yet.")
@click.option("--overwrite", is_flag=True, help="Replace the model that is there.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; ask nobody.")
@shared("as_json")
def command(folder: Path, target: str, private: bool, overwrite: bool, dry_run: bool, as_json: bool) -> None:
    """Push the result of a run to the Hugging Face Hub: model, card, recipe and report, in one commit.

    Sent are the files that the run has written, and no others. The token is that of hf auth login or HF_TOKEN, the
    place https://huggingface.co or HF_ENDPOINT.
    """
    from merging.cli.showing.screen import print_json
    from merging.errors import showable
    from merging.storage.hub.cached import shown
    from merging.storage.hub.pushing import parcel, send
    from merging.values.wording import plural

    sent = parcel(folder, target)
    for remark in sent.remarks:
        click.echo(f"note: {showable(remark)}", err=True)
    facts = {"repository": sent.target.repository, "files": list(sent.files), "bytes": sent.size}
    size = f"{plural(len(sent.files), 'file')}, {shown(sent.size)}"
    if dry_run:
        if as_json:
            print_json(facts | {"url": None, "commit": None, "removed": []})
        else:
            click.echo(f"{size} would go to {showable(sent.target.short)}: {showable(', '.join(sent.files))}")
        return
    click.echo(f"pushing {size} to {showable(sent.target.short)} …", err=True)
    made = send(sent, private=private, overwrite=overwrite)
    if as_json:
        print_json(facts | {"url": made.url, "commit": made.commit, "removed": list(made.removed)})
        return
    click.echo(f"{showable(made.url)}: commit {made.commit[:7]}, {size}")
    if made.removed:
        click.echo(f"removed, of the model that was there: {showable(', '.join(made.removed))}")
