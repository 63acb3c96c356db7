"""BLIP-2's losses of a Q-Former: who sees whom, what they are at chance, and what they teach the connector."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from blindspot.connectors import ConnectorSpec
from blindspot.connectors.queries import QFormer
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.objectives.blip2 import QFormerObjective

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS, PAD, END = 12, 0, 1


@pytest.fixture
def objective() -> QFormerObjective:
    torch.manual_seed(0)
    sizes: Any = SimpleNamespace(
        vision_config=SimpleNamespace(hidden_size=16, num_attention_heads=2),
        text_config=SimpleNamespace(hidden_size=24),
    )
    connector = QFormer(ConnectorSpec("qformer", tokens=4, depth=2), sizes)
    return QFormerObjective(connector, CaptionShape(WORDS, 5, PAD, END))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Pictures that say which of six captions is theirs."""
    made = torch.Generator().manual_seed(1)
    captions_bl = torch.tensor([[2 + n, 8 + n % 3, END, PAD, PAD] for n in range(6)])
    return torch.randn(6, 9, 16, generator=made), captions_bl


def test_words_see_earlier_words_and_queries_and_padding_is_seen_by_none(objective: Any, batch: Any) -> None:
    patches_bnd, captions_bl = batch
    changed_bl = captions_bl.clone()
    changed_bl[:, 1] = 5
    before, after = (objective.written(patches_bnd, one) for one in (captions_bl, changed_bl))
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])
    assert not torch.allclose(before[:, 0], objective.written(patches_bnd.flip(0), captions_bl)[:, 0])
    padded_bl = captions_bl.clone()
    padded_bl[:, 3:] = PAD
    longer = QFormerObjective.likeness(objective, patches_bnd, padded_bl)
    with torch.no_grad():
        objective.words.weight[PAD] += 100
    assert torch.allclose(longer, objective.likeness(patches_bnd, padded_bl), atol=1e-5)


def test_likeness_is_the_cosine_of_the_likest_query(objective: Any, batch: Any) -> None:
    patches_bnd, captions_bl = batch
    alike_bb = objective.likeness(patches_bnd, captions_bl)
    assert alike_bb.shape == (6, 6) and alike_bb.abs().max() <= 1 / 0.07 + 1e-3
    queries_bqd = objective.queries.weight.expand(6, -1, -1)
    seen = objective.qformer(query_embeds=queries_bqd, encoder_hidden_states=patches_bnd).last_hidden_state
    seen = objective.of_picture(seen)
    one = objective.likeness(patches_bnd[:1], captions_bl[2:3])
    assert one[0, 0].item() == pytest.approx(alike_bb[0, 2].item(), rel=1e-4), "no pair looks at another"
    assert seen.shape == (6, 4, 16)


def test_training_it_finds_the_pairs_by_the_connectors_own_weights(objective: Any, batch: Any) -> None:
    first = {name: part.item() for name, part in objective(*batch).items()}
    assert first["contrast"] == pytest.approx(1.79, abs=0.2), "ln 6: chance"
    assert first["writing"] == pytest.approx(2.48, abs=0.3), "ln 12: chance"
    assert first["loss"] == pytest.approx(first["contrast"] + first["matching"] + first["writing"], rel=1e-5)
    assert objective.joint.encoder.layer[0].attention is objective.qformer.encoder.layer[0].attention
    assert not [name for name, _ in objective.named_parameters() if "linear" in name], "stage 1 trains it"
    before = {name: one.detach().clone() for name, one in objective.qformer.named_parameters()}
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        objective(*batch)["loss"].backward()
        optimiser.step()
    last = objective(*batch)
    assert all(last[name] < 0.8 * first[name] for name in ("contrast", "writing", "loss")), "well below chance"
    assert all(not torch.equal(one, before[name]) for name, one in objective.qformer.named_parameters())
