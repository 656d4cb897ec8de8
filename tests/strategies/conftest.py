"""What several tests of strategies need."""

from __future__ import annotations

import pytest

from merging.storage.pool import ModelPool
from merging.testing import tiny_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    """Five tiny models and their base."""
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=5)
