"""Tables of values as pandas has them: long ones, an observation a line, so that they can be grouped and joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from merging.errors import RequirementError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> DataFrame:
    """Makes a table; what a row lacks is missing in it.

    Args:
        rows: a mapping from column to value each.
        columns: all columns, in order.

    Raises:
        RequirementError: there is no pandas.
    """
    try:
        import pandas
    except ImportError:
        raise RequirementError("a data frame needs pandas: pip install pandas") from None
    return pandas.DataFrame(list(rows), columns=list(columns))
