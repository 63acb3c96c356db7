"""LLaVA's optimiser over what trains: AdamW without weight decay, with the moments in float32 or in bfloat16."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.loss import Objective

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adamw(objective: Objective, config: TrainConfig, device: torch.device) -> Optimizer:
    """The optimiser of a run; the image encoder's weights are a group of their own if they have a rate of their own.

    Args:
        objective: placed on its device; which of its parameters train is settled.
        config: for the rates and the dtype of the moments.
        device: where it computes.
    """
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "peak": config.lr}]
    if config.encoder_lr is not None:
        tower = {id(parameter) for parameter in objective.variant.model.vision_tower.parameters()}
        groups = [
            {"params": [one for one in trained if id(one) not in tower], "peak": config.lr},
            {"params": [one for one in trained if id(one) in tower], "peak": config.encoder_lr},
        ]
    if config.optimiser_states == "bf16":
        return HalfAdamW([group for group in groups if group["params"]])
    fused = device.type == "cuda"
    return AdamW([group for group in groups if group["params"]], betas=BETAS, weight_decay=0.0, fused=fused)


def update(optimiser: Optimizer, share: float) -> None:
    """Take the step at this share of the peak rates, and forget the gradients."""
    for group in optimiser.param_groups:
        group["lr"] = share * group["peak"]
    optimiser.step()
    optimiser.zero_grad()


class HalfAdamW(Optimizer):
    """AdamW without weight decay whose moments are kept in bfloat16: 4 bytes a weight instead of 8.

    Moments are computed in float32 and rounded up or down at random, so that on average nothing is lost. Rounded to the
    nearest, a second moment would never shrink: a step takes a thousandth of it, and a bfloat16 resolves 1 in 256.
    Random bits come from torch's generator of the weights' device, which the loop seeds anew at every step.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change every weight that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group["lr"])

    def _step(self, parameter: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        count, (first, second) = state["step"].item(), BETAS
        weight, gradient, *moments = (
            _local(tensor) for tensor in (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        )
        mean = moments[0].float().lerp_(gradient, 1 - first)
        square = moments[1].float().mul_(second).addcmul_(gradient, gradient, value=1 - second)
        for kept, exact in zip(moments, (mean, square), strict=True):
            kept.copy_(round_at_random(exact))
        deviation = square.div_(1 - second**count).sqrt_().add_(EPSILON)
        weight.addcdiv_(mean, deviation, value=-rate / (1 - first**count))


def round_at_random(exact: Tensor) -> Tensor:
    """float32 -> bfloat16, up or down with the chance that makes the mean exact."""
    noise = torch.randint(0, 1 << 16, exact.shape, dtype=torch.int32, device=exact.device)
    bits = exact.contiguous().view(torch.int32) + noise
    return (bits & -(1 << 16)).view(torch.float32).to(torch.bfloat16)


def _local(tensor: Any) -> Tensor:
    """This rank's shard, which is a view, or the tensor itself where nothing is sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
