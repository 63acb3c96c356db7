"""The configuration of encoder positions: defaults, the old form, and the mistakes that it names."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.positions.encoder import SCHEMES, TABLES, EncoderPositions
from blindspot.positions.encoder.schemes import axial_angles

AXIAL = EncoderPositions("axial", 100.0, "replace")


@given(st.data(), st.sampled_from(list(SCHEMES)), st.floats(1.5, 1e6) | st.just(0))
def test_configuration_survives_json(data: st.DataObject, scheme: str, base: float) -> None:
    table = data.draw(st.sampled_from(SCHEMES[scheme].treatments))
    convention = data.draw(st.sampled_from([*SCHEMES[scheme].conventions, ""]))
    positions = EncoderPositions(scheme, base, table, convention)
    assert EncoderPositions.from_dict(json.loads(json.dumps(positions.to_dict()))) == positions
    assert set(positions.rule.treatments) <= set(TABLES)


def test_configurations_written_before_there_were_conventions_mean_the_same() -> None:
    old = EncoderPositions.from_dict({"scheme": "axial", "base": 100.0, "table": "replace"})
    assert old == AXIAL
    assert (old.convention, old.rule.angles) == ("rope_vit", axial_angles)
    assert EncoderPositions.from_dict({"scheme": "learned", "base": 100.0, "table": "keep"}) == EncoderPositions()


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ({"scheme": "axial"}, 100.0),
        ({"scheme": "axial", "convention": "qwen2_vl"}, 10000.0),
        ({"scheme": "axial", "convention": "dinov3"}, 100.0),
        ({"scheme": "axial", "convention": "qwen2_vl", "base": 50}, 50),
        ({"scheme": "mixed"}, 10.0),
        ({"scheme": "rope1d"}, 10000.0),
        ({"scheme": "sincos", "table": "replace"}, 10000.0),
        ({"scheme": "released_concat", "table": "released"}, 10000.0),
    ],
)
def test_every_scheme_has_its_own_base(values: dict[str, Any], base: float) -> None:
    assert EncoderPositions.from_dict(values).base == base


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheme": "axal"}, 'did you mean "axial"'),
        ({"table": "replaced"}, 'did you mean "replace"'),
        ({"schem": "axial"}, 'unknown key "schem"; did you mean "scheme"'),
        ({"scheme": ["axial"]}, "unknown positional scheme"),
        ({"base": 1.0}, "base must be a number above 1"),
        ({"base": "100"}, "base must be a number above 1"),
        ({"base": float("nan")}, "base must be a number above 1"),
        ({"base": False}, "base must be a number above 1"),
        ({"scheme": "axial", "convention": "dino"}, 'did you mean "dinov3"'),
        ({"scheme": "mixed", "convention": "dinov3"}, "mixed has no conventions"),
        ({"scheme": "sincos"}, "sincos cannot have table 'keep', only 'replace'"),
        ({"scheme": "mixed", "table": "released"}, "mixed cannot have table 'released', only 'keep' or 'replace'"),
        ({"scheme": "learned", "table": "released"}, "learned cannot have table 'released'"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EncoderPositions.from_dict(values)
