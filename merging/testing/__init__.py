"""Contract tests for plug-ins, and the tiny real problem that they run on.

A plug-in's own tests subclass the contract of its kind and supply one fixture; pytest does the rest::

    from merging.testing import StrategyContract

    class TestMine(StrategyContract):
        @pytest.fixture
        def plugin(self):
            return Mine(tau=0.9)

Needs pytest, which ``pip install 'merging[dev]'`` brings.
"""

from merging.testing.fixtures import TinyNet, blobs, tiny_pool, tiny_problem, tiny_task
from merging.testing.objectives import ObjectiveContract
from merging.testing.optimizers import OptimizerContract
from merging.testing.partitioners import PartitionerContract
from merging.testing.plugins import PluginContract
from merging.testing.strategies import StrategyContract

__all__ = [
    "ObjectiveContract",
    "OptimizerContract",
    "PartitionerContract",
    "PluginContract",
    "StrategyContract",
    "TinyNet",
    "blobs",
    "tiny_pool",
    "tiny_problem",
    "tiny_task",
]
