"""What tensors a model of the Hub holds, by the headers of its files alone: nothing large is fetched."""

from __future__ import annotations

from merging.storage.dtypes import SAFETENSORS
from merging.storage.hub.refusals import refusal
from merging.storage.hub.spelling import HubId
from merging.values.partition import TensorInfo


def tensors_of(wanted: HubId) -> dict[str, TensorInfo]:
    """Name → (shape, dtype name) of all tensors of a model that is kept as safetensors.

    Raises:
        CheckpointError: the Hub does not say, or the model is kept in another format.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="merging")
    try:
        found = api.get_safetensors_metadata(wanted.repository, revision=wanted.revision or None)
    except Exception as error:  # of the Hub's own, and whatever its HTTP library raises
        raise refusal(error, wanted, api) from None
    return {
        name: (tuple(each.shape), SAFETENSORS.get(each.dtype, each.dtype))
        for file in found.files_metadata.values()
        for name, each in file.tensors.items()
    }
