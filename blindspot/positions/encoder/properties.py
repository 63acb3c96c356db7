"""What each encoder-site scheme does, measured now: on queries and keys over a grid, and on a small random SigLIP."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from blindspot.positions.encoder import mixed
from blindspot.positions.encoder.attach import attach
from blindspot.positions.encoder.attention import Rotation
from blindspot.positions.encoder.config import SCHEMES, EncoderPositions
from blindspot.positions.encoder.patch_grid import PatchGrid
from blindspot.positions.encoder.rotary import Tables, rotate
from blindspot.positions.encoder.scheme import Grid

HEAD_DIM = 64
GRID = (24, 24)
SAMPLES = 256
EXACT = 1e-5
"""Largest error that counts as none: learned frequencies are turned in float32, all others in float64."""
STILL = 0.01
EXCHANGES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x_sd: x_sd,
    lambda x_sd: x_sd.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3),
    lambda x_sd: x_sd.unflatten(-1, (2, -1)).flip(-2).flatten(-2),
    lambda x_sd: torch.cat([x_sd[..., x_sd.shape[-1] // 2 :], -x_sd[..., : x_sd.shape[-1] // 2]], dim=-1),
)
"""Permutations of channels that exchange rows and columns: none, quarters, halves, and halves turned."""


@dataclass(frozen=True)
class Properties:
    """What was measured of one scheme over one grid of patches.

    Attributes:
        norm_error: largest relative change of the length of a query.
        shift_error: largest change of a score when both patches move by the same rows and columns, relative to the
            lengths of query and key.
        swap_error: likewise, when rows and columns are exchanged along with a fixed permutation of channels (the best
            of those that a scheme might mean).
        injective: whether no two patches treat queries alike.
        start_unchanged: whether a trained encoder gives the same bits once the scheme is attached, its table kept
            where the scheme allows that.
        turn_rows: largest angle in radians by which a channel pair turns from the first row to the last; None where
            nothing turns.
        turn_columns: likewise from the first column to the last.
        still_pairs: share of channel pairs that turn less than `STILL` radians over the whole grid.
    """

    norm_error: float
    shift_error: float
    swap_error: float
    injective: bool
    start_unchanged: bool
    turn_rows: float | None
    turn_columns: float | None
    still_pairs: float | None

    def row(self) -> dict[str, Any]:
        """The measurements and, for each error, whether there is none."""
        return {
            "norm_preserved": self.norm_error < EXACT,
            "relative_invariance": self.shift_error < EXACT,
            "axis_swap": self.swap_error < EXACT,
            **asdict(self),
        }


def cases() -> dict[str, EncoderPositions]:
    """Every scheme under every convention, with its own base, by the name that tables give it."""
    found: dict[str, EncoderPositions] = {}
    for name, scheme in SCHEMES.items():
        table = scheme.treatments[0]
        for convention in scheme.conventions or [""]:
            found[f"{name} {convention}".strip()] = EncoderPositions(name, table=table, convention=convention)
    return found


def encoder_rows() -> list[dict[str, Any]]:
    """One row of measured properties per case; keys as `language_rows`, and the fields of `Properties`."""
    return [
        {
            "site": "encoder",
            "scheme": label,
            "setting": f"D={HEAD_DIM}, base {positions.base:g}, {GRID[0]}x{GRID[1]}",
            "text_1d": None,
            **measure(positions).row(),
        }
        for label, positions in cases().items()
    ]


def measure(positions: EncoderPositions, grid: Grid = GRID, head_dim: int = HEAD_DIM, seed: int = 0) -> Properties:
    """Measure one scheme. A learned table can hold anything: it is measured on random numbers.

    Args:
        positions: the scheme.
        grid: rows and columns, at least 2 each.
        head_dim: channels of an attention head (of a token, for tables).
        seed: of queries, keys, places and learnable frequencies.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        on_grid = OnGrid(positions, grid, head_dim)
        turn_rows, turn_columns, still_pairs = on_grid.turns()
        return Properties(
            on_grid.norm_error(),
            on_grid.shift_error(),
            on_grid.swap_error(),
            on_grid.injective(),
            _start_unchanged(positions),
            turn_rows,
            turn_columns,
            still_pairs,
        )


