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
from merging.testing.forms import DataFormContract
from merging.testing.models import ModelSourceContract
from merging.testing.objectives import ObjectiveContract
from merging.testing.optimizers import OptimizerContract
from merging.testing.partitioners import PartitionerContract
from merging.testing.plugins import PluginContract
from merging.testing.regimes import RegimeContract
from merging.testing.sinks import SinkContract
from merging.testing.strategies import StrategyContract
from merging.testing.tasks import TaskContract

__all__ = [
    "DataFormContract",
    "ModelSourceContract",
    "ObjectiveContract",
    "OptimizerContract",
    "PartitionerContract",
    "PluginContract",
    "RegimeContract",
    "SinkContract",
    "StrategyContract",
    "TaskContract",
    "TinyNet",
    "blobs",
    "tiny_pool",
    "tiny_problem",
    "tiny_task",
]
