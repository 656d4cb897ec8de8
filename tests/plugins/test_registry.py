"""Registries: no name is taken twice, near names are suggested, plug-in files are run once."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

import merging
from merging.errors import MergingError, NameTakenError, UnknownNameError
from merging.plugins.discovery import FOLDERS, load_all, load_file
from merging.plugins.registry import PLUGINS, Registry, strategies

load_all()


def registry() -> Registry[type]:
    fresh: Registry[type] = Registry("strategy", "merging.strategies")

    @fresh.register("greedy")
    class Greedy:
        pass

    @fresh.register("best")
    class Best:
        pass

    return fresh


def test_names_iterate_sorted() -> None:
    fresh = registry()
    assert list(fresh) == ["best", "greedy"]
    assert len(fresh) == 2
    assert "best" in fresh
    assert fresh["best"].name == "best"  # type: ignore[attr-defined]


def test_a_taken_name_is_refused_and_nothing_overwritten() -> None:
    fresh = registry()
    before = fresh["best"]

    class Other:
        pass

    with pytest.raises(NameTakenError, match=r"'best' of .*Other is already registered by .*Best"):
        fresh.register("best")(Other)
    assert fresh["best"] is before
    assert fresh.register("best")(before) is before  # the same class again is no conflict


def test_near_names_are_suggested() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown strategy 'gredy'; did you mean 'greedy'\?"):
        registry()["gredy"]
    with pytest.raises(UnknownNameError, match="known: best, greedy"):
        registry()["zzz"]


def test_everything_built_in_is_found() -> None:
    assert load_all() == ()
    root = Path(merging.__file__).parent
    for (kind, found), place in zip(PLUGINS.items(), FOLDERS, strict=True):
        package = f"merging.{place}"
        folder = root / place.replace(".", "/")
        modules = {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
        assert {found[name].__module__ for name in found if found[name].__module__.startswith("merging.")} == modules, (
            kind
        )


PLUGIN = """
from dataclasses import dataclass
from merging.plugins.strategy import MixStrategy
from merging.plugins.registry import strategies

@strategies.register("{name}")
@dataclass(frozen=True)
class Mine(MixStrategy):
    def mix(self, problem):
        return problem.single(0)
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten afterwards."""
    monkeypatch.setattr(strategies, "_classes", dict(strategies._classes))


@pytest.mark.usefixtures("registered")
def test_a_file_registers_what_it_defines_once(tmp_path: Path) -> None:
    name, file = f"mine-{uuid.uuid4().hex}", tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name=name))
    load_file(file)
    load_file(file)
    assert strategies[name].__name__ == "Mine"


@pytest.mark.usefixtures("registered")
def test_a_file_with_a_taken_name_is_refused(tmp_path: Path) -> None:
    load_all()
    (tmp_path / "taken.py").write_text(PLUGIN.format(name="uniform"))
    with pytest.raises(NameTakenError, match="'uniform'"):
        load_file(tmp_path / "taken.py")


@pytest.mark.parametrize(("content", "word"), [("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError")])
def test_a_failing_file_is_named_with_its_cause(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(MergingError, match=rf"broken\.py failed: {word}"):
        load_file(tmp_path / "broken.py")
    with pytest.raises(MergingError, match="no such file"):
        load_file(tmp_path / "nowhere.py")
