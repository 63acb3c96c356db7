"""Putting a variant on its devices: float32 weights in shards, blocks gathered in bfloat16, activations recomputed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from blindspot.errors import UserError
from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.loss import Objective
from blindspot.training.distributed.ranks import Ranks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
EXACT = "rotation.frequencies"
"""Learned rotary frequencies: in bfloat16 an angle at column 30 would be wrong by a tenth of a radian."""

_COSTLY = tuple(
    getattr(torch.ops.aten, name).default
    for name in (
        "mm",
        "addmm",
        "bmm",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


def place(objective: Objective, config: TrainConfig, ranks: Ranks) -> None:
    """Put the objective on this rank's device, in the config's precision, sharded (FSDP2) over all ranks or a group.

    A trained weight is kept in float32, a frozen one in the dtype that it is computed in. In bfloat16, a single process
    is sharded too: gathering is what casts the weights. Calls ``train`` on the objective.

    Args:
        objective: on the CPU; which of its parameters train is settled.
        config: for precision, recomputation, compilation and the size of a group.
        ranks: the processes.

    Raises:
        UserError: if the size of a group does not divide the number of ranks.
    """
    blocks = blocks_of(objective.variant)
    if config.checkpointing != "none":
        recompute(blocks, selective=config.checkpointing == "selective")
    dtype = DTYPES[config.precision]
    if ranks.world > 1 or config.precision != "fp32":
        mesh = _mesh(config.shard_size, ranks)
        for block in blocks:
            _cast(block, dtype)
            fully_shard(block, mesh=mesh, mp_policy=_policy(block, dtype))
        _cast(objective, dtype)
        fully_shard(objective, mesh=mesh, mp_policy=_policy(None, dtype))
    else:
        _cast(objective, dtype)
        objective.to(ranks.device)
    if config.compile:
        torch._dynamo.config.recompile_limit = 64  # blocks of every kind share one wrapped forward; beyond it: eager
        for block in blocks:
            block.forward = torch.compile(block.forward)
    objective.train()


def _mesh(shard_size: int | None, ranks: Ranks) -> DeviceMesh:
    """All ranks in one row, or a row for every copy of the weights: neighbours share one, as GPUs of a node do."""
    size = shard_size or ranks.world
    if ranks.world % size:
        raise UserError(f"shard_size {size} does not divide the {ranks.world} processes")
    if size == ranks.world:
        return init_device_mesh(ranks.device.type, (size,))
    return init_device_mesh(ranks.device.type, (ranks.world // size, size), mesh_dim_names=("copies", "shards"))


def blocks_of(variant: Any) -> list[Any]:
    """Transformer blocks: those of the language model, of gated cross-attention and of the tower."""
    body = variant.model
    gated = list(body.multi_modal_projector.blocks) if body.gated else []
    tower = body.vision_tower.get_submodule(body.parts.encoder.blocks)
    return [*body.language_model.layers, *gated, *tower]


def recompute(blocks: list[Any], selective: bool) -> None:
    """Let blocks keep their input only and compute the rest again, or all but matrix products and attention."""
    contexts: dict[str, Callable[[], Any]] = {}
    if selective:
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_costly)
    for block in blocks:
        if hasattr(block, "gradient_checkpointing"):
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, **contexts)


def _keep_costly(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operation in _COSTLY or "varlen_attn" in str(operation)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def whole_state(objective: Objective) -> dict[str, torch.Tensor]:
    """Every weight of the variant on the CPU, on the first rank; nothing on the others. All ranks have to call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(objective, options=options)
    return {name.removeprefix("variant."): tensor for name, tensor in state.items()}


def _policy(block: nn.Module | None, dtype: torch.dtype) -> MixedPrecisionPolicy:
    if dtype == torch.float32:
        return MixedPrecisionPolicy()
    if block is not None and any(name.endswith(EXACT) for name, _ in block.named_parameters()):
        return MixedPrecisionPolicy(torch.float32, reduce_dtype=torch.float32, output_dtype=dtype)
    return MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights that are not sharded yet: float32 if they train."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not hasattr(parameter, "device_mesh"):
            exact = parameter.requires_grad or name.endswith(EXACT)
            parameter.data = parameter.data.to(torch.float32 if exact else dtype)
