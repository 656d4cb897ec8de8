"""Results of benchmarks as earlier versions have kept them: ``against`` of benchmark.json."""

from __future__ import annotations

from typing import Any

from merging.values.earlier import beside_objective, role_of, verdict_of
from merging.values.report import in_words
from merging.values.verdict import corrected

__all__ = ["beside_objective", "of_today", "role_of", "verdict_of"]


def of_today(data: dict[str, Any]) -> dict[str, Any]:
    """A result of the earlier format, its tests corrected as they are now."""
    objective, shifts = data["objective"], data["shifts"]
    ingredients = {row["label"]: row["ingredients"] for row in data["rows"]}
    rows, verdicts = [], []
    for row in data["rows"]:
        told = []
        for reference, columns in row["against"].items():
            told += [
                verdict_of(
                    name,
                    found,
                    shifts=shifts,
                    reference=reference,
                    against=in_words(reference, ingredients.get(reference, ())),
                    objective=objective,
                )
                for name, found in columns.items()
            ]
        verdicts.append(told)
        rows.append(beside_objective({key: value for key, value in row.items() if key != "against"}, objective))
    rows = [
        row | {"verdicts": [verdict.to_json() for verdict in told]}
        for row, told in zip(rows, corrected(verdicts), strict=True)
    ]
    return data | {"rows": rows, "measure": objective}
