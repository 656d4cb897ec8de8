"""Merging fine-tuned models into one better model, with pluggable strategies.

>>> import merging
>>> task = merging.load_task("digits")
>>> task.pool().names[:2]
('model_00', 'model_01')

and then ``merging.merge(task.pool(), merging.ManifoldMix(), partitioner=merging.ClipC8(), task=task)``.

Names are imported on first use: ``import merging`` alone loads neither torch nor any backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merging.benchmarking.rendering.forms import render as render
    from merging.benchmarking.results import Benchmark as Benchmark
    from merging.benchmarking.runner import benchmark as benchmark
    from merging.errors import MergingError as MergingError
    from merging.looking.geometry import Geometry as Geometry
    from merging.looking.inspection import Inspection as Inspection
    from merging.looking.inspection import inspect_module as inspect_module
    from merging.looking.inspection import inspect_pool as inspect_pool
    from merging.looking.interpolation import interpolate as interpolate
    from merging.looking.scoring import evaluate as evaluate
    from merging.models.catalogue import model_source as model_source
    from merging.objectives.accuracy import Accuracy as Accuracy
    from merging.objectives.nll import NegativeLogLikelihood as NegativeLogLikelihood
    from merging.optimizers.coordinate import Coordinate as Coordinate
    from merging.optimizers.nevergrad import Nevergrad as Nevergrad
    from merging.optimizers.nevergrad import NevergradCobyla as NevergradCobyla
    from merging.optimizers.nevergrad import NevergradReference as NevergradReference
    from merging.optimizers.optuna import Optuna as Optuna
    from merging.optimizers.random import Random as Random
    from merging.optimizers.scipy_cobyla import ScipyCobyla as ScipyCobyla
    from merging.optimizers.scipy_cobyqa import ScipyCobyqa as ScipyCobyqa
    from merging.partitioners.block import Block as Block
    from merging.partitioners.clip import ClipC8 as ClipC8
    from merging.partitioners.clip import ClipC15 as ClipC15
    from merging.partitioners.clip import ClipC26 as ClipC26
    from merging.partitioners.custom import Custom as Custom
    from merging.partitioners.layer import Layer as Layer
    from merging.partitioners.whole import Whole as Whole
    from merging.plugins.objective import Objective as Objective
    from merging.plugins.optimizer import Optimizer as Optimizer
    from merging.plugins.optimizer import Search as Search
    from merging.plugins.options import option as option
    from merging.plugins.partitioner import Partitioner as Partitioner
    from merging.plugins.problem import Problem as Problem
    from merging.plugins.progress import Progress as Progress
    from merging.plugins.progress import Silent as Silent
    from merging.plugins.strategy import MixStrategy as MixStrategy
    from merging.plugins.task import Split as Split
    from merging.plugins.task import Task as Task
    from merging.running.run import Result as Result
    from merging.running.run import merge as merge
    from merging.storage.checkpoint import Checkpoint as Checkpoint
    from merging.storage.pool import ModelPool as ModelPool
    from merging.strategies.best import Best as Best
    from merging.strategies.ensemble import OutputEnsemble as OutputEnsemble
    from merging.strategies.fisher import Fisher as Fisher
    from merging.strategies.greedy import Greedy as Greedy
    from merging.strategies.greedy_ensemble import GreedyEnsemble as GreedyEnsemble
    from merging.strategies.learned import Learned as Learned
    from merging.strategies.manifoldmix import ManifoldMix as ManifoldMix
    from merging.strategies.swa import Swa as Swa
    from merging.strategies.uniform import Uniform as Uniform
    from merging.strategies.wise_ft import WiseFt as WiseFt
    from merging.tasks.catalogue import load_task as load_task
    from merging.training.finetune import finetune as finetune
    from merging.training.hyperparameters import Sweep as Sweep
    from merging.training.regime import Regime as Regime
    from merging.values.outcome import Outcome as Outcome
    from merging.values.outcome import Solution as Solution
    from merging.values.partition import Component as Component
    from merging.values.partition import Partition as Partition
    from merging.values.recipe import Ensemble as Ensemble
    from merging.values.recipe import Recipe as Recipe
    from merging.values.recipe import Weights as Weights
    from merging.values.report import Report as Report
    from merging.values.statistics import compare as compare

_HOMES = {
    "benchmarking.rendering.forms": "render",
    "benchmarking.results": "Benchmark",
    "benchmarking.runner": "benchmark",
    "errors": "MergingError",
    "looking.geometry": "Geometry",
    "looking.inspection": "Inspection inspect_module inspect_pool",
    "looking.interpolation": "interpolate",
    "looking.scoring": "evaluate",
    "models.catalogue": "model_source",
    "objectives.accuracy": "Accuracy",
    "objectives.nll": "NegativeLogLikelihood",
    "optimizers.coordinate": "Coordinate",
    "optimizers.nevergrad": "Nevergrad NevergradCobyla NevergradReference",
    "optimizers.optuna": "Optuna",
    "optimizers.random": "Random",
    "optimizers.scipy_cobyla": "ScipyCobyla",
    "optimizers.scipy_cobyqa": "ScipyCobyqa",
    "partitioners.block": "Block",
    "partitioners.clip": "ClipC15 ClipC26 ClipC8",
    "partitioners.custom": "Custom",
    "partitioners.layer": "Layer",
    "partitioners.whole": "Whole",
    "plugins.objective": "Objective",
    "plugins.optimizer": "Optimizer Search",
    "plugins.options": "option",
    "plugins.partitioner": "Partitioner",
    "plugins.problem": "Problem",
    "plugins.progress": "Progress Silent",
    "plugins.strategy": "MixStrategy",
    "plugins.task": "Split Task",
    "running.run": "Result merge",
    "storage.checkpoint": "Checkpoint",
    "storage.pool": "ModelPool",
    "strategies.best": "Best",
    "strategies.ensemble": "OutputEnsemble",
    "strategies.fisher": "Fisher",
    "strategies.greedy": "Greedy",
    "strategies.greedy_ensemble": "GreedyEnsemble",
    "strategies.learned": "Learned",
    "strategies.manifoldmix": "ManifoldMix",
    "strategies.swa": "Swa",
    "strategies.uniform": "Uniform",
    "strategies.wise_ft": "WiseFt",
    "tasks.catalogue": "load_task",
    "training.finetune": "finetune",
    "training.hyperparameters": "Sweep",
    "training.regime": "Regime",
    "values.outcome": "Outcome Solution",
    "values.partition": "Component Partition",
    "values.recipe": "Ensemble Recipe Weights",
    "values.report": "Report",
    "values.statistics": "compare",
}
_LAZY = {name: (f"merging.{home}", name) for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'merging' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
