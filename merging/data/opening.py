"""A set of samples from what the user writes: a path, or a table with a path and what is to be known about it.

The forms stand in :mod:`merging.data.forms`, a file each; plug-ins may register others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from merging.data.form import KEYS, DataForm, is_parts
from merging.data.images import Preparation, preparation
from merging.data.opened import Opened
from merging.data.reader import Reader
from merging.data.text import reads_language, takes_texts
from merging.errors import TaskError, near_path, unknown
from merging.models.source import ModelSource
from merging.plugins.discovery import load_installed
from merging.plugins.options import build, options_of
from merging.plugins.progress import Progress, Silent
from merging.plugins.registry import forms
from merging.plugins.task import Split
from merging.plugins.user_code import file_of, kind_of, running

Spec: TypeAlias = str | Mapping[str, Any]


def load_data(
    spec: Spec,
    source: ModelSource | None = None,
    *,
    how: Preparation | None = None,
    classes: Sequence[str] | None = None,
    restrict: bool = False,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Split:
    """Loads a split from what the user writes.

    Args:
        spec: a path in one of the forms above, or a table with ``path`` and perhaps ``classes`` and ``map`` (see
            :class:`merging.data.classes.Choice`), ``border`` (pixels cut off on each side), ``corrupt`` (share of
            images that may be damaged), ``upright`` (whether images are turned as their EXIF orientation says),
            ``image``, ``label``, ``text``, ``group`` (names of columns; two of ``text`` are pairs), and the form's own
            options.
        source: the model; says the size of images, and tokenizes texts.
        how: how images are brought to size; default: as the model's configuration says.
        classes: names of the model's outputs, in order; default: the set's own, where it names some.
        restrict: score a set with fewer classes than the model on these alone.
        labelled: whether labels are wanted; without, all of them are −1.
        progress: told how far decoding is, and what was left out.

    Raises:
        TaskError: no such data, an unknown class, too many damaged images, or a package that is not installed.
    """
    how = how or (preparation(source) if source is not None else Preparation())
    opened = open_data(spec, source, how, labelled=labelled, progress=progress)
    return opened.load(classes if classes is not None else opened.names, restrict=restrict, progress=progress)


def open_data(
    spec: Spec,
    source: ModelSource | None,
    how: Preparation,
    *,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Opened:
    """Finds a set and lists its classes, without decoding it (arguments as for :func:`load_data`)."""
    table: dict[str, Any] = {"path": spec} if isinstance(spec, str) else dict(spec)
    check_keys(table)
    path = table.get("path")
    if not path:
        raise TaskError("a data set needs a path, such as { path = 'photos' }")
    how = replace(how, border=table.get("border", 0), corrupt=table.get("corrupt", how.corrupt))
    form = _form(path, texts=takes_texts(source) or reads_language(source), language=reads_language(source))
    own = form.options()
    for key in table:
        if key not in ("path", *form.keys, *own):
            raise TaskError(f"{path}: '{key}' means nothing to this kind of data; leave it out")
    form = build(type(form), {key: value for key, value in table.items() if key in own})
    reader = Reader(path=path, options=table, source=source, how=how, labelled=labelled, progress=progress or Silent())
    with running(f"{path}: reading it as '{form.name}'", form, error=TaskError):
        opened = form.open(reader)
    if not isinstance(opened, Opened):
        raise TaskError(f"the form '{form.name}' returned {kind_of(opened)}, not what its reader makes{file_of(form)}")
    return opened


def check_keys(spec: Spec | None, where: str = "a data set") -> None:
    """Refuses a table with a key that no form of data knows.

    Args:
        spec: what the user writes of a set.
        where: it stands, for messages.

    Raises:
        TaskError: it says the key, and the nearest that there is.
    """
    load_installed()
    if is_parts(spec) and isinstance(spec, Mapping):
        for name, part in spec.items():
            check_keys(part, f"{where} {name}")
        return
    known = {*KEYS, *(option.name for name in forms for option in options_of(forms[name]))}
    for key in spec if isinstance(spec, Mapping) else ():
        if key not in known:
            raise unknown(f"key in {where}:", key, known, error=TaskError)


def _form(path: str, *, texts: bool, language: bool) -> DataForm:
    """The form of a path, for models that take texts, perhaps causal language models, or for others.

    Raises:
        TaskError: no form, or two of one rank, know such a path.
    """
    meant = [forms[name] for name in forms if forms[name].texts in (None, texts)]
    known = sorted(
        (form() for form in meant if form.texts is None or form.language == language), key=lambda each: each.rank
    )
    fits = [form for form in known if form.reads(path)]
    best = [form for form in fits if form.rank == fits[-1].rank]
    if len(best) > 1:
        raise TaskError(f"'{path}' is read by the forms {' and '.join(form.name for form in best)}; use one")
    if not best:
        *ways, last = [form.written or " or ".join(form.suffixes) for form in known]
        kind, way_out = ("texts", "a text model takes") if texts else ("data", "write")
        near = near_path(path)
        raise TaskError(f"no such {kind}: '{path}'" + (near or f"; {way_out} {', '.join(ways)}, or {last}"))
    return best[0]
