"""Whether a model may go on from a beginning that was computed once: tried, since no config says so."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.models.decoding import Settings, forced
from blindspot.evaluation.models.prefix import advance, begin, prefixes
from blindspot.evaluation.models.rows import Row, RowMaker

MOST, MOST_ROUNDED = 1e-4, 0.05
"""Deviation of logits, as a share of their spread, that rounding may cause: in float32, and in fewer bits."""
TOKENS = 3
"""Said by every row, so that going on is tried too."""


def objection(model: Any, maker: RowMaker, settings: Settings) -> str | None:
    """Why this model's prompts must run whole, or None.

    Questions about two pictures of noise go through ``generate``, one by one; then the same tokens are said on top of
    common beginnings, both pictures in one call, and logits are compared. A model whose picture sees the question,
    whose cache is of another kind or whose forward pass wants something else gives itself away here.

    Raises:
        UserError: if ``generate`` itself computes no numbers: the weights overflow in the type that they are held in.
    """
    try:
        groups = [_rows(maker, seed) for seed in (0, 1)]
        if any(not 0 < row.head < len(row.ids) for rows in groups for row in rows):
            return "no tokens of the prompt are known to be its picture"
        alone_bnv, shared_bnv = _logits(model, groups, settings)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model raises that is used in a way it does not know
        why = next(iter(str(error).splitlines()), "")
        return f"a common beginning fails ({type(error).__name__}: {why})"
    if alone_bnv.isnan().any():
        held = str(model.dtype).removeprefix("torch.")
        raise UserError(f"in {held} this model computes no numbers; choose another --dtype")
    known = alone_bnv.isfinite()
    deviation = float((alone_bnv - shared_bnv)[known].square().mean().sqrt() / alone_bnv[known].std())
    if deviation <= (MOST if model.dtype == torch.float32 else MOST_ROUNDED):
        return None
    return f"on top of a common beginning, logits differ by {deviation:.1%}"


def _rows(maker: RowMaker, seed: int) -> list[Row]:
    """Two questions about a picture of noise."""
    noise_hw3 = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise_hw3).save(file, "png")
    questions = ("What is in the picture?", "How many of them are there, and where do you see them?")
    prompts = [Prompt((PICTURE, f"\n{question}\n"), whole=True) for question in questions]
    rows, failed = maker.rows([Asked("", prompt, (file.getvalue(),)) for prompt in prompts])
    if failed:
        raise UserError(failed[0].error or "")
    return rows


def _logits(model: Any, groups: Sequence[Sequence[Row]], settings: Settings) -> tuple[Tensor, Tensor]:
    """Logits of ``generate``, and on top of common beginnings."""
    rows = [row for group in groups for row in group]
    said_bn = torch.tensor([rows[0].ids[-TOKENS:]] * len(rows), device=model.device)
    alone_bnv = torch.cat([forced(model, [row], said_bn[:1], settings) for row in rows])
    made = prefixes(model, groups, most=len(groups))
    state = begin(model, rows, [prefix for prefix, group in zip(made, groups, strict=True) for _ in group])
    first_b1v = state.logits_bv[:, None]
    return alone_bnv, torch.cat([first_b1v, advance(model, state, said_bn[:, :-1])], dim=1)
