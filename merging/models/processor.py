"""The image processor of a folder of transformers, as the transform of one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from merging.errors import TaskError
from merging.models.offline import offline, reason
from merging.models.transform import Normalisation, Pixels, Transform, refused, whole_numbers

FILES = ("preprocessor_config.json", "processor_config.json")
"""Files in which transformers looks for the settings of an image processor."""
_APART = ("do_rescale", "do_normalize", "do_flip_channel_order", "include_top")
"""Steps that are the device's."""


def transform_of(
    library: Any,
    spec: str,
    folder: Path,
    config: Any,
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Transform:
    """Makes the transform that ``AutoImageProcessor`` gives for a folder by default.

    Args:
        library: transformers.
        spec: the model's name, for messages.
        folder: the model's folder, with ``config.json`` and perhaps one of :data:`FILES`.
        config: the model's configuration.
        size: side of square images, in pixels, in place of the processor's own.
        mean: mean of each channel, of images between 0 and 1, in place of the processor's own.
        std: standard deviation of each channel, in place of the processor's own.

    Raises:
        TaskError: the file is damaged, or makes no such pictures.
    """
    processor, notes = _processor(library, spec, folder, config)
    if processor is None:
        why = f"{spec} has no {FILES[0]}, and transformers no image processor for '{config.model_type}'; save one"
        return refused(spec, why)
    overrides: dict[str, Any] = {}
    if size is None and notes:
        own = getattr(config, "image_size", None)
        if isinstance(own, list | tuple) and len({*own}) > 1:
            raise TaskError(f"{spec} takes images of {own} pixels and has no {FILES[0]}, which would say how; save one")
        size = _sides(own if isinstance(own, int) else (dict(enumerate(own)) if own else None))
    if size is not None:
        overrides = _sized(processor, size, spec)
    if overrides:
        processor = _changed(processor, overrides, folder)
    found = _transform(library, spec, processor, notes)
    if size is not None and found.sides not in (None, (size, size)):
        raise TaskError(f"{spec}: its image processor makes no pictures of {size} pixels; leave size out")
    if mean is None and std is None:
        return found
    own, geometry = found.normalisation, found.geometry
    if own is None or geometry is None:  # the processor's own, where it has one
        if not getattr(processor, "do_normalize", False):
            raise TaskError(f"{spec}: its image processor takes neither mean nor std; leave them out")
        said = {key: list(value) for key, value in (("image_mean", mean), ("image_std", std)) if value is not None}
        return _transform(library, spec, _changed(processor, said, folder), notes)
    wanted = Normalisation(tuple(mean or own.mean), tuple(std or own.std), own.flipped)

    def whole(image: Image.Image) -> Tensor:
        """Not the processor's, as MobileViT's takes no mean, and EfficientNet's divides twice."""
        return wanted.rows(torch.from_numpy(geometry(image)))

    return replace(found, whole=whole, proposed=wanted)


def _changed(processor: Any, said: Mapping[str, Any], folder: Path) -> Any:
    """The same processor with other settings."""
    try:
        return type(processor).from_dict({**processor.to_dict(), **said})
    except Exception as error:  # values of a file that nobody has checked
        raise TaskError(f"{folder}: its image processor: {reason(error)}") from None


def _transform(library: Any, spec: str, processor: Any, notes: tuple[str, ...]) -> Transform:
    apart = {key: False for key in _APART if hasattr(processor, key)}

    def whole(image: Image.Image, **settings: Any) -> Tensor:
        found = processor(image, return_tensors="pt", **settings)["pixel_values"]
        return torch.as_tensor(found[0])

    def geometry(image: Image.Image) -> Pixels:
        return whole_numbers(whole(image, **apart))

    said = processor.to_dict()
    key = {"transformers": library.__version__, "kind": type(processor).__name__, "settings": _plain(said)}
    return Transform(
        name=spec, whole=whole, settings=key, geometry=geometry, proposed=_normalisation(processor), notes=notes
    )


def _processor(library: Any, spec: str, folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """The processor, None where there is none for this type, and what the user should know of it."""
    present = [folder / name for name in FILES if (folder / name).is_file()]
    try:
        with offline():
            if present or getattr(config, "model_type", "") == "timm_wrapper":
                return library.AutoImageProcessor.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                ), ()
            from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

            kinds: Any = IMAGE_PROCESSOR_MAPPING.get(type(config), None)
            if isinstance(kinds, Mapping):
                kinds = kinds.get("torchvision") or kinds.get("pil")
            if isinstance(kinds, tuple):  # of transformers 4: by PIL, by torchvision
                kinds = kinds[1] or kinds[0]
            if kinds is not None:
                note = (
                    f"{spec} has no {FILES[0]}: pictures are prepared as transformers' {kinds.__name__} does by itself"
                )
                return kinds(), (note,)
    except Exception as error:  # damaged files raise whatever they provoke
        raise TaskError(f"{present[0] if present else folder}: {reason(error)}") from None
    return None, ()


def _sized(processor: Any, size: int, spec: str) -> dict[str, Any]:
    """Settings that make square images of another side; the shorter side keeps its proportion to the crop."""
    said = processor.to_dict()
    own, crop = _sides(said.get("size")), _sides(said.get("crop_size"))
    cut = crop is not None and bool(getattr(processor, "do_center_crop", False))
    known = {key: value for key, value in dict(said.get("size") or {}).items() if value is not None}
    if not known or not set(known) <= {"height", "width", "shortest_edge"}:
        raise TaskError(f"{spec}: its image processor has the size {known}; leave size out")
    before = round(size * own / crop) if cut and own and crop else size
    return {
        "do_resize": True,
        "size": {key: before for key in known},
        **({"crop_size": {"height": size, "width": size}} if cut else {}),
    }


def _sides(said: Any) -> int | None:
    if said is None or isinstance(said, int):
        return said
    found = [value for value in dict(said).values() if value]
    return int(found[0]) if found else None


def _normalisation(processor: Any) -> Normalisation:
    """What the settings say of the arithmetic, for pixels between 0 and 255."""
    scale = 255 * float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 255.0
    mean, std = _channels(0.0), _channels(1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = (_channels(getattr(processor, name)) for name in ("image_mean", "image_std"))
    if getattr(processor, "include_top", False):  # EfficientNet divides twice
        std = tuple(value * again for value, again in zip(std, _channels(processor.image_std), strict=True))
    return Normalisation(
        tuple(value / scale for value in mean),
        tuple(value / scale for value in std),
        bool(getattr(processor, "do_flip_channel_order", False)),
    )


def _channels(values: Any) -> tuple[float, ...]:
    return (float(values),) * 3 if isinstance(values, int | float) else tuple(map(float, values or (0.0, 0.0, 0.0)))


def _plain(value: Any) -> Any:
    """Settings as JSON: what has no such form as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
