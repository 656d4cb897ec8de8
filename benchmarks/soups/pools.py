"""Which pools there are, which are missing, and what keeps them from supporting a claim."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.soups.design import POOLS, planned, seeds
from benchmarks.soups.record import Record
from benchmarks.soups.statistics import AGAINST, CANDIDATE, LEAST, finished
from merging.values.markdown import plain

CONFIRMATION, REPLICATION, FURTHER = PARTS = ("confirmation", "replication", "further")


class Refused(click.ClickException):
    """A mistake in what was given, in one line."""

    exit_code = 2


@dataclass(frozen=True)
class Pools:
    """All records, and the protocol as it stands.

    Attributes:
        records: in the order of their names.
        protocol: SHA-256 of the protocol's page; None where there is none.
        own: of the families that have a page of their own its SHA-256.
    """

    records: tuple[Record, ...]
    protocol: str | None
    own: Mapping[str, str] = field(default_factory=dict)

    def otherwise(self, record: Record) -> bool:
        """Whether a record was made under another protocol than its family's page as it stands."""
        return record.protocol != self.own.get(record.family, self.protocol)

    @property
    def families(self) -> tuple[str, ...]:
        """Those of the protocol first."""
        return tuple(dict.fromkeys((*LEAST, *sorted(record.family for record in self.records))))

    @property
    def groups(self) -> dict[tuple[str, str], list[Record]]:
        """Family and part → records, of those that have some."""
        found = {(family, part): self.group(family, part) for part in PARTS for family in self.families}
        return {key: records for key, records in found.items() if records}

    def group(self, family: str, part: str) -> list[Record]:
        """The records of a family and part."""
        return [record for record in self.records if (record.family, record.part) == (family, part)]

    @property
    def plan(self) -> list[str]:
        """Names of all planned pools, of every list that a record has; without records those of the protocol."""
        return list(dict.fromkeys(name for record in self.records for name in record.planned)) or list(planned())

    def planned(self, family: str, part: str) -> list[str]:
        """Names of a family's planned pools of a part."""
        return [name for name in self.plan if self._place(name) == (family, part)]

    def _place(self, name: str) -> tuple[str, str]:
        """Family and part of a planned pool; one that the protocol does not know confirms, rather than is forgotten."""
        if name in POOLS:
            return POOLS[name].family, POOLS[name].part
        known = {record.name: (record.family, record.part) for record in self.records}
        return known.get(name, (name.partition("-")[0], CONFIRMATION))

    def missing(self, family: str, part: str) -> list[str]:
        """Names of a family's planned pools of a part that have no record."""
        there = {record.name for record in self.group(family, part)}
        return [name for name in self.planned(family, part) if name not in there]

    def obstacles(self, family: str) -> list[str]:
        """Why a family's pools support no claim; none: they do."""
        records, least = self.group(family, CONFIRMATION), LEAST.get(family)
        missing, found = self.missing(family, CONFIRMATION), []
        if missing:
            found.append(f"interim: {len(records)} of {len(records) + len(missing)} pools")
        if least is None:
            found.append("the protocol has no rule for this family")
        elif len(records) < least:
            found.append(f"too few pools ({len(records)}, at least {least})")
        if len({record.protocol for record in records}) > 1:
            found.append("pools of different protocols")
        if len({record.planned for record in records}) > 1:
            found.append("pools whose lists of planned pools differ")
        if unplanned := [record.name for record in records if record.name not in record.planned]:
            found.append("pools that were not planned: " + ", ".join(map(plain, unplanned)))
        if strangers := self.strangers():
            found.append("planned pools of no known family: " + ", ".join(map(plain, strangers)))
        if drifted := [record.name for record in records if self._drifted(record)]:
            found.append("pools that are not drawn as the protocol says: " + ", ".join(map(plain, drifted)))
        if any(record.name in names for names in self.alike() for record in records):
            found.append("pools of the same models")
        return found

    def strangers(self) -> list[str]:
        """Names of planned pools that begin with no known family, so that nothing would miss them."""
        return [name for name in self.plan if self._place(name)[0] not in self.families]

    def _drifted(self, record: Record) -> bool:
        """Whether a pool of the protocol has another family, part, seed or list of seeds than the protocol gives it."""
        if record.name not in POOLS:
            return False
        pool, listed = POOLS[record.name], seeds()
        drawn = (record.family, record.part, record.seed) == (pool.family, pool.part, pool.seed)
        return not drawn or any(listed.get(name, own) != own for name, own in record.seeds.items())

    def alike(self) -> list[list[str]]:
        """Names of pools whose models have the same samples right: one pool under several names."""
        found: dict[tuple[str, ...], list[str]] = {}
        for record in self.records:
            if record.models:
                bits = tuple(model.correct[name] for model in record.models for name in sorted(record.samples))
                found.setdefault(bits, []).append(record.name)
        return [names for names in found.values() if len(names) > 1]

    def testable(self, family: str, part: str) -> bool:
        """Whether there are enough pools for an interval over them."""
        return len(self.group(family, part)) >= LEAST.get(family, 1 << 30)

    def notes(self) -> list[str]:
        """What a reader has to know before any figure: protocols, plans, pools and methods that are missing."""
        return [*self._protocols(), *self._plans(), *self._missing(), *self._methods()]

    def _protocols(self) -> list[str]:
        other: dict[tuple[str, str | None], list[str]] = {}
        for record in filter(self.otherwise, self.records):
            now = self.own.get(record.family, self.protocol)
            other.setdefault((record.protocol, now), []).append(plain(record.name))
        found = []
        for (digest, now), names in sorted(other.items()):
            is_now = "there is no docs/results/protocol.md" if now is None else f"it is {now[:12]} now"
            found.append(f"**Another protocol** ({plain(digest[:12]) or 'none'}; {is_now}): {', '.join(names)}.")
        return found

    def _plans(self) -> list[str]:
        plans: dict[tuple[str, ...], list[str]] = {}
        for record in self.records:
            plans.setdefault(tuple(sorted(record.planned)), []).append(plain(record.name))
        found = []
        if len(plans) > 1:
            usual = max(plans, key=lambda plan: len(plans[plan]))
            found += [
                f"**Another list of planned pools** ({len(plan)} pools, {len(usual)} in most records): "
                f"{', '.join(names)}."
                for plan, names in plans.items()
                if plan != usual
            ]
        bound = [record for record in self.records if record.part != FURTHER]
        if unplanned := [plain(record.name) for record in bound if record.name not in record.planned]:
            found.append(f"**Not planned**: {', '.join(unplanned)}.")
        if strangers := self.strangers():
            found.append(f"**Planned pools of no known family**: {', '.join(map(plain, strangers))}.")
        if drifted := [plain(record.name) for record in self.records if self._drifted(record)]:
            found.append(f"**Not drawn as the protocol says** (family, part or seeds): {', '.join(drifted)}.")
        found += [f"**The same models**: {', '.join(map(plain, names))}." for names in self.alike()]
        return found

    def _missing(self) -> list[str]:
        found = []
        for part in PARTS:
            for family in self.families:
                if names := self.missing(family, part):
                    planned = len(self.planned(family, part))
                    told = ", ".join(map(plain, names))
                    found.append(f"**Missing pools** ({part}, {plain(family)}, {len(names)} of {planned}): {told}.")
        return found

    def _methods(self) -> list[str]:
        lacking: dict[str, list[str]] = {}
        failed: dict[str, list[str]] = {}
        for record in self.records:
            if names := [name for name in (CANDIDATE, *AGAINST) if record.method(name) is None]:
                lacking.setdefault(", ".join(names), []).append(plain(record.name))
            if names := [method.name for method in record.methods if finished(record, method.name) is None]:
                failed.setdefault(", ".join(map(plain, names)), []).append(plain(record.name))
        found = [f"**Missing methods** ({names}): {', '.join(pools)}." for names, pools in lacking.items()]
        return [*found, *(f"**Failed** ({names}): {', '.join(pools)}." for names, pools in failed.items())]


