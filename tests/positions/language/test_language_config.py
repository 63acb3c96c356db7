"""The configuration of language positions, and how pairs and heads are handed out."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES, LanguagePositions, check
from blindspot.positions.language.rotation import angles
from blindspot.positions.language.schemes import chunked_axes, interleaved_axes, mhrope_axes, mrope_axes


@st.composite
def configurations(draw: st.DrawFn) -> LanguagePositions:
    scheme = draw(st.sampled_from(list(SCHEMES)))
    values: dict[str, st.SearchStrategy[Any]] = {
        "sections": st.none() | st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)),
        "interleaved": st.booleans(),
        "columns_first": st.booleans(),
        "spatial_reset": st.booleans(),
        "delta": st.floats(1 / 256, 1),
        "alpha": st.floats(0, 1),
        "radius": st.floats(0.1, 100),
        "spacing": st.floats(0.1, 10),
    }
    return LanguagePositions(scheme, **{name: draw(values[name]) for name in sorted(SCHEMES[scheme].parameters)})


@given(configurations())
@settings(max_examples=50)
def test_configuration_survives_json(positions: LanguagePositions) -> None:
    values = json.loads(json.dumps(positions.to_dict()))
    assert LanguagePositions.from_dict(values) == positions
    assert values == positions.to_dict()
    assert hash(LanguagePositions.from_dict(values)) == hash(positions)


def test_a_config_names_the_scheme_and_its_own_parameters_only() -> None:
    assert LanguagePositions().to_dict() == {"scheme": "rope1d"}
    assert LanguagePositions("v2pe").to_dict() == {"scheme": "v2pe", "delta": 0.25}
    assert LanguagePositions.from_dict({}) == LanguagePositions()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheme": "m-rope"}, 'unknown scheme "m-rope"; did you mean "mrope"'),
        ({"scheme": None}, "unknown scheme None"),
        ({"schem": "mrope"}, 'unknown key "schem"; did you mean "scheme"'),
        ({"scheme": "bapa", "delta": 0.5}, r"'bapa' have no delta; leave it out \(v2pe have\)"),
        ({"scheme": "rope1d", "sections": [1, 2, 3]}, r"'rope1d' have no sections .*|have no sections"),
        ({"scheme": "v2pe", "delta": 0}, "delta must be a number above 0 and at most 1, got 0"),
        ({"scheme": "v2pe", "delta": True}, "delta must be a number"),
        ({"scheme": "v2pe", "delta": float("nan")}, "delta must be a number"),
        ({"scheme": "circle", "alpha": 1.5}, "alpha must be a number from 0 to 1"),
        ({"scheme": "circle", "radius": "10"}, "radius must be a number above 0"),
        ({"scheme": "mrope", "interleaved": "yes"}, "interleaved must be true or false, got 'yes'"),
        ({"scheme": "mrope", "sections": [4, 6]}, "sections must be three whole numbers"),
        ({"scheme": "mrope", "sections": [4, 0, 6]}, "sections must be three whole numbers"),
        ({"scheme": "mrope", "sections": [4, 6.0, 6]}, "sections must be three whole numbers"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LanguagePositions.from_dict(values)


def test_sections_of_the_published_models() -> None:
    assert chunked_axes(64, None) == chunked_axes(64, (16, 24, 24)) == (0,) * 16 + (1,) * 24 + (2,) * 24
    assert chunked_axes(32, None) == (0,) * 8 + (1,) * 12 + (2,) * 12
    assert interleaved_axes(64, None) == interleaved_axes(64, (24, 20, 20)) == (0, 1, 2) * 20 + (0,) * 4
    assert interleaved_axes(16, None) == (0, 1, 2) * 5 + (0,)
    assert mrope_axes(16, None, False, columns_first=True) == (0,) * 4 + (2,) * 6 + (1,) * 6
    assert mrope_axes(16, (4, 5, 7), False, columns_first=True) == (0,) * 4 + (2,) * 7 + (1,) * 5
    assert mhrope_axes(8, None) == (0, 0, 1, 1, 1, 2, 2, 2)
    assert mhrope_axes(4, None) == (0, 0, 1, 2)
    assert mhrope_axes(2, None) == (1, 2)


@given(st.integers(4, 128))
@settings(max_examples=25)
def test_every_axis_gets_pairs(pairs: int) -> None:
    for axes in (chunked_axes(pairs, None), interleaved_axes(pairs, None)):
        assert len(axes) == pairs
        assert {0, 1, 2} == set(axes)
        assert axes.count(1) == axes.count(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chunked_axes(64, (16, 24, 23)), r"sections \[16, 24, 23\] add up to 63, .* has 64 rotary pairs"),
        (lambda: chunked_axes(2, None), "2 rotary pairs .* too few"),
        (lambda: interleaved_axes(64, (16, 24, 24)), r"\[16, 24, 24\] don't fit 64 .*; \[22, 21, 21\] would"),
        (lambda: mhrope_axes(1, None), "1 key-value head .* can't be shared"),
        (lambda: mhrope_axes(8, (2, 3, 2)), "add up to 7, .* has 8 key-value heads"),
    ],
)
def test_sections_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_schemes_on_a_grid_are_refused_behind_unordered_queries(scheme: str) -> None:
    positions = LanguagePositions(scheme)
    check(positions, (4, 4))
    if scheme in ("rope1d", "v2pe", "bapa"):
        check(positions, None)
        return
    with pytest.raises(UserError, match="unordered queries that have neither; use rope1d, v2pe, bapa, or"):
        check(positions, None)


def test_angles_of_each_kind_of_scheme() -> None:
    ids_abl = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    inv_freq = torch.tensor([1.0, 0.5, 0.25, 0.125])
    chunked = angles(LanguagePositions("mrope", sections=(1, 2, 1)), ids_abl, inv_freq)
    assert chunked.tolist() == [[[1.0, 1.0, 0.5, 0.375]]]
    alternating = angles(LanguagePositions("rope_tv"), ids_abl[:2], inv_freq)
    assert alternating.tolist() == [[[1.0, 1.0, 0.25, 0.25]]]
    shared = angles(LanguagePositions("bapa"), ids_abl[:1], inv_freq)
    assert shared.tolist() == [[[1.0, 0.5, 0.25, 0.125]]]
    heads = angles(LanguagePositions("mhrope"), ids_abl, inv_freq, kv_heads=2)
    assert heads.tolist() == [[[[2.0, 1.0, 0.5, 0.25]], [[3.0, 1.5, 0.75, 0.375]]]]
