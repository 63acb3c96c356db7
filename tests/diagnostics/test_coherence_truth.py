"""Coherence on features whose structure is known, and on models whose positions are."""

from itertools import product

import numpy as np
import pytest
import torch

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.coherence.run import coherence, run, shuffled
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from tests.diagnostics.known import random_subject

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = (8, 8)


def test_coordinates_are_coherent_and_noise_is_not() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    places_nd = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
    near, far = coherence(places_nd.expand(4, -1, -1), GRID)
    assert (near > 0.8).all() and (far < 0).all()
    noise = torch.randn(64, 64, 32, generator=torch.Generator().manual_seed(0))
    near, far = coherence(noise, GRID)
    assert abs(near.mean()) < 0.01 and abs(far.mean()) < 0.01


def test_a_direction_that_all_patches_share_does_not_count() -> None:
    noise = torch.randn(32, 64, 16, generator=torch.Generator().manual_seed(1))
    plain, offset = coherence(noise, GRID), coherence(noise + 100, GRID)
    assert abs(plain[0].mean() - offset[0].mean()) < 1e-3


def test_means_are_over_the_eight_neighbours_and_over_five_and_more() -> None:
    features = np.random.default_rng(0).normal(size=(1, 64, 6))
    centred = features[0] - features[0].mean(axis=0)
    near, far = [], []
    for one, two in product(range(64), repeat=2):
        apart = max(abs(one // 8 - two // 8), abs(one % 8 - two % 8))
        cosine = centred[one] @ centred[two] / np.linalg.norm(centred[one]) / np.linalg.norm(centred[two])
        near += [cosine] * (apart == 1)
        far += [cosine] * (apart >= 5)
    found = coherence(torch.from_numpy(features), GRID)
    assert found[0][0] == pytest.approx(np.mean(near), abs=1e-5)
    assert found[1][0] == pytest.approx(np.mean(far), abs=1e-5)


def test_weights_are_shuffled_and_come_back() -> None:
    linear = torch.nn.Linear(8, 8)
    kept = linear.weight.detach().clone()
    with shuffled(linear, 0):
        assert not torch.equal(linear.weight, kept)
        assert torch.equal(linear.weight.flatten().sort().values, kept.flatten().sort().values)
    assert torch.equal(linear.weight, kept)
    with pytest.raises(KeyError), shuffled(linear, 0):
        raise KeyError
    assert torch.equal(linear.weight, kept)


def test_an_encoder_whose_table_says_where_patches_are_is_coherent() -> None:
    def trained(subject: HookedVLM) -> dict[str, float]:
        (table,) = run(subject, Budget(stimuli=32), lambda done, of: None).tables
        assert {row["encoder"] for row in table.rows} == {"pixels", "trained", "shuffled"}
        assert all(row["low"] <= row["value"] <= row["high"] for row in table.rows)
        return {f"{row['encoder']}{row['layer']}": row["value"] for row in table.rows}

    placed = random_subject(spread=0.02)
    position = placed.tower.get_submodule("embeddings.position_embedding")
    rows, columns = torch.meshgrid(torch.linspace(-3, 3, 4), torch.linspace(-3, 3, 4), indexing="ij")
    with torch.no_grad():
        position.weight.zero_()  # pyright: ignore
        position.weight[:, 0], position.weight[:, 1] = rows.flatten(), columns.flatten()  # pyright: ignore
    found = trained(placed)
    assert found["trained0"] > 0.8
    assert found["trained0"] > found["pixelsNone"] + 0.3
    assert found["trained0"] > found["shuffled0"] + 0.3
