"""What every positional scheme does, measured now: the table of ``blindspot positions``.

Encoder sites are measured on queries and keys over a grid and on a small random SigLIP; language sites on the angles
over a grid and on a small random Llama.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

from blindspot.positions import EncoderPositions, Grid, LanguagePositions
from blindspot.positions.encoder import SCHEMES
from blindspot.positions.encoder.attach import attach
from blindspot.positions.encoder.rotary import PatchGrid, Rotation, Tables, rotate
from blindspot.positions.encoder.schemes import mixed_angles
from blindspot.positions.language.position_ids import Placement, mask, place, tokens_per_image
from blindspot.positions.language.rotation import angles, install

COLUMNS = {
    "scheme": "scheme",
    "norm_preserved": "norm",
    "relative_invariance": "rela-\ntive",
    "axis_swap": "axis\nswap",
    "injective": "dis-\ntinct",
    "text_1d": "text\n1-D",
    "start_unchanged": "start\nsame",
    "turn_rows": "turn,\nrows",
    "turn_columns": "turn,\ncolumns",
    "still_pairs": "still",
}
"""Keys of a row and their headings."""

CAPTION = (
    "norm: lengths of queries and keys stay. relative: scores depend on offsets only. axis swap: rows and columns are "
    "treated alike. distinct: no two patches of a grid share a position. text 1-D: text alone is exactly as before. "
    "start same: a pretrained model computes exactly what it did. turn: largest rotation from one side of the grid to "
    "the other, in radians. still: share of channel pairs that turn by less than 0.01 radians. Sizes of the "
    "errors and the settings: --json."
)

GRID = (24, 24)
ENCODER_HEAD_DIM = 64
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

LANGUAGE_HEAD_DIM = 128
KV_HEADS = 8
SMALL = (4, 4)

# Without sections, pairs are shared as in Qwen2-VL (chunked: 16, 24, 24) and Qwen3-VL (interleaved: 24, 20, 20).
LANGUAGE_CASES: tuple[tuple[str, LanguagePositions, float], ...] = (
    ("rope1d (LLaVA)", LanguagePositions(), 1e6),
    ("row_break", LanguagePositions("row_break"), 1e6),
    ("mrope chunked (Qwen2-VL)", LanguagePositions("mrope"), 1e6),
    ("mrope chunked, base 5e6", LanguagePositions("mrope", sections=(24, 20, 20)), 5e6),
    ("mrope chunked, columns_first", LanguagePositions("mrope", columns_first=True), 1e6),
    ("mrope chunked, spatial_reset", LanguagePositions("mrope", spatial_reset=True), 1e6),
    ("mrope interleaved", LanguagePositions("mrope", interleaved=True), 1e6),
    ("mrope interleaved (Qwen3-VL)", LanguagePositions("mrope", interleaved=True), 5e6),
    ("mrope_film (Qwen2-VL)", LanguagePositions("mrope_film"), 1e6),
    ("videorope spacing=2", LanguagePositions("videorope"), 1e6),
    ("mhrope", LanguagePositions("mhrope"), 1e6),
    ("rope_tie", LanguagePositions("rope_tie"), 1e6),
    ("rope_tv", LanguagePositions("rope_tv"), 1e6),
    ("v2pe delta=1", LanguagePositions("v2pe", delta=1.0), 1e6),
    ("v2pe delta=1/4", LanguagePositions("v2pe", delta=0.25), 1e6),
    ("bapa", LanguagePositions("bapa"), 1e6),
    ("concentric", LanguagePositions("concentric"), 1e6),
    ("circle alpha=1/2", LanguagePositions("circle"), 1e6),
    ("circle alpha=1", LanguagePositions("circle", alpha=1.0), 1e6),
)


def rows() -> list[dict[str, Any]]:
    """One row per scheme, of the encoder site and then of the language site; plain values, so that JSON can hold them.

    Both sites: ``site``, ``scheme``, ``setting``; booleans ``norm_preserved``, ``relative_invariance`` (scores of an
    encoder depend on offsets only; scores of a language model stay when text is put in front of everything),
    ``axis_swap`` (exchanging rows and columns exchanges channels, nothing else), ``injective`` (no two patches share a
    position) and ``start_unchanged`` (a trained model's outputs are bit-equal to those without the scheme; on text with
    an image in a language model); floats ``turn_rows`` and ``turn_columns`` (radians: the largest rotation of any pair
    from one side of the grid to the other). Encoders: see `measure`. Language models: ``text_1d`` (logits on text alone
    are bit-equal), ``decode_consistent`` (cached and uncached logits agree within 1e-5) and ``next_position`` (of the
    text behind the image, counted from its start). None where a property means nothing at a site.
    """
    return [*encoder_rows(), *language_rows()]


def as_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for a terminal: what holds and what does not, and angles in radians."""

    def cell(key: str, value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if key == "still_pairs":
            return f"{value:.0%}"
        if isinstance(value, float):
            return f"{value:.2g}" if value < 10 else f"{value:.0f}"
        return value

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption=CAPTION, caption_justify="left")
    for heading in COLUMNS.values():
        table.add_column(heading, no_wrap=heading != COLUMNS["scheme"])
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before["site"] != row["site"]:
            table.add_row(f"[bold]{row['site']} site[/bold]")
        table.add_row(*(cell(key, row.get(key)) for key in COLUMNS))
    return table


