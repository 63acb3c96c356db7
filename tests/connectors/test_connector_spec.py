"""Specs of connectors: what they accept, what they say when they do not, and their arithmetic."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.connectors import RULES, ConnectorSpec, output_grid, output_tokens
from blindspot.errors import UserError

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
