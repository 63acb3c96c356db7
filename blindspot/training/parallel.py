"""The processes of a run, and a variant on their devices.

Weights are float32 in shards (FSDP2), blocks are gathered in bfloat16, activations recomputed where that is asked for.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from blindspot.errors import UserError
from blindspot.rendezvous import Ranks, join_ranks, own_gpu
from blindspot.training.config import TrainConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
EXACT = "rotation.frequencies"
"""Learned rotary frequencies: in bfloat16 an angle at column 30 would be wrong by a tenth of a radian."""

_COSTLY = re.compile(r"aten\.(mm|addmm|bmm|_scaled_dot_product_(flash|efficient|cudnn)_attention(_for_cpu)?)\.default")
ALONE = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; without it, this one is alone. Inside another, it is the same.

    Sums and objects travel over gloo, tensors of a GPU over nccl.
    """
    device = torch.device(own_gpu() or "cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with join_ranks(backend, device, always=True) as ranks:
        yield ranks


def place(objective: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
    """Put the objective on this rank's device, in the config's precision, sharded (FSDP2) over all ranks or a group.

    A trained weight is kept in float32, a frozen one in the dtype that it is computed in. In bfloat16, a single process
    is sharded too: gathering is what casts the weights. Which parameters of the objective, a module with a ``variant``
    on the CPU, train is settled before; ``train`` is called on it.
    """
    body: Any = objective.variant.model  # pyright: ignore[reportAttributeAccessIssue]
    gated = list(body.multi_modal_projector.blocks) if body.gated else []
    tower = body.vision_tower.get_submodule(body.parts.encoder.blocks)
    blocks: list[Any] = [*body.language_model.layers, *gated, *tower]
    if config.checkpointing != "none":
        contexts: dict[str, Any] = {}
        if config.checkpointing == "selective":
            contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_costly)
        for block in blocks:
            if hasattr(block, "gradient_checkpointing"):
                block.gradient_checkpointing = True
                block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, **contexts)
    dtype = DTYPES[config.precision]
    mesh = None
    if ranks.world > 1 or config.precision != "fp32":
        size = config.shard_size or ranks.world
        if ranks.world % size:
            raise UserError(f"shard_size {size} does not divide the {ranks.world} processes")
        copies: dict[str, Any] = {} if size == ranks.world else {"mesh_dim_names": ("copies", "shards")}
        shape = (ranks.world // size, size) if copies else (size,)  # neighbours share one, as GPUs of a node do
        mesh = init_device_mesh(ranks.device.type, shape, **copies)
    for module in [objective] if mesh is None else [*blocks, objective]:
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point() and not hasattr(parameter, "device_mesh"):  # not sharded yet
                exact = parameter.requires_grad or name.endswith(EXACT)
                parameter.data = parameter.data.to(torch.float32 if exact else dtype)
        if mesh is None:
            objective.to(ranks.device)
            break
        policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
        if dtype == torch.float32:
            policy = MixedPrecisionPolicy()
        elif module is not objective and any(name.endswith(EXACT) for name, _ in module.named_parameters()):
            policy = MixedPrecisionPolicy(torch.float32, reduce_dtype=torch.float32, output_dtype=dtype)
        fully_shard(module, mesh=mesh, mp_policy=policy)
    if config.compile:
        torch._dynamo.config.recompile_limit = 64  # blocks of every kind share one wrapped forward; beyond it: eager
        for block in blocks:
            block.forward = torch.compile(block.forward)
    objective.train()


def _keep_costly(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = _COSTLY.fullmatch(str(operation)) or "varlen_attn" in str(operation)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def whole_state(objective: nn.Module) -> dict[str, torch.Tensor]:
    """Every weight of the variant on the CPU, on the first rank; nothing on the others. All ranks have to call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(objective, options=options)
    return {name.removeprefix("variant."): tensor for name, tensor in state.items()}
