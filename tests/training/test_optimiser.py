"""Muon in batches is Muon, and the optimisers of a module cover it once."""

import pytest
import torch
from torch import nn

from blindspot.training.optim import BatchedMuon, muon, orthogonalise

SHAPES = [(8, 8), (8, 8), (16, 8), (8, 24), (24, 8), (1, 8), (8, 1), (8, 24)]
LR = 0.02


pytestmark = pytest.mark.usefixtures("one_thread")


def matrices(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(parameters: list[nn.Parameter], step: int, skip: int | None = None) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for index, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator) * 10.0 ** (index - 3)
        parameter.grad = None if index == skip else gradient


def test_five_steps_equal_torchs_muon() -> None:
    ours, theirs = matrices(), matrices()
    start = [parameter.detach().clone() for parameter in ours]
    mine = BatchedMuon(ours, lr=LR)
    reference = torch.optim.Muon(theirs, lr=LR, weight_decay=0.0, momentum=0.95, adjust_lr_fn="original")
    for step in range(5):
        for parameters, optimiser in ((ours, mine), (theirs, reference)):
            give_gradients(parameters, step)
            optimiser.step()
    for mine_rc, reference_rc, start_rc in zip(ours, theirs, start, strict=True):
        moved = (reference_rc - start_rc).norm()
        assert moved > LR
        # bfloat16 keeps three digits, and a batched product rounds in another order.
        assert (mine_rc - reference_rc).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 8, 32), (2, 64, 16), (1, 1, 8)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...], size: float) -> None:
    matrices_nrc = size * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result_nrc = orthogonalise(matrices_nrc)
    assert result_nrc.dtype == matrices_nrc.dtype
    u_nrk, before_nk, v_nkc = torch.linalg.svd(matrices_nrc.double(), full_matrices=False)
    values_nk = (u_nrk.mT @ result_nrc.double() @ v_nkc.mT).diagonal(dim1=1, dim2=2)
    well_conditioned = before_nk > 0.05 * before_nk.amax(dim=1, keepdim=True)
    assert values_nk[well_conditioned].min() > 0.5 and values_nk.max() < 1.3


def test_a_zero_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 4)), torch.zeros(2, 4, 4))


def test_a_matrix_without_gradient_is_left_alone_and_does_not_disturb_the_rest() -> None:
    everything, rest = matrices(), matrices()
    skipped = rest.pop(1)
    give_gradients(everything, 0, skip=1)
    for parameter, source in zip(rest, everything[:1] + everything[2:], strict=True):
        parameter.grad = source.grad
    optimiser = BatchedMuon(everything, lr=LR)
    optimiser.step()
    BatchedMuon(rest, lr=LR).step()
    assert everything[1] not in optimiser.state
    assert torch.equal(everything.pop(1), skipped)
    assert all(torch.equal(one, other) for one, other in zip(everything, rest, strict=True))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.inner = nn.Linear(8, 8)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.lm_head = nn.Linear(8, 5, bias=False)


def test_muon_takes_linear_weights_and_adam_the_rest() -> None:
    module = Small()
    hidden, adam = muon(module, LR)
    assert isinstance(hidden, BatchedMuon) and isinstance(adam, torch.optim.AdamW)
    taken = [[id(parameter) for parameter in one.param_groups[0]["params"]] for one in (hidden, adam)]
    assert taken[0] == [id(module.inner.weight)]
    assert sorted(taken[1]) == sorted(map(id, (module.embed.weight, module.inner.bias, module.lm_head.weight)))
    assert adam.param_groups[0]["weight_decay"] == 0


def test_without_linear_layers_there_is_no_muon() -> None:
    (only,) = muon(nn.Embedding(3, 4), LR)
    assert isinstance(only, torch.optim.AdamW)