def gathered(folder: Path, protocol: Path) -> Pools:
    """Reads the records of a folder.

    Raises:
        Refused: a file is no record, or has another name than its pool.
    """
    found = sorted((_read(file) for file in folder.glob("*.json")), key=lambda record: record.name)
    pages = {page.stem: hashlib.sha256(page.read_bytes()).hexdigest() for page in protocol.parent.glob("protocol*.md")}
    digest = pages.pop(protocol.stem, None)
    return Pools(tuple(found), digest, {name.removeprefix("protocol-"): own for name, own in pages.items()})


def _read(file: Path) -> Record:
    try:
        record = Record.read(file)
        if record.part not in PARTS:
            raise ValueError(f"its part is {record.part!r}, none of {', '.join(PARTS)}")
        twice = [name for name, count in Counter(each.name for each in record.methods).items() if count > 1]
        if twice:
            raise ValueError(f"it has {', '.join(twice)} twice")
        bits = [(model, name) for model in record.models for name in record.samples]
        bits += [(method, name) for method in record.methods for name in method.correct]  # what failed has none
        for scored, name in bits:
            if 8 * len(base64.b64decode(scored.correct[name], validate=True)) - record.samples[name] not in range(8):
                raise ValueError(f"{scored.name} does not have {record.samples[name]} samples of {name}")
        if file.stem != record.name:
            raise ValueError(f"it is the record of {record.name}, whose file is {record.name}.json")
        _seeded(record)
        if not record.shifts or not {"held-out", "test", *record.shifts} <= set(record.samples):
            raise ValueError("it lacks the held-out, test or shifted samples")
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # json's own is a ValueError
        said = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise Refused(f"{file} cannot be read as a record: {said}") from error
    return record


def _seeded(record: Record) -> None:
    """Checks that a record's seeds are those of its own list of pools.

    Raises:
        ValueError: they are not.
    """
    if set(record.seeds) != set(record.planned):
        raise ValueError("its seeds are not those of its planned pools")
    if record.name in record.seeds and record.seed != record.seeds[record.name]["seed"]:
        raise ValueError(f"its seed is {record.seed}, but {record.seeds[record.name]['seed']} in its list of pools")
    for model in record.models:
        number = model.name.rpartition("_")[2]
        if number.isdecimal() and model.facts.get("seed", record.seed + int(number)) != record.seed + int(number):
            raise ValueError(f"{model.name} was trained with seed {model.facts['seed']}, not {record.seed} + {number}")


def studies(folder: Path) -> list[dict[str, object]]:
    """Reads the studies of a folder, in the order of their files' names.

    Raises:
        Refused: a file is none.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            data = json.loads(file.read_bytes())
            if data["format"] != "merging-soups-study/1":
                raise ValueError(f"its format is {data['format']!r}")
            lists = (data["rows"], data["by"], data["show"])
            if not all(isinstance(each, list) for each in lists) or not isinstance(data["study"], str):
                raise ValueError("study is to be a text; rows, by and show are to be lists")
            for row in data["rows"]:
                _ = [row[key] for key in (*data["by"], *data["show"])]
        except (ValueError, TypeError, KeyError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise Refused(f"{file} cannot be read as a study: {said}") from error
        found.append(data)
    return found
