"""tqdm in a notebook, loaded without the red warning that there are no ipywidgets: bars are drawn as text then."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.std import tqdm


def tqdm_of_here() -> type[tqdm[Any]]:
    """The bar of a notebook where ipywidgets draws it, else the one of a terminal, which notebooks show as well."""
    from tqdm.std import TqdmExperimentalWarning, TqdmWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        from tqdm.auto import tqdm
    made: type[tqdm[Any]] = tqdm
    return made


def load_quietly() -> None:
    """Loads it in a kernel before timm, open_clip, transformers or datasets do, who would show the warning."""
    if "ipykernel.zmqshell" in sys.modules and "tqdm.auto" not in sys.modules:
        tqdm_of_here()
