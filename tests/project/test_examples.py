"""The examples work as a user meets them: installed, listed, run, and held to their own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PACKAGES = (EXAMPLES / "merging-median", EXAMPLES / "merging-sinks")


def run(arguments: list[str | Path], folder: Path, path: Path | None = None) -> str:
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "100"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``pip install`` put the example packages."""
    target, copies = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        for file in (*package.glob("*.*"), *package.glob("src/**/*.py")):
            place = copies / file.relative_to(EXAMPLES)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target]
    run([*install, *(copies / package.name for package in PACKAGES)], target)
    return target


def test_the_installed_package_is_a_strategy_like_any_other(site: Path, pool_folder: Path, tmp_path: Path) -> None:
    listed = run(["merging", "list"], tmp_path, site)
    assert all(f"\n  {name} " in listed for name in ("median", "wandb", "mlflow"))
    assert "merging_median" in run(["merging", "describe", "median", "--json"], tmp_path, site)
    pattern = f"{pool_folder}/model_*.safetensors"
    run(["merging", "run", "--strategy", "median", "--models", pattern, "--output", "out"], tmp_path, site)
    assert (tmp_path / "out/model.safetensors").is_file()


def test_the_packages_pass_their_own_tests(site: Path, tmp_path: Path) -> None:
    tests = [package / "tests" for package in PACKAGES]
    told = run(["pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", tmp_path, *tests], tmp_path, site)
    assert "passed" in told
    assert "skipped" not in told or not os.environ.get("MERGING_DEV_FULL"), told


def test_the_form_of_data_is_listed_and_tested(tmp_path: Path) -> None:
    file = EXAMPLES / "torch_file.py"
    assert "torch-file" in run(["merging", "list", "--plugin", file], tmp_path)
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, EXAMPLES / "test_torch_file.py"]
    assert "passed" in run(tests, tmp_path)


def test_the_single_file_is_listed_run_and_tested(pool_folder: Path, tmp_path: Path) -> None:
    file = EXAMPLES / "single_file.py"
    assert "softmax-soup" in run(["merging", "list", "--plugin", file], tmp_path)
    task = ["--task", "python:merging.testing.fixtures:tiny_task", "--models", f"{pool_folder}/model_*.safetensors"]
    chosen = ["--strategy", "softmax-soup", "-o", "strategy.temperature=0.05", "--output", "out"]
    run(["merging", "run", "--plugin", file, *task, *chosen], tmp_path)
    assert (tmp_path / "out/recipe.json").is_file()
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, EXAMPLES / "test_single_file.py"]
    assert "passed" in run(tests, tmp_path)
