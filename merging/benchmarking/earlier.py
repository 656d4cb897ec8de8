"""Verdicts from what earlier versions have kept: ``paired`` of report.json, ``against`` of benchmark.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from merging.plugins.task import CERTIFY, HELD_OUT
from merging.values.report import in_words
from merging.values.statistics import LEVEL, PairedTest, mcnemar
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected


def role_of(name: str, shifts: Sequence[str]) -> Role:
    """The role of a set, or of the average over the shifted ones, by its name."""
    fixed = {HELD_OUT: Role.HELD_OUT, CERTIFY: Role.CERTIFY, str(Role.AVERAGE): Role.AVERAGE}
    return Role.SHIFT if name in shifts else fixed.get(name, Role.TEST)


def verdict_of(
    name: str, found: Mapping[str, Any], *, shifts: Sequence[str], reference: str, against: str, objective: str
) -> Verdict:
    """Reads one test, not corrected. All of them were of accuracies, whatever the objective.

    Args:
        name: the set's.
        found: difference, interval (95 %), gained, lost, samples, p_value.
        shifts: the shifted sets.
        reference: the name of the row that was compared with.
        against: the same row in words.
        objective: name of the objective that chose.
    """
    role, extra = role_of(name, shifts), objective != ACCURACY
    p, low, high = float(found["p_value"]), *map(float, found["interval"])
    counts = float(found["gained"]), float(found["lost"])
    exact = all(count.is_integer() for count in counts)
    exact = exact and math.isclose((counts[0] - counts[1]) / found["samples"], found["difference"], abs_tol=1e-12)
    exact = exact and math.isclose(mcnemar(int(counts[0]), int(counts[1]), int(found["samples"]))[0], p, rel_tol=1e-6)
    return Verdict(
        set=name,
        role=role,
        reference=reference,
        against=against,
        measure=ACCURACY,
        family=Family.of(role, extra=extra),
        difference=float(found["difference"]),
        interval=(low, high),
        p=p,
        corrected=p,
        level=1 - LEVEL,
        tests=1,
        test=PairedTest.MCNEMAR if exact else PairedTest.NORMAL,
        gained=counts[0],
        lost=counts[1],
        samples=int(found["samples"]),
        extra=extra,
    )


def beside_objective(data: dict[str, Any], objective: str) -> dict[str, Any]:
    """A row whose tests were accuracies though another objective chose: they stand beside it now.

    A set without an interval was scored by the objective itself.

    Args:
        data: the row, with ``tests``, ``shifted`` and ``intervals``.
        objective: name of the objective that chose.
    """
    counted = [name for name in (*data["tests"], str(Role.AVERAGE)) if name in data["intervals"]]
    if objective == ACCURACY or not counted:
        return data
    accuracies = {name: data["tests"][name] for name in counted if name in data["tests"]}
    if str(Role.AVERAGE) in counted and data["shifted"] is not None:
        accuracies[str(Role.AVERAGE)] = data["shifted"]
    return data | {
        "tests": {name: value for name, value in data["tests"].items() if name not in accuracies},
        "shifted": None if str(Role.AVERAGE) in accuracies else data["shifted"],
        "intervals": {
            (f"{name} ({ACCURACY})" if name in counted else name): ends for name, ends in data["intervals"].items()
        },
        "accuracies": accuracies,
    }


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
