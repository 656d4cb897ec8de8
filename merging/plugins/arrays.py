"""Whatever a notebook holds samples and labels in (tensors, arrays, lists, data frames), as tensors of the CPU."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from merging.errors import TaskError
from merging.values.labels import indices
from merging.values.wording import kind_of

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = "make arrays of pictures first: numpy.asarray(picture), or a transform such as torchvision's ToTensor()"
_TAKEN = "they are a tensor, an array or a list of these, with a row for each sample"


def samples(value: object, what: str = "inputs") -> Tensor:
    """Samples as a tensor with a row for each.

    Tensors stay as they are; arrays and lists of float64 become float32, which models are in. What needs no conversion
    is not copied.

    Args:
        value: a tensor, an array, a list of these, or what NumPy makes an array of.
        what: what they are, for messages.

    Raises:
        TaskError: something else, or samples of different shapes.
    """
    import torch

    found = stacked(list(value), what) if isinstance(value, list | tuple) and len(value) else value
    if not isinstance(found, torch.Tensor):
        array = _array(found, what)
        found = _of_array(array.astype(np.float32) if array.dtype == np.float64 else array)
    _check_dense(found, what)
    if found.ndim == 0:
        raise TaskError(f"{what} are a single number; {_TAKEN}")
    return found.detach().cpu().resolve_neg().contiguous()


def targets(value: object, what: str = "labels") -> Tensor:
    """Labels as a tensor: classes as int64 ``(N,)``, whatever integers, truth values or one-hot rows say them.

    Floating-point numbers are numbers to be met, and stay what they are.

    Args:
        value: a tensor, an array, a list, or what NumPy makes an array of.
        what: what they are, for messages.

    Raises:
        TaskError: names, which are no numbers, or something else.
    """
    import torch

    if isinstance(value, torch.Tensor):
        _check_dense(value, what)
        found = value.detach().cpu().resolve_neg()
        if found.is_floating_point():
            return found
        array = found.numpy()
    else:
        array = _array(np.stack(list(map(_plain, value))) if _are_tensors(value) else value, what, words=True)
        if array.dtype.kind in "US":
            raise TaskError(f"{what} are names, such as {str(array.flat[0])!r}; merging.task(…) takes these")
        if array.dtype.kind == "f":
            return _of_array(array)
    if array.ndim == 1 or (array.ndim == 2 and (array.shape[1] == 1 or is_one_hot(array))):
        return torch.from_numpy(indices(array, what))
    return _of_array(array)


def stacked(found: list[Any], what: str) -> Any:
    """A list of samples as one tensor or array.

    Raises:
        TaskError: pictures, or samples of different shapes, which are named.
    """
    import torch

    if hasattr(found[0], "getbands"):  # of PIL
        raise TaskError(f"{what} are pictures of PIL; {PICTURE}")
    shapes = [tuple(getattr(each, "shape", ())) for each in found]
    odd = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise TaskError(
            f"{what} have different shapes: number 0 is {list(shapes[0])}, number {odd} {list(shapes[odd])}; bring "
            "them to one"
        )
    return torch.stack([each.detach().cpu() for each in found]) if _are_tensors(found) else found


def _are_tensors(value: object) -> TypeGuard[Sequence[Tensor]]:
    import torch

    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, torch.Tensor) for each in value)


def _plain(tensor: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found


def _array(value: object, what: str, *, words: bool = False) -> NDArray[Any]:
    """What NumPy makes of a value.

    Raises:
        TaskError: nothing that holds numbers.
    """
    if value is None or isinstance(value, str | bytes | dict | type) or callable(value):
        raise TaskError(f"{what} are {kind_of(value)}; {_TAKEN}")
    try:
        found = np.asarray(value)
    except (ValueError, TypeError):
        raise TaskError(f"{what} are {kind_of(value)} with rows of different lengths; {_TAKEN}") from None
    if is_masked(value):
        raise TaskError(f"{what} are an array in which values are masked; leave such samples out, or fill() them")
    found = unboxed(found)
    if found.dtype == object and words and any(isinstance(each, str) for each in found.flat):
        odd = next(number for number, each in enumerate(found.flat) if not isinstance(each, str))
        raise TaskError(f"{what} are names, but number {odd} is {found.flat[odd]!r:.40}; leave such samples out")
    if found.dtype.kind not in ("biufUS" if words else "biuf") or not found.ndim:
        raise TaskError(f"{what} are {kind_of(value)}; {_TAKEN}")
    return found


def unboxed(array: NDArray[Any]) -> NDArray[Any]:
    """An array of Python's objects as one of numbers or of texts, where all of them are; else as it is."""
    if array.dtype != object or not array.size:
        return array
    if all(isinstance(each, str) for each in array.flat):
        return array.astype(str)
    return np.array(array.tolist()) if all(isinstance(each, numbers.Real) for each in array.flat) else array


def is_masked(value: object) -> bool:
    """Whether it is an array of which some values are not to be used."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


def _check_dense(tensor: Tensor, what: str) -> None:
    """Refuses a tensor without plain numbers.

    Raises:
        TaskError: it is nested, sparse, quantised, complex, or without values.
    """
    import torch

    kinds = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout is not torch.strided,
        "quantised": tensor.is_quantized,
        "meta": tensor.is_meta,
        "complex": tensor.is_complex(),
    }
    kind = next((name for name, holds in kinds.items() if holds), None)
    if kind is not None:
        raise TaskError(f"{what} are a {kind} tensor; give a dense one of plain numbers")


def _of_array(array: NDArray[Any]) -> Tensor:
    import torch

    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "f" and native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    whole = np.ascontiguousarray(native)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())


def is_one_hot(array: NDArray[Any]) -> bool:
    """Whether every row ``(N, classes)`` is of zeros with a single one."""
    return array.shape[1] > 1 and bool(np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all())
