"""What the tests of benchmarks and their pages share."""

from pathlib import Path

import pytest

from merging.benchmarking.rendering.figures import Figure, figure
from merging.benchmarking.rendering.pictures import drawings
from merging.benchmarking.results import Benchmark
from tests.benchmarking.pools_of_bits import empty


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results with a page and a protocol, and no record."""
    return empty(tmp_path)


@pytest.fixture(scope="session")
def digits() -> Benchmark:
    """A real benchmark: five methods on the digits, two of which have coefficients to look at."""
    return Benchmark.read(Path(__file__).parents[2] / "docs/results/digits/compared")


@pytest.fixture(scope="session")
def figures(digits: Benchmark) -> dict[str, Figure]:
    """Its pictures, as a page shows them."""
    return {name: figure(drawing, name)[1] for name, drawing in drawings(digits).items()}
