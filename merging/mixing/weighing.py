"""Weights of models as users write them: MODEL=WEIGHT, or MODEL@COMPONENT=WEIGHT."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from merging.errors import OptionError
from merging.plugins.spreading import matching
from merging.plugins.varying import number_in, place_of

HELP = "MODEL=WEIGHT, or MODEL@COMPONENT=WEIGHT for one component; names or patterns, later entries win"


def weights_of(
    entries: Sequence[str], models: tuple[str, ...], components: tuple[str, ...], usual: float
) -> NDArray[np.float64]:
    """The weights of all models (rows) in all components (columns).

    Args:
        entries: words as the user wrote them; names may be patterns, and later entries win.
        models: names in pool order.
        components: names in the partition's order.
        usual: the weight of whoever is not named.

    Raises:
        OptionError: an entry is not of that form.
        UnknownNameError: it names no model, or no component.
    """
    table = np.full((len(models), len(components)), usual)
    for entry in entries:
        model, component, value = place_of(entry, "models")
        rows, columns = matching("model", model, models), matching("component", component or "*", components)
        table[np.ix_(rows, columns)] = _number(entry, value)
    return table


def _number(entry: str, value: str) -> float:
    number = number_in(value)
    if math.isnan(number):
        raise OptionError(f"weights: '{entry}' is not MODEL=WEIGHT, such as model_0=0.5")
    return number