def encoder_cases() -> dict[str, EncoderPositions]:
    """Every scheme under every convention, with its own base, by the name that tables give it."""
    found: dict[str, EncoderPositions] = {}
    for name, scheme in SCHEMES.items():
        table = scheme.treatments[0]
        for convention in scheme.conventions or [""]:
            found[f"{name} {convention}".strip()] = EncoderPositions(name, table=table, convention=convention)
    return found


def encoder_rows() -> list[dict[str, Any]]:
    """One row per case of `encoder_cases`."""
    grid = f"{GRID[0]}x{GRID[1]}"
    return [
        {
            "site": "encoder",
            "scheme": label,
            "setting": f"D={ENCODER_HEAD_DIM}, base {positions.base:g}, {grid}",
            "text_1d": None,
            **measure(positions),
        }
        for label, positions in encoder_cases().items()
    ]


def measure(
    positions: EncoderPositions, grid: Grid = GRID, head_dim: int = ENCODER_HEAD_DIM, seed: int = 0
) -> dict[str, Any]:
    """Measure one scheme of the encoder. A learned table can hold anything: it is measured on random numbers.

    Args:
        grid: rows and columns, at least 2 each.
        head_dim: channels of an attention head (of a token, for tables).
        seed: of queries, keys, places and learnable frequencies.

    Returns:
        Those of `rows`, and ``norm_error`` (largest relative change of the length of a query), ``shift_error`` (largest
        change of a score when both patches move by the same rows and columns, relative to the lengths of query and
        key), ``swap_error`` (likewise, when rows and columns are exchanged along with the best of `EXCHANGES`) and
        ``still_pairs`` (share of channel pairs that turn less than `STILL` radians over the whole grid). What turns
        nothing has None as its turns.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        on_grid = OnGrid(positions, grid, head_dim)
        turn_rows, turn_columns, still_pairs = on_grid.turns()
        errors = {
            "norm_error": on_grid.norm_error(),
            "shift_error": on_grid.shift_error(),
            "swap_error": on_grid.swap_error(),
        }
        return {
            "norm_preserved": errors["norm_error"] < EXACT,
            "relative_invariance": errors["shift_error"] < EXACT,
            "axis_swap": errors["swap_error"] < EXACT,
            **errors,
            "injective": on_grid.injective(),
            "start_unchanged": _start_unchanged(positions),
            "turn_rows": turn_rows,
            "turn_columns": turn_columns,
            "still_pairs": still_pairs,
        }


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
            turned = self.rule.angles(*self.grid, self.dim, self.base)
        else:
            places_na = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float32) for side in self.grid))
            assert self.rotation.frequencies is not None
            turned = mixed_angles(places_na.view(-1, 2), self.rotation.frequencies)
        angles_hwp = turned.flatten(1).unflatten(0, self.grid)
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


def language_rows() -> list[dict[str, Any]]:
    """One row per case, in the order of `LANGUAGE_CASES`."""
    return [
        {
            "site": "language",
            "scheme": label,
            "setting": f"D={LANGUAGE_HEAD_DIM}, base {base / 1e6:g}e6, {GRID[0]}x{GRID[1]}",
            **_over_an_image(positions, base),
            **_in_a_llama(positions, base),
        }
        for label, positions, base in LANGUAGE_CASES
    ]


def _sequence(positions: LanguagePositions, grid: Grid, before: int) -> tuple[Tensor, Tensor, Placement]:
    """Ordinary positions, image flags and placement of ``before`` text tokens, an image and three text tokens."""
    tokens = tokens_per_image(positions, grid)
    logical_1l = torch.arange(before + tokens + 3)[None]
    image_1l = (logical_1l >= before) & (logical_1l < before + tokens)
    return logical_1l, image_1l, place(positions, logical_1l, image_1l, [grid])


def _over_an_image(positions: LanguagePositions, base: float) -> dict[str, Any]:
    """What the angles over one image show."""
    inv_freq = base ** (-torch.arange(LANGUAGE_HEAD_DIM // 2, dtype=torch.float64) / (LANGUAGE_HEAD_DIM // 2))

    def angles_behind(before: int) -> Tensor:
        """Angles of a whole sequence, shape (tokens, pairs of all heads)."""
        all_b___ = angles(positions, _sequence(positions, GRID, before)[2].ids_abl, inv_freq, KV_HEADS)
        return all_b___[0] if all_b___.ndim == 3 else all_b___[0].transpose(0, 1).flatten(1)

    near, far = angles_behind(5), angles_behind(12)[7:]
    height, width = GRID
    patches_hwp = near[5 : 5 + tokens_per_image(positions, GRID)].unflatten(0, (height, -1))[:, :width]
    turn_rows, turn_columns = (
        (patches_hwp.amax(dim=axis) - patches_hwp.amin(dim=axis)).max().item() for axis in (0, 1)
    )
    relative_hwp = patches_hwp[:8, :8] - patches_hwp[0, 0]
    as_is_pn, swapped_pn = relative_hwp.flatten(0, 1).T, relative_hwp.transpose(0, 1).flatten(0, 1).T
    # A pair may also turn the other way round: that exchanges its two channels. Distances by differences are exact
    # where they are zero, unlike those by products.
    same_pp, opposite_pp = (
        torch.cdist(as_is_pn, sign * swapped_pn, compute_mode="donot_use_mm_for_euclid_dist") for sign in (1, -1)
    )
    distances_pp = torch.minimum(same_pp, opposite_pp)
    _, image_1l, placement = _sequence(positions, GRID, 5)
    ids_an = placement.ids_abl[:, image_1l].double().round(decimals=9)
    return {
        "relative_invariance": torch.allclose(near - near[0], far - far[0], rtol=0, atol=1e-9),
        "axis_swap": all(bool((distances_pp.amin(dim=axis) < 1e-9).all()) for axis in (0, 1)),
        "injective": ids_an.unique(dim=1).shape[1] == ids_an.shape[1],
        "turn_rows": turn_rows,
        "turn_columns": turn_columns,
        "next_position": float(placement.ids_abl[0, 0, -3]) - 5,
    }


@torch.no_grad()
def _in_a_llama(positions: LanguagePositions, base: float) -> dict[str, Any]:
    """What a small random Llama shows with the scheme installed."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=KV_HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=LANGUAGE_HEAD_DIM,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        initializer_range=0.3,
        pad_token_id=0,
    )
    logical_1l, image_1l, placement = _sequence(positions, SMALL, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        tokens_1l = torch.randint(1, 32, logical_1l.shape)
    ones_1l = torch.ones_like(tokens_1l)

    def logits(ids: Tensor, visible: Any, cache: Any = None, part: slice = slice(None)) -> Tensor:
        return model(
            tokens_1l[:, part],
            attention_mask=visible,
            position_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits

    def ids_of(placed: Placement) -> Tensor:
        return placed.ids_abl[0] if positions.scheme == "rope1d" else placed.ids_abl

    plain_1lv = logits(logical_1l, ones_1l)
    install(model, positions)
    rotary: Any = model.model.rotary_emb
    cos, sin = rotary(torch.zeros(1), ids_of(placement))
    # Two channels of a pair that turn alike, by the cosine and sine of one angle.
    alike = all(torch.equal(*table.chunk(2, dim=-1)) for table in (cos, sin))
    text = place(positions, logical_1l, torch.zeros_like(image_1l), [])
    placed_1lv = logits(ids_of(placement), mask(positions, image_1l, [SMALL], ones_1l))
    cache, past = DynamicCache(config=config), tokens_1l.shape[1] - 3
    visible = mask(positions, image_1l[:, :past], [SMALL], ones_1l[:, :past])
    prefill = place(positions, logical_1l[:, :past], image_1l[:, :past], [SMALL])
    parts = [logits(ids_of(prefill), visible, cache, slice(past))]
    for step in range(past, past + 3):
        ids_11 = logical_1l[:, step : step + 1] + prefill.delta_b[:, None]
        parts.append(logits(ids_11, ones_1l[:, : step + 1], cache, slice(step, step + 1)))
    return {
        "norm_preserved": alike and torch.allclose(cos**2 + sin**2, torch.ones_like(cos), rtol=0, atol=1e-6),
        "text_1d": torch.equal(logits(ids_of(text), ones_1l), plain_1lv),
        "start_unchanged": torch.equal(placed_1lv, plain_1lv),
        "decode_consistent": torch.allclose(torch.cat(parts, dim=1), placed_1lv, rtol=0, atol=1e-5),
    }
