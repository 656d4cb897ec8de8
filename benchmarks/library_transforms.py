"""Every distinct setting in which four libraries prepare a picture, and the library's own transform of each.

All of timm's models (and its other published weights), torchvision's classifiers, open_clip's models, and the
processors of transformers in ``processors.json``. Nothing here knows how a task prepares images.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

LIBRARIES = (
    "timm",
    "timm, other weights",
    "torchvision",
    "torchvision, other weights",
    "open_clip",
    "open_clip, other weights",
    "transformers",
)
PROCESSORS = Path(__file__).with_name("processors.json")
"""Name of a published model → ``config.json`` of a tiny one of its kind, ``preprocessor_config.json`` like its own."""
Transform = Callable[[Image.Image], Tensor]
"""A library's own: RGB picture → float32 ``(3, H, W)``."""
CHEAP = ("test_", "atto", "femto", "pico", "nano", "tiny", "zepto", "small", "mini", "18", "_s", "b0", "xs")


@dataclass(frozen=True)
class Subject:
    """Models with one and the same setting.

    Attributes:
        library: one of :data:`LIBRARIES`.
        names: of all of them.
        model: what a task is given: the name of one, or a table with its arguments.
        transform: builds the library's own transform.
        classifier: whether the library's model is one; if not, a task may refuse it.
    """

    library: str
    names: tuple[str, ...]
    model: Any
    transform: Callable[[], Transform]
    classifier: bool = True


def subjects(library: str, folder: Path, *, every: bool = False) -> list[Subject]:
    """All of a library's models by their settings.

    Args:
        library: one of :data:`LIBRARIES`.
        folder: for the folders of transformers.
        every: each model by itself.
    """
    find: dict[str, Callable[[], Iterator[Subject]]] = {
        "timm": timm_models,
        "timm, other weights": timm_weights,
        "torchvision": torchvision_models,
        "torchvision, other weights": torchvision_others,
        "open_clip": open_clip_models,
        "open_clip, other weights": open_clip_others,
        "transformers": functools.partial(transformers_folders, folder),
    }
    found = list(find[library]())
    if not every or library == "transformers":
        return found
    source = library.partition(",")[0]
    return [Subject(library, (name,), f"{source}:{name}", s.transform, s.classifier) for s in found for name in s.names]


def _grouped(names: Iterable[str], setting: Callable[[str], Any]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Setting by setting: the cheapest model to build by its name, all models, and the setting."""
    groups: dict[str, list[str]] = {}
    settings: dict[str, Any] = {}
    for name in names:
        found = setting(name)
        key = json.dumps(found, sort_keys=True, default=str)
        groups.setdefault(key, []).append(name)
        settings[key] = found
    for key, members in groups.items():
        cheapest = min(members, key=lambda name: (not any(word in name for word in CHEAP), len(name), name))
        yield cheapest, tuple(members), settings[key]


def timm_setting(name: str) -> dict[str, Any]:
    """Timm's settings for evaluation."""
    import timm
    from timm.data import config

    library: Any = config
    own: Any = timm.get_pretrained_cfg(name)
    found: dict[str, Any] = library.resolve_data_config({}, pretrained_cfg=own.to_dict(), verbose=False)
    return found


def timm_transform(setting: Mapping[str, Any]) -> Transform:
    """Timm's transform for evaluation."""
    from timm.data.transforms_factory import create_transform

    made: Transform = create_transform(**setting)
    return made


def _timm(library: str, names: Sequence[str]) -> Iterator[Subject]:
    for one, members, setting in _grouped(names, timm_setting):
        yield Subject(library, members, f"timm:{one}", functools.partial(timm_transform, setting))


def timm_models() -> Iterator[Subject]:
    """All architectures, as their default weights want it."""
    import timm

    return _timm("timm", [n for n in timm.list_models() if timm.get_pretrained_cfg(n) is not None])


def timm_weights() -> Iterator[Subject]:
    """All published weights, ``timm:NAME.TAG``, with settings that no architecture's default weights have."""
    import timm

    met = {json.dumps(timm_setting(name), sort_keys=True) for name in timm.list_models()}
    others = [n for n in timm.list_pretrained() if json.dumps(timm_setting(n), sort_keys=True) not in met]
    return _timm("timm, other weights", others)


def torchvision_weights(name: str) -> Any:
    """The default weights of a classifier, or those whose crop the network takes that ``get_model(name)`` builds."""
    from torchvision import models

    known = models.get_model_weights(name)
    if not name.startswith("vit_"):  # all others take any size
        return known.DEFAULT
    with torch.device("meta"):
        side = models.get_model(name, weights=None).image_size
    fitting = [w for w in (known.DEFAULT, *known) if list(w.transforms().crop_size) == [side]]
    return fitting[0]


def torchvision_transform(name: str) -> Transform:
    """Torchvision's transform of a classifier."""
    made: Transform = torchvision_weights(name).transforms()
    return made


def torchvision_models() -> Iterator[Subject]:
    """All image classifiers; one whose default weights do not fit it stands by itself."""
    from torchvision import models

    def setting(name: str) -> Any:
        alone = name if torchvision_weights(name) is not models.get_model_weights(name).DEFAULT else ""
        return [alone, repr(torchvision_weights(name).transforms())]

    for one, members, _ in _grouped(models.list_models(module=models), setting):
        yield Subject("torchvision", members, f"torchvision:{one}", functools.partial(torchvision_transform, one))


def torchvision_others() -> Iterator[Subject]:
    """Their weights that are not the default."""
    from torchvision import models

    every = models.list_models(module=models)
    others = {
        f"{n}(weights='{w.name}')": w
        for n in every
        for w in models.get_model_weights(n)
        if w is not torchvision_weights(n)
    }
    for one, members, _ in _grouped(others, lambda name: repr(others[name].transforms())):
        yield Subject("torchvision, other weights", members, f"torchvision:{one}", others[one].transforms)


def open_clip_setting(name: str, tag: str | None = None) -> dict[str, Any]:
    """Settings of open_clip's ``create_model_and_transforms(name, tag)``; the tag's default is the first published."""
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(name)[:1]
    published = open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}
    setting: dict[str, Any] = merge_preprocess_dict(asdict(PreprocessCfg()), published)
    return {**setting, "size": open_clip.get_model_config(name)["vision_cfg"]["image_size"]}


