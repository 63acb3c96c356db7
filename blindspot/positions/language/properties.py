"""What each language-site scheme does, measured now: on its angles over a grid, and on a small random Llama."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from blindspot.positions.language.config import LanguagePositions
from blindspot.positions.language.masking import mask
from blindspot.positions.language.position_ids import Placement, place, tokens_per_image
from blindspot.positions.language.rotation import angles, install

HEAD_DIM = 128
KV_HEADS = 8
GRID = (24, 24)
SMALL = (4, 4)

# Without sections, pairs are shared as in Qwen2-VL (chunked: 16, 24, 24) and Qwen3-VL (interleaved: 24, 20, 20).
CASES: tuple[tuple[str, LanguagePositions, float], ...] = (
    ("rope1d (LLaVA)", LanguagePositions(), 1e6),
    ("row_break", LanguagePositions("row_break"), 1e6),
    ("mrope chunked (Qwen2-VL)", LanguagePositions("mrope"), 1e6),
    ("mrope chunked, base 5e6", LanguagePositions("mrope", sections=(24, 20, 20)), 5e6),
    ("mrope chunked, columns_first", LanguagePositions("mrope", columns_first=True), 1e6),
    ("mrope chunked, spatial_reset", LanguagePositions("mrope", spatial_reset=True), 1e6),
    ("mrope interleaved", LanguagePositions("mrope", interleaved=True), 1e6),
    ("mrope interleaved (Qwen3-VL)", LanguagePositions("mrope", interleaved=True), 5e6),
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


def language_rows() -> list[dict[str, Any]]:
    """One row of measured properties per case, in the order of `CASES`.

    Keys: ``site``, ``scheme``, ``setting``; booleans ``norm_preserved``, ``relative_invariance`` (scores stay when text
    is put in front of everything), ``axis_swap`` (exchanging rows and columns exchanges channels, nothing else),
    ``injective`` (no two patches share a position), ``text_1d`` and ``start_unchanged`` (logits of a Llama on text, and
    on text with an image, are bit-equal to ordinary positions), ``decode_consistent`` (so are cached and uncached
    logits, within 1e-5); floats ``turn_rows`` and ``turn_columns`` (radians: the largest rotation of any pair along
    that axis of a 24 x 24 image), ``next_position`` (of the text behind the image, counted from its start).
    """
    rows = []
    for label, positions, base in CASES:
        grid, model = _OnGrid(positions, base), _OnLlama(positions, base)
        turn_rows, turn_columns = grid.turns()
        rows.append(
            {
                "site": "language",
                "scheme": label,
                "setting": f"D={HEAD_DIM}, base {base / 1e6:g}e6, {GRID[0]}x{GRID[1]}",
                "norm_preserved": model.norm_preserved(),
                "relative_invariance": grid.relative_invariance(),
                "axis_swap": grid.axis_swap(),
                "injective": grid.injective(),
                "text_1d": model.text_1d(),
                "start_unchanged": model.start_unchanged(),
                "turn_rows": turn_rows,
                "turn_columns": turn_columns,
                "next_position": grid.next_position(),
                "decode_consistent": model.decode_consistent(),
            }
        )
    return rows


def _sequence(positions: LanguagePositions, grid: tuple[int, int], before: int) -> tuple[Tensor, Tensor, Placement]:
    """Ordinary positions, image flags and placement of ``before`` text tokens, an image and three text tokens."""
    tokens = tokens_per_image(positions, grid)
    logical_1l = torch.arange(before + tokens + 3)[None]
    image_1l = (logical_1l >= before) & (logical_1l < before + tokens)
    return logical_1l, image_1l, place(positions, logical_1l, image_1l, [grid])


@dataclass(frozen=True)
class _OnGrid:
    """Properties of the angles over one image."""

    positions: LanguagePositions
    base: float

    def angles(self, before: int) -> Tensor:
        """Angles of a whole sequence, shape (tokens, pairs of all heads)."""
        inv_freq = self.base ** (-torch.arange(HEAD_DIM // 2, dtype=torch.float64) / (HEAD_DIM // 2))
        _, _, placement = _sequence(self.positions, GRID, before)
        all_b___ = angles(self.positions, placement.ids_abl, inv_freq, KV_HEADS)
        return all_b___[0] if all_b___.ndim == 3 else all_b___[0].transpose(0, 1).flatten(1)

    @cached_property
    def patches_hwp(self) -> Tensor:
        """Angles of the patches alone, shape (rows, columns, pairs of all heads)."""
        height, width = GRID
        tokens = tokens_per_image(self.positions, GRID)
        return self.angles(5)[5 : 5 + tokens].unflatten(0, (height, -1))[:, :width]

    def turns(self) -> tuple[float, float]:
        along_rows, along_columns = (
            (self.patches_hwp.amax(dim=axis) - self.patches_hwp.amin(dim=axis)).max().item() for axis in (0, 1)
        )
        return along_rows, along_columns

    def relative_invariance(self) -> bool:
        near, far = (self.angles(before)[before - 5 :] for before in (5, 12))
        return torch.allclose(near - near[0], far - far[0], rtol=0, atol=1e-9)

    def axis_swap(self) -> bool:
        relative_hwp = self.patches_hwp[:8, :8] - self.patches_hwp[0, 0]
        as_is_pn, swapped_pn = relative_hwp.flatten(0, 1).T, relative_hwp.transpose(0, 1).flatten(0, 1).T
        # A pair may also turn the other way round: that exchanges its two channels. Distances by differences are exact
        # where they are zero, unlike those by products.
        exact = "donot_use_mm_for_euclid_dist"
        distances_pp = torch.minimum(
            torch.cdist(as_is_pn, swapped_pn, compute_mode=exact),
            torch.cdist(as_is_pn, -swapped_pn, compute_mode=exact),
        )
        return bool((distances_pp.amin(dim=0) < 1e-9).all() and (distances_pp.amin(dim=1) < 1e-9).all())

    def injective(self) -> bool:
        _, image_1l, placement = _sequence(self.positions, GRID, 5)
        ids_an = placement.ids_abl[:, image_1l].double().round(decimals=9)
        return ids_an.unique(dim=1).shape[1] == ids_an.shape[1]

    def next_position(self) -> float:
        _, _, placement = _sequence(self.positions, GRID, 5)
        return float(placement.ids_abl[0, 0, -3]) - 5


class _OnLlama:
    """Properties of a small random Llama with the scheme installed."""

    def __init__(self, positions: LanguagePositions, base: float) -> None:
        self.positions = positions
        config = LlamaConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=KV_HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            rope_parameters={"rope_type": "default", "rope_theta": base},
            initializer_range=0.3,
            pad_token_id=0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = LlamaForCausalLM(config).eval()
            self.logical_1l, self.image_1l, self.placement = _sequence(positions, SMALL, 3)
            self.tokens_1l = torch.randint(1, 32, self.logical_1l.shape)
            self.ones_1l = torch.ones_like(self.tokens_1l)
            self.plain_1lv = self._logits(self.logical_1l, self.ones_1l)
            install(self.model, positions)

    def norm_preserved(self) -> bool:
        rotary: Any = self.model.model.rotary_emb
        cos, sin = rotary(torch.zeros(1), self._ids(self.placement))
        # Two channels of a pair that turn alike, by the cosine and sine of one angle.
        one = torch.ones_like(cos)
        alike = all(torch.equal(*table.chunk(2, dim=-1)) for table in (cos, sin))
        return alike and torch.allclose(cos**2 + sin**2, one, rtol=0, atol=1e-6)

    def text_1d(self) -> bool:
        placement = place(self.positions, self.logical_1l, torch.zeros_like(self.image_1l), [])
        return torch.equal(self._logits(self._ids(placement), self.ones_1l), self.plain_1lv)

    def start_unchanged(self) -> bool:
        return torch.equal(self._placed(), self.plain_1lv)

    def decode_consistent(self) -> bool:
        cache, past = DynamicCache(config=self.model.config), self.tokens_1l.shape[1] - 3
        visible = mask(self.positions, self.image_1l[:, :past], [SMALL], self.ones_1l[:, :past])
        prefill = place(self.positions, self.logical_1l[:, :past], self.image_1l[:, :past], [SMALL])
        parts = [self._logits(self._ids(prefill), visible, cache, slice(past))]
        for step in range(past, past + 3):
            ids_11 = self.logical_1l[:, step : step + 1] + prefill.delta_b[:, None]
            parts.append(self._logits(ids_11, self.ones_1l[:, : step + 1], cache, slice(step, step + 1)))
        return torch.allclose(torch.cat(parts, dim=1), self._placed(), rtol=0, atol=1e-5)

    def _ids(self, placement: Placement) -> Tensor:
        return placement.ids_abl[0] if self.positions.scheme == "rope1d" else placement.ids_abl

    def _placed(self) -> Tensor:
        visible = mask(self.positions, self.image_1l, [SMALL], self.ones_1l)
        return self._logits(self._ids(self.placement), visible)

    @torch.no_grad()
    def _logits(self, ids: Tensor, visible: Any, cache: Any = None, part: slice = slice(None)) -> Tensor:
        return self.model(
            self.tokens_1l[:, part],
            attention_mask=visible,
            position_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits
