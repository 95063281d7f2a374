"""A model too large for one device: parameters, gradients and optimizer state in shards (FSDP2).

Each rank keeps its part of every parameter, gradient and optimizer state; the whole of a block is
gathered for its forward and its backward only. Checkpoints hold whole tensors, gathered one at a
time to the first rank by ``torch.distributed.checkpoint.state_dict`` and written to the same single
file as by one process: so a run goes on with any number of ranks, sharded or not, and every other
command reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from memfit.errors import UsageError
from memfit.memory.tape.tape import Part
from memfit.planner.plan import Plan
from memfit.recipe.recipe import Recipe
from memfit.torch_inside import own_parameters

__all__ = [
    "blocks_of",
    "check_shardable",
    "full_model_state",
    "full_optimizer_state",
    "load_model_state",
    "load_optimizer_state",
    "plan_of_shards",
    "shard",
]


def check_shardable(recipe: Recipe, memory_bytes: int | None, device: torch.device) -> None:
    """Refuse what does not go together with shards.

    Raises:
        UsageError: names it.
    """
    if recipe.compile:
        raise UsageError("--shard and --compile do not go together.", hint="Leave one out.")
    if recipe.precision == "amp-fp16":
        raise UsageError(
            "--shard does not train in amp-fp16: a loss scale for each rank would be needed.",
            hint="Take --precision amp-bf16, which needs no scale.",
        )
    if memory_bytes is not None and device.type == "cpu":
        raise UsageError("--memory counts whole tensors on the CPU, not shards.")


def shard(model: nn.Module, device: torch.device) -> None:
    """Split a model's parameters over all ranks, in place, and move it to the device.

    Gathered together are the members of each list of blocks (``nn.Sequential``,
    ``nn.ModuleList``), and what is left, as ``torch.distributed.fsdp.fully_shard`` (2.15)
    recommends. A block that shares a parameter with another stays with what is left.

    Args:
        model: the same on all ranks.
        device: of this rank.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The largest parts of a model that are called as a whole and share no parameter.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
        >>> blocks_of(model) == [model[0], model[2]]
        True
    """
    found = list(_members(model))
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in own_parameters(module).values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [
        block
        for block in found
        if not any(owners[id(parameter)] > 1 for parameter in block.parameters())
    ]


def _members(module: nn.Module) -> Iterator[nn.Module]:
    is_list = isinstance(module, (nn.Sequential, nn.ModuleList))
    for child in module.children():
        if next(child.parameters(), None) is None:
            continue
        if is_list and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield child
        else:
            yield from _members(child)


def plan_of_shards(plan: Plan, model: nn.Module, world_size: int) -> Plan:
    """The plan with as much more room on the card as splitting saves, to choose a micro-batch by.

    Of parameters, gradients and optimizer state each rank has one part in ``world_size``. Whole
    are, at most, the parameters of two blocks (the one that computes and the next, which FSDP2
    gathers ahead; ``torch/distributed/fsdp/_fully_shard``, 2.15) and the gradients of one.

    Args:
        plan: of whole tensors, for a card.
        model: sharded or not.
        world_size: number of ranks.
    """
    assert plan.gpu is not None
    parts = plan.at(2).parts  # not 1: batch norm may need two values
    whole = sum(parts[part] for part in (Part.PARAMETERS, Part.GRADIENTS, Part.OPTIMIZER))
    groups = [list(block.parameters()) for block in blocks_of(model)]
    in_blocks = {id(parameter) for group in groups for parameter in group}
    groups.append([p for p in model.parameters() if id(p) not in in_blocks])
    gathered = 3 * max(sum(p.numel() * p.element_size() for p in group) for group in groups)
    saved = max(0, whole - whole // world_size - gathered)
    card = plan.gpu.with_free_bytes(plan.gpu.usable_bytes + saved)
    return plan.on(card)


# -- checkpoints -----------------------------------------------------------------------------------


def full_model_state(model: nn.Module) -> dict[str, Any]:
    """The whole state dict on the first rank's host, nothing on the others; all ranks call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)


def full_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """As ``optimizer.state_dict()`` without shards: on the first rank; all ranks call it.

    ``torch.distributed.checkpoint`` calls parameters by name, an optimizer by number.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    named: Any = get_optimizer_state_dict(model, optimizer, options=options)
    if not named:
        return {}
    return _renamed(named, {name: i for i, name in enumerate(_names(model, optimizer))})


def load_model_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Take this rank's part of a whole state dict."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Take this rank's part of a whole ``optimizer.state_dict()``."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    if not state["state"]:  # SGD without momentum: DCP (torch 2.15) does not load nothing
        optimizer.load_state_dict(dict(state))
        return
    named: Any = _renamed(state, dict(enumerate(_names(model, optimizer))))
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, named, options=options)


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state dict that calls its parameters otherwise."""
    return {
        "state": {names[each]: value for each, value in state["state"].items()},
        "param_groups": [
            group | {"params": [names[each] for each in group["params"]]}
            for group in state["param_groups"]
        ],
    }
