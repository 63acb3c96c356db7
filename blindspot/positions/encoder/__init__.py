"""How an image encoder knows where its patches are, as a study, a model's config and a key hold it. Loads no torch.

`schemes` has the formulas, `attach` gives them to a tower, and `rotary` turns its queries and keys.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from blindspot.errors import UserError, one_of
from blindspot.positions.encoder.schemes import SCHEMES, Grid, Scheme

__all__ = ["SCHEMES", "TABLES", "EncoderPositions", "Grid", "Scheme"]

TABLES = ("keep", "replace", "released")


@dataclass(frozen=True)
class EncoderPositions:
    """How an image encoder knows where a patch is."""

    scheme: str = "learned"
    """A key of `SCHEMES`. ``learned`` is what the family was built with: a learned table, or what it computes by itself
    (DINOv3's rotary positions, AIMv2-native's sines)."""
    base: float = 0.0  # base of the frequencies; 0 takes the scheme's own. Unused by ``learned``
    table: str = "keep"
    """What happens to the family's learned position table. ``keep`` it; ``replace`` it: zeroed and never trained; or
    ``released``, as the public code of the study had it: zeroed all the same (the row of CLS too), and the whole
    encoder stays as it was loaded, never having seen the positions it is now given. ``learned`` with ``replace`` is an
    encoder without any positions; a family that computes its positions stops doing so."""
    convention: str = ""
    """Of ``axial``: ``rope_vit`` (patches, base 100), ``qwen2_vl`` (patches, base 10000) or ``dinov3`` (places
    normalised to the image, base 100). Empty: the scheme's first, or none."""

    def __post_init__(self) -> None:
        one_of(self.scheme, SCHEMES, "encoder positions", "positional scheme")
        scheme = SCHEMES[self.scheme]
        one_of(self.table, TABLES, "encoder positions", "treatment of the position table")
        if self.table not in scheme.treatments:
            raise UserError(
                f"encoder positions: {self.scheme} cannot have table {self.table!r}, only "
                f"{' or '.join(map(repr, scheme.treatments))}"
            )
        if scheme.conventions:
            if self.convention == "":
                object.__setattr__(self, "convention", next(iter(scheme.conventions)))
            one_of(self.convention, scheme.conventions, "encoder positions", "convention")
        elif self.convention != "":
            raise UserError(f"encoder positions: {self.scheme} has no conventions; leave {self.convention!r} out")
        if isinstance(self.base, int | float) and self.base == 0 and not isinstance(self.base, bool):
            object.__setattr__(self, "base", self.rule.base)
        if isinstance(self.base, bool) or not isinstance(self.base, int | float) or not 1 < self.base < float("inf"):
            raise UserError(f"encoder positions: base must be a number above 1, got {self.base!r}")

    @property
    def rule(self) -> Scheme:
        """The scheme under the convention."""
        scheme = SCHEMES[self.scheme]
        return scheme.conventions.get(self.convention, scheme)

    @property
    def frozen_encoder(self) -> bool:
        """Whether the encoder must not be trained (table ``released``)."""
        return self.table == "released"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderPositions":
        """Read `to_dict`'s form; absent keys take their defaults."""
        for key in values:
            one_of(key, [field.name for field in fields(cls)], "encoder positions", "key")
        return cls(**values)
