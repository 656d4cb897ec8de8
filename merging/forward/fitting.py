"""Whether a pool fits a module, and which tensors its outputs depend on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from merging.errors import MergingError, PoolError, TaskError, raised
from merging.forward.device import batch_for, on_device
from merging.forward.numerics import Numerics
from merging.forward.stages import Watch
from merging.plugins.task import Task
from merging.storage.pool import ModelPool


def check_fits(module: nn.Module, pool: ModelPool) -> None:
    """Raises PoolError unless the module's state dict has exactly the pool's tensors."""
    state, where = module.state_dict(), pool.checkpoints[0].path
    missing = [name for name in state if name not in pool.tensors]
    extra = [name for name in pool.tensors if name not in state]
    if missing or extra:
        said = [f"the model needs '{missing[0]}' ({len(missing)} such)"] if missing else []
        said += [f"the checkpoints have '{extra[0]}', which it does not know ({len(extra)} such)"] if extra else []
        raise PoolError(f"{where} does not fit the task's model: {'; '.join(said)}")
    for name, tensor in state.items():
        if tuple(tensor.shape) != pool.tensors[name][0]:
            raise PoolError(
                f"{where} does not fit the task's model: tensor '{name}' is {list(pool.tensors[name][0])}, "
                f"the model's is {list(tensor.shape)}"
            )


def untouched(module: nn.Module, inputs: Tensor) -> tuple[frozenset[str], torch.Size]:
    """Tensors that cannot reach a logit: no gradient after backward through the logits' sum, and never read as buffer.

    Structure, not value: a gradient that happens to be zero still counts as touched. Weights need not be sensible.

    Args:
        module: the model, in evaluation mode; left as it was.
        inputs: a small batch, as the model takes it.

    Returns:
        The names, and the shape of the logits.
    """
    state = module.state_dict(keep_vars=True)
    wanted = {name: p.requires_grad for name, p in module.named_parameters()}
    watch = Watch(dict(module.named_buffers(remove_duplicate=False)))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.grad = None
    reached = set[int]()

    def reach(parameter: Tensor) -> None:
        reached.add(id(parameter))
        parameter.grad = None  # so that never more than one is in memory

    hooks = [p.register_post_accumulate_grad_hook(reach) for p in module.parameters() if p.requires_grad]
    with torch.enable_grad(), watch:
        logits = module(inputs)
        check_logits(logits)
        logits.float().sum().backward()
    touched = watch.seen | {
        name for name, tensor in state.items() if isinstance(tensor, nn.Parameter) and id(tensor) in reached
    }
    for hook in hooks:
        hook.remove()
    for name, parameter in module.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(wanted[name])
    return frozenset(name for name in state if name not in touched), logits.shape


class NoLogitsError(TypeError):
    """A model gives something else than a tensor."""


def check_logits(output: object) -> None:
    """Refuses what a model gives instead of logits, and says the way out.

    Raises:
        NoLogitsError: it is no tensor.
    """
    if isinstance(output, Tensor):
        return
    kind = type(output).__name__
    if isinstance(output, list | tuple):
        kind = f"{kind} of {len(output)}"
    elif isinstance(output, Mapping):
        kind = f"{kind} with {', '.join(map(str, list(output)[:3]))}"
    raise NoLogitsError(
        f"the model gives a {kind}, not a tensor of logits; wrap it in a module whose forward returns the logits alone"
    )


def probe(module: nn.Module, task: Task, numerics: Numerics) -> Collection[str]:
    """Runs two samples through the model: finds the inert tensors, and whether model and data fit at all.

    Raises:
        TaskError: the model fails on the held-out data, or gives something else than logits.
    """
    try:
        two = task.held_out.inputs[:2]
        sample = batch_for(task, two, numerics.device)
        idle, shape = untouched(on_device(module.eval(), numerics.device).float(), sample)
    except NoLogitsError as error:
        raise TaskError(f"task '{task.name}': {error}") from None
    except MergingError:
        raise
    except Exception as error:  # a user's model or data may raise anything
        reason = raised(error)
        raise TaskError(f"task '{task.name}': the model cannot take the held-out data ({reason})") from error
    if len(shape) != 2 or shape[0] != len(two):
        raise TaskError(f"task '{task.name}': the model gives {list(shape)} for {len(two)} samples, not (N, classes)")
    return idle