def open_clip_transform(setting: Mapping[str, Any]) -> Transform:
    """open_clip's transform for evaluation."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    made: Transform = image_transform_v2(PreprocessCfg(**setting), is_train=False)
    return made


def open_clip_models() -> Iterator[Subject]:
    """All built-in models; those of CoCa have no image tower that is a classifier's backbone."""
    import open_clip

    def setting(name: str) -> Any:
        return {"coca": "multimodal_cfg" in open_clip.get_model_config(name), "own": open_clip_setting(name)}

    for one, members, found in _grouped(open_clip.list_models(), setting):
        transform = functools.partial(open_clip_transform, found["own"])
        yield Subject("open_clip", members, f"open_clip:{one}", transform, not found["coca"])


def open_clip_others() -> Iterator[Subject]:
    """Their weights beside the first published."""
    import open_clip

    others = {
        f"{name}(pretrained='{tag}')": (name, tag)
        for name in open_clip.list_models()
        for tag in open_clip.list_pretrained_tags_by_model(name)[1:]
    }

    def setting(name: str) -> Any:
        coca = "multimodal_cfg" in open_clip.get_model_config(others[name][0])
        return {"coca": coca, "own": open_clip_setting(*others[name])}

    for one, members, found in _grouped(others, setting):
        transform = functools.partial(open_clip_transform, found["own"])
        yield Subject("open_clip, other weights", members, f"open_clip:{one}", transform, not found["coca"])


def transformers_transform(folder: Path) -> Transform:
    """What transformers hands out for a folder by default."""
    import transformers

    library: Any = transformers
    processor = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def transform(image: Image.Image) -> Tensor:
        made: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return made

    return transform


def transformers_folder(folder: Path, model: Mapping[str, Any], processor: Mapping[str, Any] | None) -> Path:
    """Writes a folder as the Hub has it, without weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model), "utf-8")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return folder


def transformers_folders(folder: Path) -> Iterator[Subject]:
    """The processors of :data:`PROCESSORS`."""
    for number, (name, files) in enumerate(json.loads(PROCESSORS.read_text("utf-8")).items()):
        made = transformers_folder(folder / f"hub/{number:02}", files["model"], files["processor"])
        yield Subject("transformers", (name,), f"transformers:{made}", functools.partial(transformers_transform, made))
