"""Writes the figures of docs/trust.md again, from the committed records.

    python docs/renew_trust.py            the page, from the records as they are
    python docs/renew_trust.py --check    whether the page is that; the code is 1 where it is not
    python docs/renew_trust.py --run      first counts the tests and runs a short campaign of each kind, anew

Records are docs/*.json and the golden files of tests; docs/trust.json is this program's own: tests of each wing, and
what the short campaigns found, with machine, date and revision. The long campaigns have programs of their own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGE, OWN = DOCS / "trust.md", DOCS / "trust.json"
SHORT = {
    "durability": ["-m", "benchmarks.durability", "--kills", "1", "--cuts", "1", "--writers", "1", "--output"],
    "pixels": ["-m", "benchmarks.pixels", "--library", "torchvision", "--jobs", "1", "--no-list", "--json"],
}
"""Campaign → the program of a short one, which ends with the flag of its file."""
BLOCK = re.compile(r"(?<=<!-- figures: )(?P<name>[a-z-]+)(?P<mark> -->\n)(?P<text>.*?)(?=<!-- end -->)", re.DOTALL)


def record(name: str) -> Any:
    """A committed record, by its path below the repository."""
    return json.loads((ROOT / name).read_text("utf-8"))


def summary() -> str:
    """The table at the top: subject, promise, how it is tried, and the last figure."""
    faults, pixels = record("docs/workers-faults.json")["rows"], record("docs/pixels.json")["libraries"]
    durable, causal = record("docs/durability.json"), record("docs/causal-models.json")
    trace = record("tests/published/manifoldmix_c8_trace.json")
    kinds, examples = fuzzed()
    tried = {kind: sum(each["times"] for each in durable[kind].values()) for kind in ("kills", "cuts", "writers")}
    lost = sum(len(each["lost"]) for kind in tried for each in durable[kind].values())
    rows = [
        (
            "[kills, power cuts, two at once](#kills-power-cuts-two-at-once)",
            "what is finished is there; what was killed goes on to the same bits",
            "five commands, at random moments",
            f"{tried['kills']} kills, {tried['cuts']} cuts, {tried['writers']} pairs: {lost} lost",
        ),
        (
            "[workers killed](#workers-killed)",
            "whatever dies, journal, recipe and model have the bits of one process",
            "SIGKILL to workers, programs and nodes of Ray",
            f"{sum(row['times'] for row in faults)} runs, {sum(row['killed'] for row in faults)} processes killed: "
            f"{sum(len(row['lost']) for row in faults)} lost",
        ),
        (
            "[damaged files](#damaged-and-hostile-files)",
            "it works, or is one clear line; never a traceback",
            "files cut, flipped and rewritten by hypothesis",
            f"{kinds} kinds of file, {examples:,} of each in every whole run of the tests",
        ),
        (
            "[hostile files](../SECURITY.md)",
            "no code is run, nothing is fetched, names do nothing",
            "files made to do it, under an audit hook",
            f"{tests('tests/cli/test_strangers.py', 'tests/models/test_consent.py')} + "
            f"{tests('tests/cli/test_hostile_names.py')} tests",
        ),
        (
            "[the authors' program](#parity)",
            "profile `reference` decides as the published run did",
            "its log replayed, candidate by candidate",
            f"{len(trace['candidates'])} of {len(trace['candidates'])} decisions",
        ),
        (
            "[mergekit](#parity)",
            "the same file gives the same model, within a rounding",
            "golden outputs of its own programs",
            f"{len(list((ROOT / 'tests/mergekit/configurations').glob('*.yml')))} configurations, "
            f"{len(record('tests/strategies/mergekit/mergekit.json')['configs'])} methods' settings, "
            f"{len(record('tests/models/vocabularies/mergekit.json')['configs'])} of vocabularies",
        ),
        (
            "[pixels](#pixels)",
            "a model sees what its library would show it",
            "every image model that the libraries list",
            f"{sum(row['equal'] for row in pixels)} of {sum(row['settings'] for row in pixels)} settings equal to the "
            f"bit ({sum(row['models'] for row in pixels):,} models), {sum(row['differ'] for row in pixels)} differ, "
            f"{sum(row['refused'] for row in pixels)} refused",
        ),
        (
            "[language models](#pixels)",
            "log-likelihoods and gradients are those of transformers",
            "each architecture, small, with random weights",
            f"{len(causal['architectures'])} architectures, loss within {causal['worst']['loss']:.1e}",
        ),
        (
            "[bits](#bits-across-environments)",
            "same inputs, versions and seed: the same bits on a CPU",
            "another process, hash seed, number of workers; before and after a change of structure",
            "tests alone: no record across processors is committed",
        ),
    ]
    return table(["subject", "promise", "how it is tried", "last figure"], rows)


def durability() -> str:
    """A line a command: tried and lost, of each kind."""
    found = record("docs/durability.json")
    kinds = [kind for kind in ("kills", "cuts", "writers") if kind in found]
    rows = []
    for name in found["kills"]:
        each = [found[kind][name] for kind in kinds]
        rows.append((f"`{name}`", *(f"{of['times']}, {len(of['lost'])}" for of in each)))
    said = {"kills": "kills, lost", "cuts": "power cuts, lost", "writers": "two at once, lost"}
    kills = sum(each["times"] for each in found["kills"].values())
    bound = f"\nNone lost of {kills} kills still allows one in {int(1 / (1 - 0.05 ** (1 / kills)))} (at 95 %).\n"
    return table(["command", *(said[kind] for kind in kinds)], rows) + (bound if found["lost"] == 0 else "")


def workers() -> str:
    """A line a case: runs, processes killed, lost."""
    rows = record("docs/workers-faults.json")["rows"]
    shown = [(row["disturbed"], row["times"], row["killed"], len(row["lost"])) for row in rows]
    return table(["method, what is killed", "runs", "killed", "lost"], shown)


def pixels() -> str:
    """A line a library, and the versions."""
    found = record("docs/pixels.json")
    names = ("library", "models", "settings", "pictures", "equal", "differ", "refused", "alone", "largest")
    heads = [*names[:-2], "of which the library takes", "largest difference, grey levels"]
    rows = [tuple(row[name] for name in names) for row in found["libraries"]]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{table(heads, rows)}\nWith {versions}.\n"


def short() -> str:
    """What the last short campaigns found, and how long they took."""
    own = record("docs/trust.json")
    rows = [(f"`python {' '.join(SHORT[name][:2])}`", of["seconds"], of["found"]) for name, of in own["short"].items()]
    where = f"{own['made']['date']}, revision {own['made']['revision']}, Python {own['made']['python']}, "
    where += f"{own['made']['machine']}.\n"
    if not rows:
        return f"None has been run whole; the tests were counted on {where}"
    return f"{table(['short campaign', 'seconds', 'found'], rows)}\n{where}"


def counted() -> str:
    """Tests by wing."""
    own = record("docs/trust.json")["tests"]
    by_wing = Counter[str]()
    for file, count in own.items():
        by_wing[file.split("/")[1] if file.startswith("tests/") else "doctests and contracts"] += count
    rows = [(f"`{wing}`" if " " not in wing else wing, f"{count:,}") for wing, count in sorted(by_wing.items())]
    return f"{table(['wing', 'tests'], rows)}\n{sum(own.values()):,} tests in {len(own):,} files.\n"


FIGURES = {
    "summary": summary,
    "durability": durability,
    "workers": workers,
    "pixels": pixels,
    "short": short,
    "tests": counted,
}


def tests(*files: str) -> int:
    """How many tests files hold."""
    own = record("docs/trust.json")["tests"]
    return sum(own[file] for file in files)


def fuzzed() -> tuple[int, int]:
    """Kinds of file that are damaged at random, and how often each is in one run of the tests."""
    text = (ROOT / "tests/cli/test_fuzz.py").read_text("utf-8")
    often = re.search(r"max_examples=(\d+)", text)
    if often is None:
        raise SystemExit("tests/cli/test_fuzz.py no longer says how many examples it draws")
    return len(re.findall(r"^@thousand$", text, re.MULTILINE)), int(often[1])


def table(heads: list[str], rows: list[tuple[Any, ...]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *[[str(cell) for cell in row] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page() -> str:
    """The page as it should be."""
    return BLOCK.sub(lambda of: f"{of['name']}{of['mark']}{FIGURES[of['name']]()}", PAGE.read_text("utf-8"))


def called(*words: str) -> str:
    """Output of a Python program of this checkout.

    Raises:
        SystemExit: it fails; nothing is recorded then.
    """
    said = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, env=said, capture_output=True, text=True)  # noqa: S603 (ours)
    if ran.returncode:
        raise SystemExit(f"python {' '.join(words)} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"[-2000:])
    return ran.stdout


def collected() -> dict[str, int]:
    """File → its tests, as pytest finds them here."""
    listed = re.findall(r"^([\w./-]+\.py)::", called("-m", "pytest", "--collect-only", "-q", "-n", "0"), re.MULTILINE)
    return dict(sorted(Counter(listed).items()))


def campaign(name: str) -> dict[str, Any]:
    """Runs a short campaign; its seconds, and what it found in words."""
    with tempfile.TemporaryDirectory() as folder:
        began, file = time.perf_counter(), Path(folder) / "found.json"
        called(*SHORT[name], str(file))
        found = json.loads(file.read_text("utf-8"))
    return {"seconds": round(time.perf_counter() - began), "found": WORDS[name](found)}


def _durability(found: dict[str, Any]) -> str:
    kinds = [kind for kind in ("kills", "cuts", "writers") if kind in found]
    times = [f"{sum(each['times'] for each in found[kind].values())} {kind}" for kind in kinds]
    return f"{', '.join(times)}: {found['lost']} lost"


def _pixels(found: dict[str, Any]) -> str:
    (row,) = found["libraries"]
    return f"{row['equal']} of {row['settings']} settings equal to the bit, {row['differ']} differ"


WORDS = {"durability": _durability, "pixels": _pixels}


def renew() -> None:
    """Counts the tests and runs the short campaigns; keeps what they found."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    made = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "revision": revision,
        "python": platform.python_version(),
        "machine": f"{platform.system()}, {platform.machine()}",
    }
    found = {"made": made, "short": {name: campaign(name) for name in SHORT}, "tests": collected()}
    OWN.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def main() -> None:
    """Renews the page, or checks it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is stale")
    parser.add_argument("--run", action="store_true", help="count the tests and run the short campaigns first")
    asked = parser.parse_args()
    if asked.run:
        renew()
    new = page()
    if asked.check and new != PAGE.read_text("utf-8"):
        raise SystemExit("docs/trust.md is not what the records say; run python docs/renew_trust.py")
    if not asked.check:
        PAGE.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
