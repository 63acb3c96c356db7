"""One optimiser step: the same whatever number of ranks and micro-batches computes it."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blindspot.training.distributed.batches import Batch, Micro
from blindspot.training.distributed.flops import Costs
from blindspot.training.distributed.loss import Objective
from blindspot.training.distributed.ranks import Ranks


class Counts(NamedTuple):
    """Of a global batch, over all ranks.

    Attributes:
        supervised: tokens that are trained on.
        tokens: of all samples.
        room: tokens that are computed, padding and fillers included.
        operations: see `flops`.
        micros: micro-batches in which something is supervised.
    """

    supervised: float
    tokens: float
    room: float
    operations: float
    micros: float


class Gradient(NamedTuple):
    """What `differentiate` finds.

    Attributes:
        loss: of the global batch, in nats.
        norm: of the gradient, before it was cut.
        culprits: if one of these is no number: samples whose own loss is none, on any rank.
    """

    loss: float
    norm: float
    culprits: list[str]

    @property
    def finite(self) -> bool:
        """Whether both are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def count(batch: Batch, costs: Costs, patch_size: int, ranks: Ranks) -> Counts:
    """The counts of the global batch that ``batch`` is this rank's part of."""
    micros = batch.micros
    mine = Counts(
        supervised=sum(micro.supervised for micro in micros),
        tokens=sum(micro.tokens for micro in micros),
        room=sum(micro.ids_bl.numel() for micro in micros),
        operations=sum(costs.of(micro, patch_size) for micro in micros),
        micros=sum(micro.supervised > 0 for micro in micros),
    )
    return Counts(*ranks.total(mine))


def weights(loss: str, batch: Batch, counts: Counts) -> list[float]:
    """What the sum of a micro-batch's losses counts for in the loss of the step, for each of this rank's.

    Args:
        loss: see `TrainConfig`.
        batch: this rank's part of the global batch.
        counts: of the global batch.
    """
    if loss == "tokens":
        return [1 / max(counts.supervised, 1)] * len(batch.micros)
    return [1 / (max(micro.supervised, 1) * max(counts.micros, 1)) for micro in batch.micros]


def differentiate(objective: Objective, batch: Batch, weights: list[float], most: float, ranks: Ranks) -> Gradient:
    """Fill the gradients with those of the global batch's loss, cut to the norm ``most``.

    Args:
        objective: the variant with its loss.
        batch: this rank's part of the global batch.
        weights: see `weights`.
        most: see `TrainConfig.clip`.
        ranks: the processes.
    """
    losses, documents = [], []
    for micro, weight in zip(batch.micros, weights, strict=True):
        loss, document_k = objective(micro.to(ranks.device))
        (loss * (ranks.world * weight)).backward()  # sharding takes the mean over ranks, and this is a sum
        losses.append(loss.detach().double() * weight)
        documents.append(document_k)
    gradient = Gradient(ranks.total([torch.stack(losses).sum().item()])[0], _clip(objective, most), [])
    if gradient.finite:
        return gradient
    named = ranks.gather(_not_finite(batch.micros, documents))
    return gradient._replace(culprits=[name for names in named for name in names])


def _clip(objective: Objective, most: float) -> float:
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:  # of a tower's last layers, which do not run; its optimiser state is to be whole
            parameter.grad = torch.zeros_like(parameter)
    norm: Any = nn.utils.clip_grad_norm_(trained, most)
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()


def _not_finite(micros: list[Micro], documents: list[Tensor]) -> list[str]:
    return [
        name
        for micro, document_k in zip(micros, documents, strict=True)
        for name, loss in zip(micro.names, document_k.tolist(), strict=True)
        if name and not math.isfinite(loss)
    ]
