"""The model card of a merged model: what was merged, how, scores, how to load it, the exact command.

Names in it are text: neither Markdown nor HTML that stands in them does anything (see :mod:`merging.values.markdown`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from merging.storage.hub.spelling import PREFIX
from merging.storage.licence import Licence, told
from merging.storage.result import ADAPTER, MODELS, REPORT
from merging.storage.shards import INDEX
from merging.values.answer import answer, markdown
from merging.values.leaderboard_table import Leaderboard, in_markdown
from merging.values.markdown import fenced, plain
from merging.values.recipe import Ingredient
from merging.values.report import Report
from merging.values.score_table import ScoreTable
from merging.values.verdict import mark
from merging.values.wording import spent
from merging.values.workers import told_workers

_LOAD = {
    "safetensors": "from safetensors.torch import load_file\n\nstate = load_file('model.safetensors')",
    "shards": (
        "import json\nfrom safetensors.torch import load_file\n\n"
        "index = json.load(open('model.safetensors.index.json'))\n"
        "state = {k: t for file in set(index['weight_map'].values()) for k, t in load_file(file).items()}"
    ),
    "adapter": (
        "from peft import PeftModel\n\n"
        "model = PeftModel.from_pretrained(model, '.')  # of the base, as its own library builds it"
    ),
    "pt": "import torch\n\nstate = torch.load('model.pt', weights_only=True)",
}
_INTO = "\nmodel.load_state_dict(state, strict=True)"
_LOAD_MEMBERS = (
    "import json, os\n\nmembers = json.load(open('ensemble.json'))['members']\nos.chdir(members[0]['folder'])"
)


def model_card(
    report: Report,
    command: str,
    kind: str,
    *,
    sharded: bool = False,
    linear: bool = True,
    again: str = "",
    rows: Sequence[Ingredient] = (),
    licences: Mapping[str, Licence | None] = MappingProxyType({}),
) -> str:
    """Writes the model card of a run as Markdown, complete in itself.

    Args:
        report: the run's report.
        command: the command that was typed.
        kind: format of the model file, ``safetensors`` another of ``MODELS``, or ``adapter``.
        sharded: whether the model is several files with an index.
        linear: whether a recipe lies beside it.
        again: flags with which ``merge apply`` writes the same bits, each after a space.
        rows: the ingredients of what was written.
        licences: name of each → its licence.
    """
    in_memory = any(not row.file for row in rows)
    of_hub = {row.name: row.file for row in rows if row.file.startswith(PREFIX)}
    file = INDEX if sharded else {"adapter": ADAPTER, **MODELS}[kind]
    together = f"`members/` holds an ensemble of {report.inference_cost} models, whose outputs are averaged, made from"
    what = f"`{file}` is a merge of" if not report.ensemble else together
    by = "by the strategy"
    if report.saved_instead:
        what = f"`{file}` is {plain(report.saved_instead)}. It is made of"
        by = "in a run of the strategy"
    options = ", ".join(plain(f"{key} = {value}") for key, value in report.options.items()) or "none"
    sections = [
        "# Merged model" if not report.ensemble else "# Ensemble",
        "\n".join(markdown(answer(report))),
        f"{what} {report.made_of} "
        f"{by} **{plain(report.strategy)}**, partitioner {plain(report.partitioner)} "
        f"(components: {report.components}, {report.active_components} of them active), "
        f"optimizer {plain(report.optimizer)}, "
        f"objective {plain(report.objective)}, seed {report.seed}. Status: {plain(report.status)}.",
        f"- ingredients, in order: {', '.join(map(plain, report.ingredients))}",
        *(f"- {plain(name)}: {plain(place)}" for name, place in of_hub.items()),
        *([f"- best single model: {plain(report.best_single_name)}"] if report.best_single_name is not None else []),
        f"- strategy options: {options}",
        *(
            [f"- {plain(report.written.told_coefficients)}"]
            if report.written and report.written.told_coefficients
            else []
        ),
        *([f"- {plain(told_workers(report.workers))}"] if report.workers else []),
        f"- content hash (BLAKE3): `{report.content_hash}`",
    ]
    if report.rows:
        scores = ScoreTable(report)
        sections += ["## Scores", f"Scores: {plain(scores.heading)}.", _table(scores), plain(scores.legend)]
        sections += ["\n".join(f"- {plain(line)}" for line in report.verdict())] if report.verdict() else []
        pool = in_markdown(Leaderboard.of(report), REPORT)
        sections += ["## The models of the pool", pool] if pool else []
    if report.notes:
        sections += ["## Notes", "\n".join(f"- {plain(note)}" for note in report.notes)]
    if licence := told(licences):
        sections += ["## Licence", plain(licence)]
    load = _LOAD["shards" if sharded else kind]
    if report.ensemble:
        sections += [
            f"Inference costs {report.inference_cost} forward passes a sample. `ensemble.json` says which members "
            "there are, with which weights, and whether logits or probabilities are averaged."
        ]
        load = f"{_LOAD_MEMBERS}\n{load}  # and so on, for each of them"
    sections += ["## Load it", fenced(f"{load}{_INTO if kind != 'adapter' else ''}", "python")]
    if report.ensemble:
        sections += ["`merge evaluate FOLDER`, with this folder, scores it as a whole."]
    elif linear:
        rebuilt = f"`merge apply recipe.json{again}` rebuilds the same bits"
        if in_memory:
            rebuilt = (
                f"models were in memory when they were merged: `merge apply recipe.json --models FILES{again}`, with "
                "files of the same content, rebuilds the same bits"
            )
        sections += [f"`recipe.json` holds the coefficients; {rebuilt}."]
    else:
        sections += ["No recipe can express this merge; `report.json` has its lineage. The same command rebuilds it."]
    if command:
        sections += ["## Command", fenced(command)]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    sections += [f"Made with {versions}."]
    return "\n\n".join(sections) + "\n"


def _table(scores: ScoreTable) -> str:
    lines = scores.lines()
    head = ["", *(plain(name) for name, _, _ in lines), "evaluations", "seconds"]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for number, row in enumerate(scores.report.rows):
        cells = [plain(row.named)]
        cells += [f"{numbers[number]} {mark(verdicts[number])}".strip() for _, numbers, verdicts in lines]
        table.append("| " + " | ".join([*cells, str(row.evaluations), spent(row.seconds)]) + " |")
    return "\n".join(table)
