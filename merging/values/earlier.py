"""Reports as files hold them, of this version and of earlier ones: ``paired`` stood where ``verdicts`` stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from merging.values.formats import REPORT, check_format, known_fields
from merging.values.leaderboard import Single
from merging.values.report import Certificate, Report, Row, best_single
from merging.values.spread import spread_from
from merging.values.states import unworded
from merging.values.statistics import LEVEL, PairedTest, mcnemar
from merging.values.verdict import ACCURACY, Family, Role, Verdict, corrected
from merging.values.workers import WorkerFacts


def report_from(data: Mapping[str, Any]) -> Report:
    """Makes the report from what a ``report.json`` holds; what later versions have added has its default.

    Raises:
        FormatError: a newer version has written it.
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    check_format(data.get("format", REPORT), REPORT)  # before 1.0 no format stood there
    verdicts = verdicts_of(data)
    told = unworded(data) | {"best_single_name": data.get("best_single"), "verdicts": verdicts}
    values = known_fields(Report, told)
    values |= {name: tuple(values[name]) for name in TUPLES if name in values}
    values["rows"] = tuple(_row(row_of_today(row, data, verdicts)) for row in data["rows"])
    values["leaderboard"] = tuple(Single.from_json(single) for single in data.get("leaderboard", ()))
    values["workers"] = tuple(WorkerFacts.from_json(worker) for worker in data.get("workers", ()))
    certified = data.get("certificate")
    values["certificate"] = Certificate(**known_fields(Certificate, certified)) if certified else None
    values["measure"] = data.get("measure", data["objective"])
    return Report(**values)


TUPLES = ("component_names", "pool", "ingredients", "shifts", "decisions", "notes")
"""Fields of a report that are lists in JSON."""


def _row(data: Mapping[str, Any]) -> Row:
    values = known_fields(Row, data)
    spread = spread_from(data.get("coefficients"))
    return Row(**values | {"ingredients": tuple(data["ingredients"]), "coefficients": spread})


def verdicts_of(report: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """The verdicts on the strategy that was asked for; those of an earlier report are corrected as they are now."""
    if "verdicts" in report:
        return tuple(Verdict.from_json(verdict) for verdict in report["verdicts"])
    best = next((list(row["ingredients"]) for row in report["rows"] if row["strategy"] == "best"), [])
    against = best_single(best[0] if len(best) == 1 else None)
    objective = report["objective"]
    found = [
        verdict_of(name, pair, shifts=report["shifts"], reference="best", against=against, objective=objective)
        for name, pair in report["paired"].items()
    ]
    return corrected([found])[0]


def row_of_today(row: Mapping[str, Any], report: Mapping[str, Any], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A row of a report, whose tests were accuracies in earlier ones whatever the objective."""
    row = dict(row)
    if report.get("measure", report["objective"]) == ACCURACY or "accuracies" in row:
        return row
    known, shifts = {verdict.set for verdict in verdicts}, set(report["shifts"])
    counted = {name: (0.0, 1.0) for name in row["tests"] if name in known}
    counted |= {str(Role.AVERAGE): (0.0, 1.0)} if shifts and known >= shifts else {}
    made = beside_objective(row | {"intervals": counted}, report["objective"])
    return {name: value for name, value in made.items() if name != "intervals"}


def role_of(name: str, shifts: Sequence[str]) -> Role:
    """The role of a set, or of the average over the shifted ones, by its name."""
    fixed = {str(Role.HELD_OUT): Role.HELD_OUT, str(Role.CERTIFY): Role.CERTIFY, str(Role.AVERAGE): Role.AVERAGE}
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
