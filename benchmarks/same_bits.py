"""Whether a change of the code changes results: the same commands before and after it, compared byte for byte.

``python -m benchmarks.same_bits --before REVISION``: four strategies and a benchmark on the digits, once with the
package of that revision and once with the working tree's. Recipe and model must be the same bytes; report, journal and
the benchmark's results the same values, but for times and memory. Ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.revision import ROOT, unpack

STRATEGIES = ("manifoldmix", "learned", "greedy", "ties")
EXPECTED = 4 * len(STRATEGIES)
"""Files at least: of each strategy recipe (ties has none), model, report and journal, and of the benchmark one."""
METHODS = "best,uniform,greedy,manifoldmix,learned"
BYTES = ("recipe.json", "model.safetensors")
VALUES = ("report.json", "events.jsonl", "benchmark.json")
MEASURED = {"seconds", "wall_seconds", "time", "peak_memory_bytes", "started"}
"""What two runs of the same code measure differently."""


def main() -> None:
    """Makes both, compares, prints a line a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, metavar="REVISION", help="what the working tree is compared with")
    before = parser.parse_args().before
    with tempfile.TemporaryDirectory() as folder:
        old = unpack(before, Path(folder) / "code")
        for name, code in (("before", old), ("after", ROOT)):
            make(code, Path(folder) / "work").rename(Path(folder) / name)  # one path, since recipes name files
        before_it, after_it = Path(folder) / "before", Path(folder) / "after"
        lines = list(compared(before_it, after_it))
    if len(lines) < EXPECTED:
        sys.exit(f"only {len(lines)} files to compare, not {EXPECTED}: the commands wrote too little")
    sys.exit(0 if all(line.startswith("same") for line in lines) else 1)


def make(code: Path, output: Path) -> Path:
    """All commands, with one tree's package, on one copy of the pool."""
    output.mkdir()
    shutil.copytree(ROOT / "merging" / "tasks" / "digits_pool", output / "pool")
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MERGING_CACHE": str(output / "c"),
    }
    commands = [["run", "--strategy", strategy, "--output", strategy] for strategy in STRATEGIES]
    commands.append(["benchmark", "--strategies", METHODS, "--output", "benchmark"])
    pool = [
        "--task",
        "digits",
        "--partitioner",
        "clip-c8",
        "--models",
        "pool/model_*.safetensors",
        "--base",
        "pool/base.safetensors",
    ]
    where = [sys.executable, "-c", "import merging; print(merging.__file__)"]
    found = subprocess.run(where, cwd=output, env=environment, capture_output=True, encoding="utf-8", check=True).stdout  # noqa: S603
    if not Path(found.strip()).is_relative_to(code):
        raise SystemExit(f"{found.strip()} is imported instead of the package in {code}")
    for command in commands:
        done = subprocess.run(  # noqa: S603 (this interpreter, our own package)
            [sys.executable, "-m", "merging", *command, *pool],
            cwd=output,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise SystemExit(f"{code}: merge {' '.join(command)}\n{done.stderr}")
    return output


def compared(before: Path, after: Path) -> Iterator[str]:
    """A line for each file of the earlier results that the change may not change."""
    places = {path.relative_to(side) for side in (before, after) for path in side.rglob("*")}
    for place in sorted(place for place in places if place.name in (*BYTES, *VALUES)):
        digests = [digest(side / place) if (side / place).is_file() else "missing" for side in (before, after)]
        line = f"{'same' if digests[0] == digests[1] else 'DIFFERENT'}  {digests[0][:16]}  {place}"
        print(line, flush=True)
        yield line


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes, or of its values without what is measured."""
    if file.name in BYTES:
        return sha256(file.read_bytes()).hexdigest()
    text = file.read_text("utf-8")
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    return sha256(json.dumps([kept(json.loads(line)) for line in lines]).encode()).hexdigest()


def kept(value: Any) -> Any:
    """A JSON value without what is measured."""
    if isinstance(value, dict):
        return {key: kept(part) for key, part in value.items() if key not in MEASURED}
    return [kept(part) for part in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
