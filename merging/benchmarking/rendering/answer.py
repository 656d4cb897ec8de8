"""The answer of a benchmark: which method for which use, by how much, at what cost, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from merging.benchmarking.rendering.tables import main
from merging.benchmarking.results import SHIFTED, Benchmark, BenchmarkRow
from merging.plugins.task import HELD_OUT
from merging.values.advice import alone, basins, few, untested
from merging.values.answer import Answer, Use, standing_of
from merging.values.states import RunState
from merging.values.verdict import MARKS, Family, Role, Standing, Verdict, short, word
from merging.values.wording import some

_BENCHMARK = "the benchmark: the same command with the same `output`"
ORDER = (Standing.BETTER, Standing.NEITHER, Standing.WORSE)
"""A benchmark stands as its best method does."""
NAMED = 6
"""Methods that stand alike and are named."""


def answer(found: Benchmark) -> Answer:
    """Makes the answer of a benchmark: its methods against the best single model, or else the first reference."""
    reference = next(iter(found.references), None)
    rows = [row for row in found.rows if any(verdict.reference == reference for verdict in row.verdicts)]
    if reference is None or not rows:
        why = "no method"
        if found.rows and not any(row.finished for row in found.rows):
            why = next((row.why for row in found.rows if row.why), "no method has a score")
        elif found.rows:
            alone = any(row.strategy == "best" for row in found.rows)
            more = "name other methods beside best" if alone else "name best among them"
            why = f"nothing to compare the methods with: {more}"
        return Answer(
            standing=Standing.NOT_TESTED,
            headline=f"– not tested: {why}",
            advice=_advice(found, [], None),
            decision=f"not decided: {why.partition(':')[0]}",
        )
    table = Compared(found, reference, rows)
    standings = {standing_of(table.verdicts(row)) for row in rows}
    standing = next((each for each in ORDER if each in standings), Standing.NOT_TESTED)
    return Answer(
        standing=standing,
        headline=_headline(table, standing),
        uses=tuple(table.use(column) for column in table.columns),
        cost=_cost(table),
        advice=_advice(found, rows, table, standing),
        next=_next(table),
        decision=_decision(table, standing),
    )


def recommended(found: Benchmark) -> BenchmarkRow | None:
    """The method that the answer says to take; None where it says to keep what there is, or to go on first."""
    reference = next(iter(found.references), None)
    if reference is None or found.state is not RunState.FINISHED:
        return None
    rows = [row for row in found.rows if any(verdict.reference == reference for verdict in row.verdicts)]
    best = Compared(found, reference, rows).winner()
    return None if best is None else best[0]


class Compared:
    """The rows of a benchmark against one reference, use by use.

    Args:
        found: the benchmark.
        reference: the row that they are compared with.
        rows: rows that have verdicts against it.
    """

    def __init__(self, found: Benchmark, reference: str, rows: Sequence[BenchmarkRow]) -> None:
        self.found, self.reference, self.rows = found, reference, rows
        self.against = found.against(reference)
        self.averages = (SHIFTED, *found.averages)
        self.columns = [column for column in main(found) if any(row.verdict(reference, column) for row in rows)]

    def verdicts(self, row: BenchmarkRow) -> list[Verdict]:
        """A row's verdicts against the reference."""
        return [verdict for verdict in row.verdicts if verdict.reference == self.reference]

    def place(self, column: str) -> str:
        """A column as a place: "at home", "under shift", or by its name where several are at home."""
        if column in self.averages:
            return "under shift" + column.removeprefix(SHIFTED)
        if column in (HELD_OUT, *self.found.held):
            return "on held-out data" + column.removeprefix(HELD_OUT)
        home = [name for name in self.columns if name not in self.averages]
        return "at home" if len(home) == 1 else f"on {column}"

    def told(self, column: str, standing: Standing) -> list[tuple[BenchmarkRow, Verdict]]:
        """Rows that stand so in a column: what loses nothing elsewhere first, then the largest difference."""
        pairs = [(row, row.verdict(self.reference, column)) for row in self.rows]
        own = [(row, verdict) for row, verdict in pairs if verdict is not None and _stands(verdict) == standing]
        return sorted(
            own,
            key=lambda pair: (self.harm(pair[0], column), pair[0].inference_cost, -(pair[1].difference or 0.0)),
        )

    def flattered(self, column: str) -> list[tuple[BenchmarkRow, Verdict]]:
        """Rows that are better only on the data that chose them; the largest difference first."""
        pairs = [(row, row.verdict(self.reference, column)) for row in self.rows]
        own = [(row, verdict) for row, verdict in pairs if verdict is not None and _flattered(verdict)]
        return sorted(own, key=lambda pair: -(pair[1].difference or 0.0))

    def losses(self, row: BenchmarkRow, column: str) -> str:
        """Says what a row loses in the other columns; empty where it loses nothing."""
        pairs = [(other, row.verdict(self.reference, other)) for other in self.columns if other != column]
        told = [f"{short(verdict)} {self.place(other)}" for other, verdict in pairs if verdict and verdict.worse]
        return " and ".join(f"{MARKS[Standing.WORSE]} {each}" for each in told)

    def harm(self, row: BenchmarkRow, column: str) -> int:
        """Ranks what a row loses beside a column: 0 nothing, 1 on a single shifted set, 2 in another column."""
        return 2 if self.losses(row, column) else 1 if self.aside(row) else 0

    def phrase(self, row: BenchmarkRow, verdict: Verdict, column: str) -> str:
        """A method that is better: by how much, and what it loses elsewhere."""
        passes = f" ({row.inference_cost} passes a sample)" if row.inference_cost > 1 else ""
        losses, aside = self.losses(row, column), self.aside(row)
        whole = [other for other in self.columns if other != column and not (aside and other in self.averages)]
        nothing = f", nothing lost {' and '.join(map(self.place, whole))}" if whole else ""
        return f"{row.label}{passes} {short(verdict)}{f', but {losses}' if losses else nothing}{aside}"

    def aside(self, row: BenchmarkRow) -> str:
        """Says on which single shifted sets a row is worse, whatever their average says; the largest loss first."""
        worse = [each for each in self.verdicts(row) if each.role == Role.SHIFT and each.worse and not each.extra]
        worse.sort(key=lambda each: each.difference or 0.0)
        told = [f"{short(each)} on {each.set}" for each in worse]
        return f"; {MARKS[Standing.WORSE]} {some(told, 1)}" if told else ""

    def use(self, column: str) -> Use:
        """The methods for one use: each that is better, those that are worse, and those that are level."""
        lines = [
            (Standing.BETTER, f"{MARKS[Standing.BETTER]} {self.phrase(row, verdict, column)}")
            for row, verdict in self.told(column, Standing.BETTER)
        ]
        told = [f"{row.label} {short(verdict)}" for row, verdict in self.flattered(column)]
        if told:
            lines.append((Standing.NEITHER, f"chosen by these data, which flatter them: {some(told, 3)}"))
        if not lines:
            lines.append((Standing.NEITHER, f"none beats {self.against}"))
        level, worse, silent = (
            self.told(column, each) for each in (Standing.NEITHER, Standing.WORSE, Standing.NOT_TESTED)
        )
        if level:
            first, verdict = max(level, key=lambda pair: pair[1].difference or 0.0)
            names = [row.label for row, _ in level if row is not first]
            more = f"; {some(names, NAMED)}" if names else ""
            lines.append((Standing.NEITHER, f"level: {first.label} {short(verdict)}{more}"))
        if worse:
            names = [f"{row.label} {short(verdict)}" for row, verdict in worse]
            lines.append((Standing.WORSE, f"{MARKS[Standing.WORSE]} {some(names, 3)}"))
        if silent:
            names = [row.label for row, _ in silent]
            lines.append((Standing.NOT_TESTED, f"{MARKS[Standing.NOT_TESTED]} not tested: {some(names, NAMED)}"))
        return Use(self.place(column), tuple(lines))

    def winner(self) -> tuple[BenchmarkRow, str] | None:
        """The method to take, and the column in which it is better.

        One that loses on no set goes before one that loses on a single shifted set, and that before one that loses in
        another column; of those that lose alike, what is better at home goes before what is better under shift.
        """
        pairs = [(row, column) for column in self.columns for row, _ in self.told(column, Standing.BETTER)[:1]]
        return min(pairs, key=lambda pair: self.harm(*pair), default=None)


