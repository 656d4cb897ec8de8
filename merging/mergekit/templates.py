"""Whose chat template lies beside the result: ``chat_template``, where it is the one that goes along anyway."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED
from merging.mergekit.configuration import Configuration
from merging.mergekit.models import BASE, Models
from merging.storage.alignment import FIRST
from merging.storage.companions import companions, read_companion


def check_template(found: Configuration, models: Models) -> None:
    """Refuses a ``chat_template`` that is not the one which goes along with the result.

    ``auto`` is the one that most of the models have.

    Raises:
        MergingError: it is another one, or a template by its name or text.
    """
    if found.template is None:
        return
    said, wanted = found.template, found.template.text("auto")
    if wanted != "auto":
        shown = wanted if len(wanted) < 20 and wanted.isprintable() else "a text"
        raise said.wrong(
            f"is {shown}, and 'auto' alone is supported: write the template into chat_template.jinja beside the result"
        )
    templates = {name: text for name, folder in models.folders.items() if (text := _template(folder))}
    pooled, source = next(iter(models.names.values())), models.vocabulary.get("tokenizer_source")
    first = BASE if BASE in models.folders and source != FIRST else pooled
    taken = str(source) if source in models.folders and source != FIRST else first
    most = Counter(templates.values()).most_common(1)
    if most and templates.get(taken) != most[0][0]:
        other = next(name for name, text in templates.items() if text == most[0][0])
        whose, own = other or "the base", taken or "the base"
        raise said.wrong(
            f"is 'auto', the template of {whose}, and that of {own} goes along: leave this out, and copy the template "
            "into the result's folder"
        )


def _template(folder: Path) -> str:
    """The chat template beside a model; empty: there is none."""
    files = {file.name: file for file in companions(folder).files}
    if (file := files.get("chat_template.jinja")) is not None:
        return read_companion(file).decode("utf-8", "replace").strip()
    for name in ("chat_template.json", "tokenizer_config.json"):
        if name in files and (text := _said(_read(files[name]).get("chat_template"))):
            return text
    return ""


def _said(found: Any) -> str:
    """The template itself, or the default one of several."""
    if isinstance(found, list):
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, Mapping)}
    found = found.get("default") if isinstance(found, Mapping) else found
    return found.strip() if isinstance(found, str) else ""


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(read_companion(file))
    except DAMAGED:
        return {}
    return found if isinstance(found, Mapping) else {}
