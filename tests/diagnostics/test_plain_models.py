"""Diagnosis of transformers' own models, at tiny size, where they differ from variants."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.coherence.run import run as coherence
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Changes, placed
from blindspot.diagnostics.counterfactuals.run import language_places
from blindspot.diagnostics.run import open_vlm
from blindspot.errors import UserError
from tests.evaluation.tiny_families import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
Opened = Callable[[str], HookedVLM]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return cache(lambda family: open_vlm(checkpoint(family, tmp_path_factory.mktemp(family))))


def test_a_rotary_module_that_runs_for_each_layer_type_is_one(opened: Opened) -> None:
    """Gemma 3's runs for local and for global layers; moved twice, tokens would be back at their places."""
    subject = opened("gemma3")
    assert len(subject.roles.rotary) == 1
    prepared = subject.prepare(draw.directions(1, 0, "english"))
    mirrored = language_places(prepared, torch.arange(int(prepared.image_bt.sum())).flip(0))
    plain = subject.run(prepared).logits_bk
    assert not torch.allclose(subject.run(prepared, changes=Changes(language_places=mirrored)).logits_bk, plain)


def test_as_many_rows_as_axes_of_ids_are_moved_each_by_its_own_places() -> None:
    """Where a token has three ids, angles of three rows begin with two dimensions of three."""

    class Rotary(nn.Module):
        def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
            angles_abtc = torch.arange(3 * 3 * 5 * 2).view(3, 3, 5, 2)
            return angles_abtc, -angles_abtc

    rotary = Rotary()
    places_bt = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 0, 0, 0, 0]])
    plain, _ = rotary()
    with placed([rotary], places_bt):
        cos, sin = rotary()
    for row, places_t in enumerate(places_bt):
        assert torch.equal(cos[:, row], plain[:, row, places_t])
    assert torch.equal(sin, -cos)


def test_a_picture_cut_in_tiles_has_no_coherence(opened: Opened) -> None:
    subject = opened("llava_next")
    assert subject.encoder_grid is None
    with pytest.raises(UserError, match="tokens"):
        coherence(subject, Budget(stimuli=16), lambda done, of: None)
