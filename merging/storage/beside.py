"""What lies beside the weights of several models, compared: the differences that a mix of the weights does not see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from merging.storage import class_names, vocabulary
from merging.storage.class_order import some
from merging.storage.companions import Companions, companions, read_companion, readable, shown
from merging.storage.model_folder import COMPANIONS
from merging.values import wording

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

PROVENANCE = frozenset(
    {
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "_from_model_config",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "finetuning_task",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "attn_implementation",
        "use_cache",
        "gradient_checkpointing",
        "_valid_processor_keys",
        "_auto_class",
        "_diffusers_version",
        "unsloth_version",
        "unsloth_fixed",
        "tokenizer_file",
        "special_tokens_map_file",
        "is_local",
        "local_files_only",
        "date",
        "created",
        "created_at",
        "saved_at",
        "timestamp",
        "last_modified",
        "license",
        "license_name",
        "license_link",
        "hf_hub_id",
        "hf_hub_filename",
        "origin_url",
        "paper_name",
        "paper_ids",
        "description",
        "base_model",
        "tags",
    }
)
"""Keys that say where a model comes from and how it was saved or is run; every other key counts as one that changes
what it computes."""
_TIMM_PROVENANCE = frozenset({"url", "file", "source", "tag", "notes", "custom_load"})
"""Such keys of timm's, under ``pretrained_cfg``."""
_LINES = 20
"""Differences of one file that have a line each; the keys of the rest are named in one more."""
_WIDE = 60
_VALUES = 4


@dataclass(frozen=True)
class _Version:
    """One content of a file, where it lies, and the models that have it."""

    file: Path
    models: list[str]


def differences(models: Mapping[str, Checkpoint], taken: str | None) -> tuple[str, ...]:
    """Compares the files beside several models: a line for each difference, and lines for what is left out.

    Files that are equal to the byte are not looked into. The cost grows with the number of models, not with that of
    their pairs.

    Args:
        models: name → checkpoint.
        taken: the name of the one whose files go along with the result; None where none do.
    """
    known: dict[Path, Companions] = {}
    digests: dict[Path, bytes] = {}
    versions: dict[str, dict[bytes, _Version]] = {}
    for model, checkpoint in models.items():
        for file in _looked_at(checkpoint.home.path, known):
            if file not in digests:
                digests[file] = _digest(file)
            of_name = versions.setdefault(file.name, {})
            of_name.setdefault(digests[file], _Version(file, [])).models.append(model)
    ends = dict.fromkeys(versions, "")
    if taken is not None:
        carried = {file.name for file in known[_place(models[taken].home.path)].files}
        usual = {file.name for found in known.values() for file in found.files}
        ends |= dict.fromkeys(usual - carried, "; the result has none")
        ends |= dict.fromkeys(carried, f"; the result takes {shown(taken)}'s")
    lines = [*_left_out(models, known, taken), *_missing(models, versions, ends)]
    for name, contents in sorted(versions.items()):
        several = list(contents.values())
        if len(several) > 1 and (name == "config.json" or name not in class_names.FILES):
            lines += [f"{name}: {line}{ends[name]}" for line in _compared(name, several)]
    # a file of weights alone, such as a base often is, says nothing that could differ
    inside = [([model], checkpoint.settings) for model, checkpoint in models.items() if checkpoint.settings]
    names = dict.fromkeys(name for _, settings in inside for name in settings)
    told = [(name, [(model, settings.get(name)) for model, settings in inside]) for name in names]
    said = [line for name, of in told if (line := _values(name, of))]
    lines += [f"in the files themselves: {name} is {line}" for name, line in said[:_LINES]]
    return tuple(lines)


def _place(path: Path) -> Path:
    """What decides which files lie beside a model: its folder, or that of a file under another name."""
    return path if path.is_dir() else path.parent / "*"


def _looked_at(path: Path, known: dict[Path, Companions]) -> tuple[Path, ...]:
    """The files beside a model that say something of it; those of timm and open_clip also beside a single file."""
    place = _place(path)
    if place not in known:
        known[place] = companions(path)
    found = known[place].files
    if found or place == path:
        return found
    beside = readable(path.parent, ("config.json", "open_clip_config.json"))
    return tuple(file for file in beside if file.name != "config.json" or "pretrained_cfg" in (_json(file) or {}))


def _left_out(models: Mapping[str, Checkpoint], known: Mapping[Path, Companions], taken: str | None) -> Iterator[str]:
    """Names of files that do not go along; of models that nothing is taken of, those that are not looked at either."""
    own = known[_place(models[taken].home.path)] if taken is not None else Companions()
    if taken is not None and own.left_out:
        yield f"beside {shown(taken)}, left out of the result: {own}"
    others: dict[str, list[str]] = {}
    for model, checkpoint in models.items():
        found = known[_place(checkpoint.home.path)]
        hidden = tuple(each for each in found.left_out if each[0] in COMPANIONS)
        if hidden and found is not own:
            others.setdefault(str(Companions(left_out=hidden)), []).append(model)
    yield from (f"beside {some(several)}, not looked at: {what}" for what, several in others.items())


