"""What the tests of benchmarks and their pages share."""

from pathlib import Path

import pytest

from tests.benchmarking.pools_of_bits import empty


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results with a page and a protocol, and no record."""
    return empty(tmp_path)
