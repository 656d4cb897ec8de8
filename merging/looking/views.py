"""What an inspection can be turned into in Python: shown, tabled, drawn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from merging.errors import OptionError, unknown
from merging.values.frames import frame
from merging.values.report import scored
from merging.values.shown import Grid, Sheet, Shown, grid, named
from merging.values.wording import plural

if TYPE_CHECKING:
    from pandas import DataFrame

    from merging.drawing import Picture
    from merging.looking.inspection import Inspection

FRAMES = {
    "components": ("component", "tensors", "parameters", "inert", "constant", "frozen", "active", "spread"),
    "models": ("model", "score", "from_base", "nearest", "farthest"),
    "pairs": ("first", "second", "distance", "cosine", "midpoint", "barrier"),
}


class InspectionViews(Shown):
    """The ways in which a :class:`merging.Inspection` is shown."""

    __slots__ = ()

    def to_frame(self, of: str = "components") -> DataFrame:
        """Components, models or pairs of models as a data frame.

        ``components``: a component a line: ``component``, ``tensors``, ``parameters``, ``inert``, ``constant``,
        ``frozen``, ``active`` (missing where no model was there to tell), ``spread``. ``models``: ``model``,
        ``score``, ``from_base``, ``nearest``, ``farthest``. ``pairs``: ``first``, ``second``, ``distance``,
        ``cosine``, ``midpoint`` (its score), ``barrier``. Distances and spreads are relative to the weights' length.

        Args:
            of: which of them.

        Raises:
            UnknownNameError: another one.
            RequirementError: there is no pandas.
        """
        makers = {"components": _components, "models": _models, "pairs": _pairs}
        if of not in makers:
            raise unknown("table of an inspection:", of, makers)
        return frame(makers[of](self._found), FRAMES[of])

    def plot(self, kind: str = "distances") -> Picture:
        """Draws how the models lie to each other.

        Args:
            kind: ``distances`` in percent of the weights' length, or ``cosines`` of the differences from the base.

        Returns:
            The picture: shown in a notebook, or saved by ``save("x.svg")``.

        Raises:
            UnknownNameError: another kind.
            OptionError: there are no two models, or for cosines no base.
        """
        from merging.drawing import picture
        from merging.looking.pictures import cosines, distances

        drawings: dict[str, Any] = {"distances": distances, "cosines": cosines}
        geometry, made = self._found.geometry, drawings.get(kind)
        if made is None:
            raise unknown("picture of an inspection:", kind, drawings)
        if geometry is None:
            raise OptionError(f"there is nothing to draw: {plural(len(self._found.pool), 'model')} without distances")
        if kind == "cosines" and geometry.cosines is None:
            raise OptionError("cosines are of the differences from the base, and the pool has none: give `base`")
        return picture(partial(made, self._found), name=kind)

    @property
    def _found(self) -> Inspection:
        return cast("Inspection", self)

    def _sheet(self) -> Sheet:
        found = self._found
        parameters = sum(found.parameters(component) for component in found.partition.components)
        active = f", {len(found.partition.active)} active" if found.marked else ""
        facts = [named(found.pool, "model")] if found.pool else []
        facts.append(f"{plural(len(found.partition), 'component')}{active}")
        facts.append(f"{plural(len(found.tensors), 'tensor', ',')}, {plural(parameters, 'parameter', ',')}")
        lines = tuple(f"{', '.join(group)} hold the same weights" for group in found.duplicates)
        tables = [_component_grid(found), *([_model_grid(found)] if found.pool else [])]
        return Sheet(name="Inspection", facts=tuple(facts), lines=lines, grids=tuple(tables), notes=found.notes)


def _component_grid(found: Inspection) -> Grid:
    rows = []
    for row in _components(found):
        state = next((name for name in ("inert", "frozen", "constant", "active") if row[name]), "")
        rows.append([row["component"], row["tensors"], row["parameters"], _share(row["spread"]), state])
    return grid(("component", "tensors", "parameters", "spread", ""), rows)


def _model_grid(found: Inspection) -> Grid:
    rows = [
        [
            row["model"],
            "" if row["score"] is None else scored(row["score"], found.objective),
            *(_share(row[name]) for name in ("from_base", "nearest", "farthest")),
        ]
        for row in _models(found)
    ]
    return grid(("model", "held-out", "from base", "nearest", "farthest"), rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _components(found: Inspection) -> list[dict[str, Any]]:
    spreads = found.geometry.spread.tolist() if found.geometry is not None else [None] * len(found.partition)
    return [
        {
            "component": c.name,
            "tensors": len(c.tensors),
            "parameters": found.parameters(c),
            "inert": c.inert if found.marked else None,
            "constant": c.constant,
            "frozen": c.frozen,
            "active": c.active if found.marked else None,
            "spread": spread,
        }
        for c, spread in zip(found.partition.components, spreads, strict=True)
    ]


def _models(found: Inspection) -> list[dict[str, Any]]:
    geometry, rows = found.geometry, []
    for i, name in enumerate(found.pool):
        row: dict[str, Any] = {"model": name, "score": found.scores[i] if found.scores else None}
        row |= dict.fromkeys(("from_base", "nearest", "farthest"))
        if geometry is not None:
            others = [geometry.distances[i, j] / geometry.norm for j in range(len(found.pool)) if j != i]
            row |= {"nearest": min(others), "farthest": max(others)}
            row |= {"from_base": geometry.from_base[i] / geometry.norm} if geometry.from_base is not None else {}
        rows.append(row)
    return rows


def _pairs(found: Inspection) -> list[dict[str, Any]]:
    geometry, names = found.geometry, found.pool
    barriers = {frozenset((b.first, b.second)): b for b in found.barriers}
    rows = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            row: dict[str, Any] = {"first": names[i], "second": names[j]}
            if geometry is not None:
                row["distance"] = geometry.distances[i, j] / geometry.norm
                row["cosine"] = geometry.cosines[i, j] if geometry.cosines is not None else None
            barrier = barriers.get(frozenset((names[i], names[j])))
            if barrier is not None:
                row |= {"midpoint": barrier.midpoint, "barrier": barrier.height}
            rows.append(row)
    return rows