def _missing(
    models: Mapping[str, Checkpoint], versions: Mapping[str, Mapping[bytes, _Version]], ends: Mapping[str, str]
) -> Iterator[str]:
    """Files that lie beside some of the models only."""
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name, contents in sorted(versions.items()):
        there = {model for version in contents.values() for model in version.models}
        if len(there) < len(models):
            groups.setdefault((tuple(model for model in models if model in there), ends[name]), []).append(name)
    for (there_too, end), names in groups.items():
        lacking = [model for model in models if model not in set(there_too)]
        verb = "lies" if len(names) == 1 else "lie"
        yield f"{', '.join(names)} {verb} beside {some(there_too)}, not beside {some(lacking)}{end}"


def _compared(name: str, versions: Sequence[_Version]) -> Iterator[str]:
    """The differences between the contents of one file."""
    is_vocabulary = name in vocabulary.FILES
    values: list[Any] = []
    if is_vocabulary:
        looked = versions[:_LINES]
        found = [vocabulary.read_vocabulary(name, read_companion(version.file)) for version in looked]
        first = found[0]
        for version, other in zip(looked[1:], found[1:], strict=True):
            if first is not None and other is not None:
                yield from first.differs(other, some(versions[0].models), some(version.models))
        if len(versions) > len(looked):
            yield f"{len(versions) - len(looked)} more contents of it, in other models"
        values = [None if each is None else each.rest or {} for each in found]
    elif name.endswith(".json"):
        values = [_json(version.file) for version in versions]
    values += [None] * (len(versions) - len(values))
    flat: list[tuple[list[str], dict[str, Any]]] = []
    for version, value in zip(versions, values, strict=True):
        if value is not None and values[0] is not None:
            flat.append((version.models, dict(_flat(value, trusted=not is_vocabulary))))
        elif version is not versions[0] and not (is_vocabulary and version not in looked):
            yield f"{_size(versions[0])}, {_size(version)}, not the same"
    keys = dict.fromkeys(key for _, each in flat for key in each)
    said = [line for key in keys if (line := _values(key, [(models, each.get(key)) for models, each in flat]))]
    yield from (f"{key} is {line}" for key, line in said[:_LINES])
    if len(said) > _LINES:
        yield f"also differ: {wording.some([key for key, _ in said[_LINES:]], 2 * _LINES)}"


def _values(key: str, of: Sequence[tuple[Sequence[str], Any]]) -> tuple[str, str] | None:
    """A key and its values, where there are several; null and a key that is not there are one."""
    groups: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for models, value in of:
        if value is None and key == "architectures":  # saved without saying the class
            continue
        same = _canonical(value)
        groups.setdefault(same, []).extend(models)
        texts[same] = "not set" if value is None else shown(json.dumps(value, ensure_ascii=False))
    if len(groups) < 2:
        return None
    begin = 0
    if max(map(len, texts.values())) > _WIDE:
        begin = max(0, _alike(list(texts.values())) - 10)
    parts = [f"{_cut(texts[same], begin)} in {some(models)}" for same, models in list(groups.items())[:_VALUES]]
    more = len(groups) - len(parts)
    return shown(key), ", ".join(parts) + (f" and {more} other values" if more else "")


def _cut(text: str, begin: int) -> str:
    end = begin + _WIDE
    return "…" * (begin > 0) + text[begin:end] + "…" * (len(text) > end)


def _alike(texts: Sequence[str]) -> int:
    """Counts the characters with which all of several texts begin."""
    return next(
        (n for n, several in enumerate(zip(*texts, strict=False)) if len(set(several)) > 1), min(map(len, texts))
    )


def _flat(value: Any, *, trusted: bool, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Keys joined by dots, and their values; without classes, without null, and without provenance where it may be."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            if trusted and key in class_names.KEYS and class_names.names_of(inner) is not None:
                continue
            yield from _flat(inner, trusted=trusted, path=(*path, str(key)))
        return
    if isinstance(value, list) and any(isinstance(each, list | dict) for each in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, trusted=trusted, path=(*path, str(number)))
        return
    if value is not None and not (trusted and _is_provenance(path)):
        yield ".".join(path), value


def _is_provenance(path: Sequence[str]) -> bool:
    """Whether a key, or one that it stands under, says only where a model comes from."""
    return any(key in PROVENANCE for key in path) or (
        "pretrained_cfg" in path[:-1] and any(key in _TIMM_PROVENANCE for key in path)
    )


def _canonical(value: Any) -> str:
    """The same text for the same value: 1 and 1.0, true and 1 are one."""
    if isinstance(value, list):
        return f"[{', '.join(map(_canonical, value))}]"
    number = isinstance(value, bool | int | float) and not (isinstance(value, int) and abs(value) >= 2**53)
    return repr(float(value)) if number else repr(value)


def _json(file: Path) -> Any:
    """The values in a file; None where it holds no JSON object."""
    try:
        value = json.loads(read_companion(file).decode("utf-8-sig"))
        list(_flat(value, trusted=True))  # too deep for us?
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else {"": value}


def _digest(file: Path) -> bytes:
    return blake3(read_companion(file)).digest()


def _size(version: _Version) -> str:
    return f"{len(read_companion(version.file)):,} bytes in {some(version.models)}"