class OnGrid:
    """A scheme as a map of queries and keys, one per patch."""

    def __init__(self, positions: EncoderPositions, grid: Grid, head_dim: int) -> None:
        self.rule, self.base, self.grid, self.dim = positions.rule, positions.base, grid, head_dim
        frequencies = None
        if self.rule.frequencies is not None:
            frequencies = torch.nn.Parameter(self.rule.frequencies(1, head_dim, self.base), requires_grad=False)
        self.rotation = Rotation(PatchGrid(positions, grid, 0), "eager", frequencies)
        self.queries_sd, self.keys_sd = torch.randn(2, SAMPLES, head_dim, dtype=torch.float64)

    @cached_property
    def table_nd(self) -> Tensor:
        if self.rule.table is not None:
            return self.rule.table(*self.grid, self.dim, self.base).double()
        return torch.randn(math.prod(self.grid), self.dim, dtype=torch.float64)

    @cached_property
    def tables(self) -> Tables:
        """Cosines and sines of every patch, as an attention module would use them."""
        return self.rotation.tables(self.queries_sd.new_zeros(1, 1, math.prod(self.grid), self.dim), False)

    def placed(self, x_snd: Tensor, patches_n: Tensor) -> Tensor:
        """Token n of each sample at patch ``patches_n[n]``."""
        if not self.rule.rotates:
            return x_snd + self.table_nd[patches_n]
        cos_nd, sin_nd = self.tables.cos[patches_n], self.tables.sin[patches_n]
        return rotate(x_snd[:, None], self.tables._replace(cos=cos_nd, sin=sin_nd))[:, 0]

    def norm_error(self) -> float:
        """Of a map, its worst query; of a table, the worst of the sample."""
        all_n = torch.arange(math.prod(self.grid))
        if self.rule.rotates:
            units_cnd = torch.eye(self.dim, dtype=torch.float64)[:, None].expand(-1, len(all_n), -1)
            stretches_nd = torch.linalg.svdvals(self.placed(units_cnd, all_n).transpose(0, 1))
        else:
            sample_snd = self.queries_sd[:, None].expand(-1, len(all_n), -1)
            stretches_nd = self.placed(sample_snd, all_n).norm(dim=-1) / sample_snd.norm(dim=-1)
        return (stretches_nd - 1).abs().max().item()

    def shift_error(self) -> float:
        """Pairs of patches in one quarter of the grid, and the same pairs anywhere else."""
        corner = tuple((side + 1) // 2 for side in self.grid)
        one_s2, other_s2 = self._places(corner), self._places(corner)
        shift_s2 = self._places(tuple(side - near + 1 for side, near in zip(self.grid, corner, strict=True)))
        moved_s = self._scores(one_s2 + shift_s2, other_s2 + shift_s2)
        return (moved_s - self._scores(one_s2, other_s2)).abs().max().item()

    def swap_error(self) -> float:
        square = (min(self.grid),) * 2
        one_s2, other_s2 = self._places(square), self._places(square)
        scores_s = self._scores(one_s2, other_s2)
        return min(
            (self._scores(one_s2.flip(1), other_s2.flip(1), exchange) - scores_s).abs().max().item()
            for exchange in EXCHANGES
        )

    def injective(self) -> bool:
        all_n = torch.arange(math.prod(self.grid))
        codes_nc = self.placed(self.queries_sd[:4, None].expand(-1, len(all_n), -1), all_n).transpose(0, 1).flatten(1)
        distances_nn = torch.cdist(codes_nc, codes_nc).fill_diagonal_(float("inf"))
        return bool(distances_nn.min() > EXACT * codes_nc[0].norm())

    def turns(self) -> tuple[float, float, float] | tuple[None, None, None]:
        if not self.rule.rotates:
            return None, None, None
        if self.rule.angles is not None:
            angles = self.rule.angles(*self.grid, self.dim, self.base)
        else:
            places_na = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float32) for side in self.grid))
            assert self.rotation.frequencies is not None
            angles = mixed.angles(places_na.view(-1, 2), self.rotation.frequencies)
        angles_hwp = angles.flatten(1).unflatten(0, self.grid)
        by_row_p, by_column_p = (
            (angles_hwp.amax(dim=axis) - angles_hwp.amin(dim=axis)).flatten(0, -2).amax(dim=0) for axis in (0, 1)
        )
        still_pairs = (torch.maximum(by_row_p, by_column_p) < STILL).double().mean().item()
        return by_row_p.max().item(), by_column_p.max().item(), still_pairs

    def _places(self, within: tuple[int, ...]) -> Tensor:
        return torch.stack([torch.randint(side, (SAMPLES,)) for side in within], dim=1)

    def _scores(
        self, one_s2: Tensor, other_s2: Tensor, exchange: Callable[[Tensor], Tensor] = lambda x_sd: x_sd
    ) -> Tensor:
        """Of one query and key per sample, whose channels were exchanged first."""
        query_sd, key_sd = (
            self.placed(exchange(x_sd)[None], places_s2[:, 0] * self.grid[1] + places_s2[:, 1])[0]
            for x_sd, places_s2 in ((self.queries_sd, one_s2), (self.keys_sd, other_s2))
        )
        return (query_sd * key_sd).sum(dim=-1) / (self.queries_sd.norm(dim=-1) * self.keys_sd.norm(dim=-1))


@torch.no_grad()
def _start_unchanged(positions: EncoderPositions) -> bool:
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        vision_use_head=False,
    )
    config._attn_implementation = "eager"
    tower = SiglipVisionModel(config).eval()
    for parameter in tower.parameters():
        parameter.normal_(std=0.2)
    pixels_bchw = torch.randn(1, 3, 16, 16)
    before_bnd = tower(pixel_values=pixels_bchw).last_hidden_state
    kept = "keep" if "keep" in positions.rule.treatments else positions.table
    attach(tower, replace(positions, table=kept), 4, 0)
    return torch.equal(tower(pixel_values=pixels_bchw).last_hidden_state, before_bnd)
