"""Pages that are asked for: ``--page`` of a run, and ``--open`` wherever there is a page, in a browser of the test."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import merging
from merging.benchmarking.rendering import forms
from merging.cli.showing import opening
from merging.errors import FolderError, OptionError
from merging.storage import journal
from merging.storage.lock import Lock
from merging.testing import tiny_pool
from tests.conftest import TASK, Merge
from tests.killed import killed_at

PUBLISHED = Path(__file__).parents[1] / "published"
Opened = Callable[[], list[Path]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Opened:
    """A browser that writes down what it is given, and prints where a result may be; and what it was given."""
    del own_cache
    browser, given = tmp_path / "browser.sh", tmp_path / "given"
    browser.write_text(f'#!/bin/sh\necho "$1" >> "{given}"\necho chatter; echo chatter >&2\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    return lambda: (
        [Path(unquote(urlparse(line).path)) for line in given.read_text().splitlines()] if given.exists() else []
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pool_folder: Path) -> Path:
    """A folder with a scored run and one without a task."""
    folder = tmp_path_factory.mktemp("finished")
    pool = merging.ModelPool.open([pool_folder / "model_*.safetensors"])
    merging.merge(pool, "uniform", task=TASK, baselines=False, pool_tests=False, output=folder / "scored")
    merging.merge(pool, "uniform", output=folder / "plain")
    return folder


@pytest.fixture
def runs(merge: Merge, finished: Path) -> Path:
    """A copy of it, in the working folder."""
    del merge
    shutil.copytree(finished, "runs")
    return Path("runs")


def _is_page(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return text.lstrip().startswith("<!doctype html>") and text.rstrip().endswith("</html>")


def test_a_run_writes_its_page_and_opens_it(merge: Merge, tiny: list[str], opened: Opened) -> None:
    command = [*tiny, "--strategy", "greedy", "--no-pool-tests", "--output", "my run"]
    ran = merge(*command, "--page")
    assert ran.code == 0, ran.err
    page = Path("my run/report.html")
    assert _is_page(page)
    assert "The page: my run/report.html" in ran.out
    assert opened() == [], "it was to be written"
    text = page.read_text(encoding="utf-8")
    assert "greedy on blobs" in text
    assert 'id="search"' in text, "the search, from the journal"
    assert merge(*command, "--overwrite").code == 0
    assert not page.exists(), "the page of the run that was replaced is gone with it"
    ran = merge(*command, "--overwrite", "--open", "--json")
    assert json.loads(ran.out)["page"] == str(page.resolve()), "what a browser prints is not in the result"
    assert opened() == [page.resolve()]
    assert "my run/report.html (opened in your browser)" in ran.err
    assert "report.html" not in json.loads(ran.out)["files"], "what is pushed to the Hub has no page"


def test_a_run_that_goes_on_has_the_page_that_it_was_asked_for(merge: Merge, tiny: list[str], opened: Opened) -> None:
    del opened
    Path("merge.toml").write_text("[run]\npage = true\nstrategy = 'greedy'\npool_tests = false\n")
    ran = merge(*tiny, "--max-evaluations", "7", "--output", "run")
    assert ran.code == 0, ran.err
    first = Path("run/report.html").read_bytes()
    assert b"--max-evaluations 7 reached" in first
    again = ["run", "--resume", "run", "--trust-code", "--max-evaluations", "100"]
    ran = merge(*again)
    assert ran.code == 0, ran.err
    assert Path("run/report.html").read_bytes() != first
    assert merge(*again, "--no-page").code == 0
    assert not Path("run/report.html").exists()
    assert merge(*again, "--page").code == 0
    assert _is_page(Path("run/report.html"))
    assert merge(*tiny, "--no-page", "--output", "other").code == 0
    assert not Path("other/report.html").exists()
    Path("mine").mkdir()
    Path("mine/report.html").write_text("mine")
    ran = merge(*tiny, "--output", "mine", "--overwrite")
    assert (ran.code, Path("mine/report.html").read_text()) == (2, "mine")
    assert "was not written by a run and is not overwritten" in ran.err


def test_a_page_is_whole_or_not_there(tmp_path: Path) -> None:
    merging.merge(tiny_pool(tmp_path / "pool"), "uniform", output=tmp_path / "run")
    run, page = merging.load_run(tmp_path / "run"), tmp_path / "run/report.html"
    for old in (False, True):
        number, killed = 0, True
        while killed:
            number += 1
            killed = killed_at(number, lambda: forms.write_page(run), tmp_path / "run")
            assert page.exists() >= old
            assert not page.exists() or _is_page(page)
        assert page.exists()
    with Lock(tmp_path / "run"), pytest.raises(FolderError, match="another run is writing"):
        forms.write_page(run)
    report = json.loads((tmp_path / "run/report.json").read_bytes())
    (tmp_path / "run/report.json").write_text(json.dumps(report | {"content_hash": "0" * 64}))
    before = page.read_bytes()
    with pytest.raises(FolderError, match="holds another run by now"):
        forms.write_page(run)
    assert page.read_bytes() == before
    with pytest.raises(OptionError, match="written to no folder"):
        forms.write_page(merging.merge(tiny_pool(tmp_path / "pool"), "uniform"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "README.md", journal.FILE, "model.safetensors", "recipe.json", "report.html", "report.json",
    ]  # fmt: skip


def test_a_report_opens_a_page_of_what_is_compared(merge: Merge, runs: Path, opened: Opened, own_cache: Path) -> None:
    ran = merge("report", "runs", "--open")
    assert ran.code == 0, ran.err
    (page,) = opened()
    assert page.parent == own_cache / "pages"
    assert _is_page(page)
    assert f"page: {page} (opened in your browser)" in ran.err
    assert merge("report", "runs", "--open", "--json").out == merge("report", "runs", "--json").out
    assert opened() == [page, page], "the same folders, the same page"
    assert merge("report", "runs/scored", "--open").code == 0
    assert "uniform on blobs" in opened()[-1].read_text(encoding="utf-8")
    assert merge("report", "runs", "--output", "all", "--open").code == 0
    assert opened()[-1] == Path("all/benchmark.html").resolve()
    assert Path("all/benchmark-2.csv").is_file(), "the run without a task stands apart"
    files = sorted(PUBLISHED.glob("*_results.jsonl"))
    ran = merge("report", "runs", "--published", *files, "--open", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)["apart"][0]
    assert (told["task"], len(told["rows"])) == ("ImageNet, published results", 5)
    assert len(opened()) == 5
    assert merge("cache", "--clear").code == 0
    assert not page.exists()


def test_all_runs_below_are_on_one_page(merge: Merge, runs: Path, opened: Opened) -> None:
    shutil.copytree(runs / "plain", runs / "cut")
    (runs / "cut/report.json").unlink()
    ran = merge("runs", "--open")
    assert ran.code == 0, ran.err
    assert ran.out == merge("runs").out
    assert "runs/cut is left out: the run in runs/cut has no result yet" in ran.err
    text = opened()[0].read_text(encoding="utf-8")
    assert "uniform on blobs" in text
    assert merge("runs", "runs/cut", "--open").code == 2
    Path("nothing").mkdir()
    ran = merge("runs", "nothing", "--open")
    assert (ran.code, len(opened())) == (0, 1)


def test_a_benchmark_opens_its_page(merge: Merge, tiny: list[str], opened: Opened) -> None:
    ran = merge("benchmark", *tiny[1:], "--strategies", "best,uniform", "--no-singles", "--output", "found", "--open")
    assert ran.code == 0, ran.err
    assert opened() == [Path("found/benchmark.html").resolve()]


@pytest.mark.parametrize("browser", [None, "gone", "false"])
def test_where_nothing_can_be_opened_the_path_is_said(
    merge: Merge, runs: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, browser: str | None
) -> None:
    del runs, own_cache
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(Path.cwd()))  # no text browser either
    if browser is not None:
        monkeypatch.setenv("BROWSER", browser)
    ran = merge("report", "runs/plain", "--open")
    assert ran.code == 0
    assert "not opened: " in ran.err
    page = Path(ran.err.partition("page: ")[2].partition(" (")[0])
    assert _is_page(page)


def test_only_the_last_pages_are_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(opening.KEPT + 3):
        path = opening.kept_page(f"page {number}", f"folder {number}")
        os.utime(path, (time.time() - 1000 + number,) * 2)
    assert len(list((own_cache / "pages").iterdir())) == opening.KEPT
    assert opening.kept_page("again", f"folder {number}") == path
    assert path.read_text() == "again"
    monkeypatch.setenv("MERGING_CACHE", str(path))
    with pytest.raises(FolderError, match="cannot write a page"):
        opening.kept_page("x", "y")
