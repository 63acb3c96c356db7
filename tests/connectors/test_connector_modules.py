"""Connectors: what their specs accept, shapes, the order of patches, formulas by hand, gradients, number formats."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import ceil, floor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from blindspot.connectors import RULES, ConnectorSpec, build, output_grid, output_tokens
from blindspot.errors import UserError

Held = Callable[[ConnectorSpec], Any]
WIDTH, LANGUAGE_WIDTH, NATIVE = 32, 48, (4, 4)
SPECS = {
    "mlp": ConnectorSpec("mlp"),
    "linear": ConnectorSpec("linear"),
    "average_pooling": ConnectorSpec("average_pooling"),
    "attention_pooling": ConnectorSpec("attention_pooling"),
    "c_abstractor": ConnectorSpec("c_abstractor", tokens=9, depth=2),
    "qformer": ConnectorSpec("qformer", tokens=5, depth=2),
    "resampler": ConnectorSpec("resampler", tokens=6, depth=2),
    "gated_cross_attention": ConnectorSpec("gated_cross_attention", every=2),
}
IN_SEQUENCE = [name for name in SPECS if name != "gated_cross_attention"]
ORDERED = [name for name in IN_SEQUENCE if RULES[name].output]
UNORDERED = [name for name in IN_SEQUENCE if not RULES[name].output]


def _features(grid: tuple[int, int], images: int = 2) -> Tensor:
    return torch.randn(images, grid[0] * grid[1], WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def connectors(held: Held) -> dict[str, Any]:
    torch.manual_seed(0)
    return {name: held(spec).multi_modal_projector for name, spec in SPECS.items()}


def test_every_registered_connector_is_tested() -> None:
    assert set(SPECS) == set(RULES)


@pytest.mark.parametrize("name", IN_SEQUENCE)
@settings(max_examples=15)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_as_many_tokens_as_the_arithmetic_says(connectors: dict[str, Any], name: str, rows: int, columns: int) -> None:
    with torch.no_grad():
        tokens_bnd = connectors[name](_features((rows, columns)), (rows, columns))
    assert tokens_bnd.shape == (2, output_tokens(SPECS[name], (rows, columns)), LANGUAGE_WIDTH)
    assert tokens_bnd.isfinite().all()


@pytest.mark.parametrize("name", UNORDERED)
def test_queries_do_not_see_the_order_of_patches(connectors: dict[str, Any], name: str) -> None:
    features_bnd, order = _features(NATIVE), torch.randperm(16)
    with torch.no_grad():
        before, after = (connectors[name](tokens, NATIVE) for tokens in (features_bnd, features_bnd[:, order]))
        other = connectors[name](torch.randn_like(features_bnd) * 3, NATIVE)
    assert (before - after).abs().max() < 1e-5
    assert (before - other).abs().max() > 1e-3, "the tokens do not depend on the image at all"
    assert (before[:, 0] - before[:, 1]).abs().max() > 1e-3, "all queries ask the same"


@pytest.mark.parametrize("name", ["average_pooling", "attention_pooling", "c_abstractor"])
def test_pooling_sees_the_order_of_patches(connectors: dict[str, Any], name: str) -> None:
    features_bnd = _features(NATIVE)
    with torch.no_grad():
        before, after = (connectors[name](tokens, NATIVE) for tokens in (features_bnd, features_bnd.flip(1)))
    difference = (before.sort(dim=1).values - after.sort(dim=1).values).abs().max()
    assert (before - after).abs().max() > 1e-3
    if name == "c_abstractor":  # not only its tokens' order changes: its positions and convolutions see places
        assert difference > 1e-4
    else:  # a mirrored image gives the same tokens in mirrored order
        assert torch.allclose(before, after.flip(1), atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        ConnectorSpec("average_pooling", factor=4),
        ConnectorSpec("attention_pooling", factor=4),
        ConnectorSpec("c_abstractor", tokens=9, depth=1),
    ],
    ids=lambda spec: spec.name,
)
def test_rows_stay_rows(held: Held, spec: ConnectorSpec) -> None:
    """A change of the patches in one corner moves the token of that corner most, over eight images."""
    connector, side = held(spec).multi_modal_projector, 12
    assert output_grid(spec, (side, side)) == (3, 3)
    features_bnd = _features((side, side), images=8)
    for corner, token in ((0, 0), (side - 1, 2), (side * (side - 1), 6), (side**2 - 1, 8)):
        changed_bnd = features_bnd.clone()
        changed_bnd[:, corner] += torch.randn(8, WIDTH)
        with torch.no_grad():
            moved_bnd = connector(changed_bnd, (side, side)) - connector(features_bnd, (side, side))
        assert moved_bnd.norm(dim=-1).mean(0).argmax() == token


@settings(max_examples=15)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), factor=st.integers(1, 3))
def test_pooling_by_hand(held: Held, rows: int, columns: int, factor: int) -> None:
    features_bnd = _features((rows, columns), images=1)
    map_hwd = features_bnd.view(rows, columns, WIDTH)
    average = held(ConnectorSpec("average_pooling", factor=factor)).multi_modal_projector
    attention = held(ConnectorSpec("attention_pooling", factor=factor)).multi_modal_projector
    means, weighted = [], []
    high, wide = ceil(rows / factor), ceil(columns / factor)
    for i in range(high):
        for j in range(wide):
            top, bottom = floor(i * rows / high), ceil((i + 1) * rows / high)
            left, right = floor(j * columns / wide), ceil((j + 1) * columns / wide)
            window_nd = map_hwd[top:bottom, left:right].reshape(-1, WIDTH)
            means.append(window_nd.mean(0))
            weights_nh = (window_nd @ attention.score.weight.T).softmax(0)
            values_nd = attention.value(window_nd)
            halves = zip(weights_nh.T, values_nd.chunk(2, dim=1), strict=True)  # two heads
            weighted.append(torch.cat([(a_n[:, None] * v_ne).sum(0) for a_n, v_ne in halves]))
    for connector, pooled in ((average, means), (attention, weighted)):
        expected = connector.linear_2(F.gelu(connector.linear_1(torch.stack(pooled))))
        assert torch.allclose(connector(features_bnd, (rows, columns))[0], expected, atol=1e-6)


def test_the_mlp_is_that_of_llava(held: Held) -> None:
    holder = held(SPECS["mlp"])
    theirs = LlavaMultiModalProjector(holder.config)
    theirs.load_state_dict(holder.multi_modal_projector.state_dict())
    assert torch.equal(holder.multi_modal_projector(_features(NATIVE), NATIVE), theirs(_features(NATIVE)))
    assert set(holder.state_dict()) == {
        f"multi_modal_projector.linear_{layer}.{part}" for layer in (1, 2) for part in ("weight", "bias")
    }


def test_the_position_table_of_c_abstractor_is_interpolated_bilinearly(connectors: dict[str, Any]) -> None:
    connector = connectors["c_abstractor"]
    table_dhw = connector.positions.weight.detach().T.reshape(WIDTH, *NATIVE)
    assert torch.equal(connector.position_map(NATIVE)[0], table_dhw)
    assert torch.allclose(connector.position_map((2, 4))[0], table_dhw.view(WIDTH, 2, 2, 4).mean(2), atol=1e-6)


def test_the_qformer_looks_at_the_image_in_every_second_layer(held: Held) -> None:
    connector = held(ConnectorSpec("qformer", tokens=3, depth=4)).multi_modal_projector
    looks = [hasattr(layer, "crossattention") for layer in connector.qformer.encoder.layer]
    assert looks == [True, False, True, False]
    assert connector.queries.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_c_abstractor_does_not_mix_images(connectors: dict[str, Any]) -> None:
    connector = connectors["c_abstractor"].train()
    together, alone = connector(_features(NATIVE), NATIVE), connector(_features(NATIVE)[:1], NATIVE)
    connector.eval()
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert not list(connector.buffers()), "a norm over the batch would keep statistics"


@pytest.mark.parametrize("name", IN_SEQUENCE)
def test_gradients_reach_every_weight(held: Held, name: str) -> None:
    connector = held(SPECS[name]).multi_modal_projector.train()
    features_bnd = _features((4, 4)).requires_grad_()
    tokens_bnd = connector(features_bnd, (4, 4))
    (tokens_bnd * torch.randn_like(tokens_bnd)).sum().backward()
    assert features_bnd.grad is not None and bool((features_bnd.grad != 0).any(-1).all())
    for weight_name, weight in connector.named_parameters():
        assert weight.grad is not None, weight_name
        if "key.bias" not in weight_name:  # a shift of all scores, which softmax does not see
            assert weight.grad.abs().max() > 0, weight_name


@pytest.mark.parametrize("name", IN_SEQUENCE)
def test_bf16_is_close_to_fp32(held: Held, name: str) -> None:
    connector = held(SPECS[name]).multi_modal_projector
    grid = (5, 3)
    with torch.no_grad():
        exact = connector(_features(grid), grid)
        rounded = connector.to(torch.bfloat16)(_features(grid).bfloat16(), grid)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("name", SPECS)
def test_weights_that_a_checkpoint_lacks_start_as_new_ones(held: Held, tmp_path: Path, name: str) -> None:
    holder = held(SPECS[name])
    holder.config.save_pretrained(tmp_path)
    save_file({"unrelated": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    torch.use_deterministic_algorithms(True)  # fills memory that nothing sets with NaN
    try:
        loaded = type(holder).from_pretrained(tmp_path)
    finally:
        torch.use_deterministic_algorithms(False)
    fresh = dict(holder.named_parameters())
    for weight_name, weight in loaded.named_parameters():
        assert weight.std(correction=0).item() == pytest.approx(
            fresh[weight_name].std(correction=0).item(), rel=0.5, abs=1e-8
        ), weight_name
        assert weight.mean().item() == pytest.approx(fresh[weight_name].mean().item(), abs=0.3), weight_name


@pytest.mark.parametrize("name", SPECS)
def test_it_can_be_built_without_memory(held: Held, name: str) -> None:
    config = held(SPECS[name]).config
    with torch.device("meta"):
        connector = build(SPECS[name], config)
    assert {weight.device.type for weight in connector.parameters()} == {"meta"}
    assert set(connector.state_dict()) == {weight_name for weight_name, _ in connector.named_parameters()}


@pytest.mark.parametrize("name", IN_SEQUENCE)
def test_a_norm_behind_it_holds_tokens_to_one_length(held: Held, name: str) -> None:
    spec = replace(SPECS[name], norm=True)
    torch.manual_seed(0)
    tokens_bnd = held(spec).multi_modal_projector(100 * _features((4, 4)), (4, 4))
    lengths_bn = tokens_bnd.detach().norm(dim=-1)
    assert torch.allclose(lengths_bn, torch.full_like(lengths_bn, LANGUAGE_WIDTH**0.5), rtol=0.01)
    assert ConnectorSpec.from_dict(spec.to_dict()) == spec != SPECS[name]


SIDES = st.integers(1, 40)


def test_the_default_is_the_connector_of_llava() -> None:
    assert ConnectorSpec() == ConnectorSpec.from_dict({}) == ConnectorSpec("mlp")
    assert ConnectorSpec().to_dict() == {"name": "mlp"}


def test_sizes_that_are_left_out_are_filled_in_and_saved() -> None:
    assert ConnectorSpec("qformer") == ConnectorSpec("qformer", tokens=32, depth=12)
    assert ConnectorSpec("qformer").to_dict() == {"name": "qformer", "tokens": 32, "depth": 12}
    assert ConnectorSpec("gated_cross_attention").to_dict() == {"name": "gated_cross_attention", "every": 4}


@pytest.mark.parametrize("name", RULES)
def test_the_saved_form_is_json_and_reads_back(name: str) -> None:
    spec = ConnectorSpec(name)
    assert ConnectorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "q-former"}, 'did you mean "qformer"'),
        ({"name": ["mlp"]}, "unknown name ['mlp']"),
        ({"name": "qformer", "token": 3}, 'did you mean "tokens"'),
        ({"name": "mlp", "tokens": 3}, "connector mlp has no 'tokens'; it takes no sizes"),
        ({"name": "qformer", "factor": 2}, "connector qformer has no 'factor'; it takes tokens, depth"),
        ({"name": "resampler", "tokens": 0}, "tokens must be a positive integer, got 0"),
        ({"name": "resampler", "depth": True}, "depth must be a positive integer, got True"),
        ({"name": "average_pooling", "factor": 1.5}, "factor must be a positive integer, got 1.5"),
        ({"name": "gated_cross_attention", "every": "4"}, "every must be a positive integer, got '4'"),
        ({"name": "c_abstractor", "tokens": 32}, "tokens must be a square number such as 144, got 32"),
        ({"name": "mlp", "norm": 1}, "connector mlp: norm is true or left out"),
        ({"name": "gated_cross_attention", "norm": True}, "norm is true or left out, and not of gated_cross_attention"),
        ("mlp", "expected a name and sizes"),
        (None, "expected a name and sizes"),
    ],
)
def test_a_mistake_is_named_in_one_line(values: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        ConnectorSpec.from_dict(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


VALUES = st.none() | st.booleans() | st.integers(-3, 200) | st.floats() | st.text(max_size=8) | st.lists(st.integers())
KEYS = st.sampled_from(["name", "tokens", "factor", "depth", "every"]) | st.text(max_size=8)


@settings(max_examples=100)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([*RULES, None]))
def test_any_mapping_is_a_spec_or_a_user_error(values: dict[str, Any], name: str | None) -> None:
    try:
        spec = ConnectorSpec.from_dict(values if name is None else {**values, "name": name})
    except UserError:
        return
    assert ConnectorSpec.from_dict(spec.to_dict()) == spec
    assert set(spec.to_dict()) - {"name"} <= set(RULES[spec.name].defaults)


@settings(max_examples=50)
@given(rows=SIDES, columns=SIDES, factor=st.integers(1, 6))
def test_pooling_drops_no_patch_and_doubles_none_that_it_need_not(rows: int, columns: int, factor: int) -> None:
    spec = ConnectorSpec("average_pooling", factor=factor)
    pooled = output_grid(spec, (rows, columns))
    assert pooled is not None
    for side, parts in zip((rows, columns), pooled, strict=True):
        assert (parts - 1) * factor < side <= parts * factor
    assert output_tokens(spec, (rows, columns)) == pooled[0] * pooled[1]


def test_what_takes_a_place_in_the_image_and_what_does_not() -> None:
    grid = (27, 14)
    assert {name: output_grid(ConnectorSpec(name), grid) for name in RULES} == {
        "mlp": grid,
        "linear": grid,
        "average_pooling": (14, 7),
        "attention_pooling": (14, 7),
        "c_abstractor": (12, 12),
        "qformer": None,
        "resampler": None,
        "gated_cross_attention": None,
    }
    counts = {name: output_tokens(ConnectorSpec(name), grid) for name in ("qformer", "resampler")}
    assert counts == {"qformer": 32, "resampler": 64}
    assert output_tokens(ConnectorSpec("gated_cross_attention", tokens=64), grid) == 1


@pytest.mark.parametrize("name", RULES)
def test_an_empty_grid_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="0 x 4 patches"):
        output_tokens(ConnectorSpec(name), (0, 4))
