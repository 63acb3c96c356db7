"""The processes of a run, and a variant on their devices.

Weights are float32 in shards (FSDP2), blocks are gathered in bfloat16, activations recomputed where that is asked for.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from blindspot.errors import UserError
from blindspot.meeting import meet
from blindspot.training.config import TrainConfig

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


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number.
        world: how many there are.
        device: where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, entry by entry."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """What every rank has, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """What the first rank has."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def first_does(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns on the first rank, which alone does it; its `UserError` is every rank's."""
        found, problem = None, None
        if self.first:
            try:
                found = work()
            except UserError as error:
                problem = str(error)
        found, problem = self.from_first((found, problem))
        if problem:
            raise UserError(problem)
        return found


ALONE = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; without it, this one is alone. Inside another, it is the same.

    Sums and objects travel over gloo, tensors of a GPU over nccl.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local + 1} on this machine has no GPU; start {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    mine = not dist.is_initialized()
    if mine:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if "WORLD_SIZE" in os.environ:
            store, rank, world = meet()
            dist.init_process_group(backend, store=store, rank=rank, world_size=world)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if mine:
            dist.destroy_process_group()


def place(objective: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
    """Put the objective on this rank's device, in the config's precision, sharded (FSDP2) over all ranks or a group.

    A trained weight is kept in float32, a frozen one in the dtype that it is computed in. In bfloat16, a single process
    is sharded too: gathering is what casts the weights. Calls ``train`` on the objective.

    Args:
        objective: on the CPU; which of its parameters train is settled.
        config: for precision, recomputation, compilation and the size of a group.
        ranks: the processes.
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


def whole_state(objective: nn.Module) -> dict[str, torch.Tensor]:
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