def _headline(table: Compared, standing: Standing) -> str:
    """One line, use by use: who is better and by how much, or that nobody is."""
    parts = []
    named = False
    for column in table.columns:
        better = table.told(column, Standing.BETTER)
        if better:
            parts.append(f"{table.place(column)} {table.phrase(*better[0], column)}")
        elif any(word(row.verdict(table.reference, column)) != Standing.NOT_TESTED for row in table.rows):
            beats = "is shown to beat" if table.flattered(column) else "beats"
            parts.append(f"{table.place(column)} none {beats} {'it' if named else table.against}")
            named = True
    if not parts:
        why = next((v.why for row in table.rows for v in table.verdicts(row) if v.why), "")
        return f"{MARKS[Standing.NOT_TESTED]} not tested against {table.against}" + (f": {why}" if why else "")
    if not any(table.told(column, Standing.BETTER) for column in table.columns):
        beats = "is shown to beat" if any(map(table.flattered, table.columns)) else "beats"
        places = " or ".join(map(table.place, table.columns))
        return f"{MARKS.get(standing, '')} no method {beats} {table.against} {places}".lstrip()
    ending = "" if named else f"; against {table.against}"
    return f"{MARKS.get(standing, '')} {'; '.join(parts)}{ending}".lstrip()


def _flattered(verdict: Verdict) -> bool:
    """Whether a gain was seen only on the data that chose the merge, which show none."""
    return verdict.family == Family.SELECTION and verdict.better


