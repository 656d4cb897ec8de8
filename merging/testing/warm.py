"""What the server of other processes has loaded before it forks: torch, every back end and plug-in, and pytest.

Importing this starts no thread of Python's or OpenMP's: forking after OpenMP has begun deadlocks.
"""

import nevergrad
import pytest
import torch._dynamo  # what counting the operations of a first pass loads
import torch.utils.flop_counter

import merging.testing.fixtures
from merging.plugins.discovery import load_all

load_all()
__all__ = ["merging", "nevergrad", "pytest", "torch"]
