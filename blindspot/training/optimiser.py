"""Muon for the matrices, AdamW for the rest, one learning rate.

At miniature scale Muon is what makes the study fit into minutes: in the exploratory runs, at equal steps, it read
four-way relations at .95 where AdamW alone reached .64.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class BatchedMuon(Optimizer):
    """Muon (Jordan et al. 2024) with all matrices of one shape orthogonalised together.

    ``torch.optim.Muon`` goes through the matrices one by one, which costs a small model three times as long. The update
    is the same: Nesterov momentum, five Newton-Schulz steps in bfloat16, and the step scaled by sqrt(max(1, rows /
    columns)).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), alike in shapes.items():
                step_size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(alike, self._update(alike, group["momentum"]), strict=True):
                    parameter.add_(update, alpha=-step_size)

    def _update(self, alike: list[Tensor], momentum: float) -> Iterable[Tensor]:
        nesterov: list[Tensor] = []
        for parameter in alike:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            buffer = state["momentum"].lerp_(parameter.grad, 1 - momentum)
            nesterov.append(parameter.grad.lerp(buffer, momentum))
        return orthogonalise(torch.stack(nesterov)).unbind()


def orthogonalise(matrices_nrc: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values are brought to between about 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices_nrc.shape[1] > matrices_nrc.shape[2]
    x_nrc = (matrices_nrc.mT if tall else matrices_nrc).bfloat16()
    x_nrc = x_nrc / x_nrc.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram_nrr = x_nrc @ x_nrc.mT
        polynomial_nrr = torch.baddbmm(gram_nrr, gram_nrr, gram_nrr, beta=b, alpha=c)
        x_nrc = torch.baddbmm(x_nrc, polynomial_nrr, x_nrc, beta=a)
    return (x_nrc.mT if tall else x_nrc).to(matrices_nrc.dtype)


def optimisers(module: nn.Module, lr: float) -> list[Optimizer]:
    """Muon for the weight matrices of linear layers, AdamW for every other trainable parameter."""
    matrices = {
        id(part.weight)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and "lm_head" not in name
    }
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inner = [parameter for parameter in trainable if id(parameter) in matrices]
    outer = [parameter for parameter in trainable if id(parameter) not in matrices]
    adam = torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [BatchedMuon(inner, lr), adam] if inner else [adam]