def _stands(verdict: Verdict) -> Standing | None:
    """How a method stands on a set; None where only the data that chose it say that it is better."""
    return None if _flattered(verdict) else word(verdict)


def _price(row: BenchmarkRow) -> tuple[float, float, float]:
    """What a method costs, by which the cheapest is found: per sample first, then once."""
    return row.inference_cost, row.forward_equivalents, row.seconds


def _needs(row: BenchmarkRow) -> str:
    passes = f", {row.inference_cost} passes a sample" if row.inference_cost > 1 else ""
    count = round(row.forward_equivalents)
    return f"{count:,} held-out pass{'' if count == 1 else 'es'}, {row.seconds:.1f} s{passes}"


def _cost(table: Compared) -> str:
    """What the method to take costs, and the cheapest one with the same verdicts."""
    best = table.winner()
    if best is None:
        column = table.columns[0] if table.columns else ""
        level = [row for row, _ in table.told(column, Standing.NEITHER) if not table.losses(row, column)]
        if not level:
            return ""
        cheap = min(level, key=_price)
        return f"the cheapest that loses nothing: {cheap.label} ({_needs(cheap)})"
    row, column = best
    alike = [other for other, _ in table.told(column, Standing.BETTER) if _same(table, other, row)]
    cheap = min(alike, key=_price)
    if cheap is row:
        rest = "; none with the same verdicts is cheaper" if len(alike) > 1 else ""
        return f"{row.label}: {_needs(row)}{rest}"
    verdict = cheap.verdict(table.reference, column)
    shown = f" {short(verdict)}" if verdict is not None else ""
    return f"{row.label}: {_needs(row)}; the cheapest with the same verdicts: {cheap.label}{shown} ({_needs(cheap)})"


def _same(table: Compared, one: BenchmarkRow, other: BenchmarkRow) -> bool:
    """Whether two methods stand alike in every column, and on every single shifted set."""
    columns = [*table.columns, *table.found.shifts]
    pairs = ((one.verdict(table.reference, c), other.verdict(table.reference, c)) for c in columns)
    return all(word(mine) == word(theirs) for mine, theirs in pairs)


def _decision(table: Compared, standing: Standing) -> str:
    """Says which method's merge to take, or that the reference is to be kept."""
    best = table.winner()
    if table.found.state is not RunState.FINISHED:
        return "not decided yet: the benchmark is not finished"
    if best is None and table.found.doubt:
        return "not decided: a model is no better than a guess"
    if best is None:
        return "not decided: not tested" if standing == Standing.NOT_TESTED else f"keep {table.against}"
    row, column = best
    what = "ensemble" if row.inference_cost > 1 else "merge"
    return (
        f"take the {what} by {row.label}{f', for data {table.place(column)} alone' if table.harm(row, column) else ''}"
    )


def _next(table: Compared) -> tuple[str, ...]:
    """What to do now."""
    best = table.winner()
    if table.found.state is not RunState.FINISHED:
        what = "the run by `resume`" if table.found.run else _BENCHMARK
        return (f"go on with {what}",)
    if best is None and table.found.doubt:
        return ("first find out why a model is no better than a guess (advice), and run it again",)
    if best is None:
        return (f"keep {table.against}",)
    row, column = best
    where = f" `partitioner={row.partitioner}`" if row.partitioner else ""
    own = "" if row.label == row.strategy else " and the options of its row"
    only = f", for data {table.place(column)} alone" if table.harm(row, column) else ""
    return (f"write it{only}: merge run `strategy={row.strategy}`{where}, same models{own}",)


def _advice(
    found: Benchmark,
    rows: Sequence[BenchmarkRow],
    table: Compared | None,
    standing: Standing = Standing.NOT_TESTED,
) -> tuple[str, ...]:
    """Where a merge cannot help, and where the answer is uncertain."""
    averages = {row.label: row.held_out for row in found.rows if row.strategy == "uniform" and row.held_out is not None}
    scores = [single.held_out for single in found.singles if single.held_out is not None]
    told = [found.doubt] if found.doubt else []
    told += basins(averages, scores, found.measure, found.samples.get(HELD_OUT, 0))
    single = [row for row in rows if row.strategy != "best" and row.inference_cost == 1 and len(row.ingredients) == 1]
    for row in single:
        verdict = None if table is None else row.verdict(table.reference, HELD_OUT)
        if row.held_out is not None and verdict is not None and verdict.family == Family.SELECTION:
            above = [o.label for o in rows if (o.held_out or row.held_out) > row.held_out and len(o.ingredients) > 1]
            told.append(alone(row.label, row.ingredients[0], above))
            break
    if table is not None:
        verdicts = [table.verdicts(row) for row in rows]
        told += untested([verdict for own in verdicts for verdict in own], found.state)
        nearest = max(verdicts, key=lambda own: max((v.difference or 0.0 for v in own), default=0.0))
        told += few(nearest, standing)
    return tuple(told)
