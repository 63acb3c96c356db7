"""Optimisers and schedules: the miniature's (Muon and AdamW, flat then linear) and LLaVA's (AdamW, cosine).

At miniature scale Muon is what makes the study fit into minutes: in the exploratory runs, at equal steps, it read
four-way relations at .95 where AdamW alone reached .64.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.optimizer import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
BETAS, EPSILON = (0.9, 0.999), 1e-8
Schedule = Callable[[int, int, int, float], float]
"""Step counted from 0, steps, steps of warm-up, peak -> learning rate."""


def flat_then_linear(step: int, steps: int, warmup: int, peak: float) -> float:
    """Rises linearly, is flat up to half of the steps and then falls linearly to a twentieth of its peak."""
    half = steps / 2
    decay = 1.0 if step < half else 1 - 0.95 * (step - half) / half
    return peak * min(1.0, (step + 1) / warmup) * decay


def cosine(step: int, steps: int, warmup: int, peak: float) -> float:
    """Rises linearly from 0, then falls as half a cosine to 0."""
    if step < warmup:
        return step / warmup * peak
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) * peak


def muon(module: nn.Module, lr: float) -> Sequence[Optimizer]:
    """Muon for the weight matrices of linear layers, AdamW for every other trainable parameter."""
    matrices = {
        id(part.weight)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and "lm_head" not in name
    }
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inner = [parameter for parameter in trained if id(parameter) in matrices]
    outer = [parameter for parameter in trained if id(parameter) not in matrices]
    adam = AdamW([{"params": outer, "peak": lr}], lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [BatchedMuon([{"params": inner, "peak": lr}], lr), adam] if inner else [adam]


def adamw(
    module: nn.Module, lr: float, slow: Iterable[Tensor] = (), slow_lr: float | None = None, half: bool = False
) -> Sequence[Optimizer]:
    """LLaVA's: AdamW without weight decay over what of a module trains that is placed on its device.

    ``lr`` is the peak of the rate, ``slow_lr`` that of ``slow`` parameters where it is given; ``half`` keeps the
    moments in bfloat16, see `HalfAdamW`.
    """
    apart = set() if slow_lr is None else {id(parameter) for parameter in slow}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if (id(one) in apart) == slowly], "peak": peak}
        for slowly, peak in ((False, lr), (True, slow_lr))
    ]
    groups = [group for group in groups if group["params"]]
    if half:
        return [HalfAdamW(groups)]
    return [AdamW(groups, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=trained[0].device.type == "cuda")]


def begin(optimisers: Iterable[Optimizer]) -> None:
    """Give every parameter the state that its first step would begin with, which a checkpoint can be read into."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
        for state in optimiser.state.values():
            if "step" in state:
                state["step"].zero_()


class BatchedMuon(Optimizer):
    """Muon (Jordan et al. 2024) with all matrices of one shape orthogonalised together.

    ``torch.optim.Muon`` goes through the matrices one by one, which costs a small model three times as long. The update
    is the same: Nesterov momentum, five Newton-Schulz steps in bfloat16, and the step scaled by sqrt(max(1, rows /
    columns)).
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in trained:
                if "momentum" not in self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            buffers = [self.state[parameter]["momentum"] for parameter in trained]
            gradients = [parameter.grad for parameter in trained]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
            nesterovs = torch._foreach_lerp(gradients, buffers, group["momentum"])  # pyright: ignore
            shapes: dict[tuple[int, ...], list[int]] = {}
            for place, parameter in enumerate(trained):  # a matrix and its transpose are orthogonalised alike
                shapes.setdefault(tuple(sorted(parameter.shape)), []).append(place)
            for places in shapes.values():
                wide = [nesterovs[place].T if _tall(nesterovs[place]) else nesterovs[place] for place in places]
                for place, update_rc in zip(places, orthogonalise(torch.stack(wide)).unbind(), strict=True):
                    rows, columns = trained[place].shape
                    step_size = group["lr"] * max(1.0, rows / columns) ** 0.5
                    trained[place].add_(update_rc.T if _tall(trained[place]) else update_rc, alpha=-step_size)


def _tall(matrix_rc: Tensor) -> bool:
    return matrix_rc.shape[0] > matrix_rc.shape[1]


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
        for rate, parameter in ((group["lr"], one) for group in self.param_groups for one in group["params"]):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["step"] += 1
            count, (first, second) = state["step"].item(), BETAS
            weight, gradient, *moments = (  # of a sharded tensor this rank's shard, which is a view
                tensor.to_local() if hasattr(tensor, "to_local") else tensor
                for tensor in (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
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
