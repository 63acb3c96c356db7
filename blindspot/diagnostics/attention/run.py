"""Attention: from the tokens that ask, does the language model look at the objects that are asked about?

Looking at an object is mass (its share of the attention on the picture), enrichment (mass over its share of the
picture's area) and AUROC (attention against the object's box). How sharply and how much the picture is looked at is
entropy and share. All of it is correlation.

What attention does to answers, AdaptVis and ScalingVis show (arXiv 2503.01773): scores of the last query on the
picture's tokens are multiplied by alpha in every layer. ScalingVis: one alpha. AdaptVis: a small alpha where the model
is unsure, a large one where it is sure. What multiplying does depends on the sign of a score, and so on a constant that
the softmax does not see; the shift-invariant form scales the distance to the picture's highest score instead.

Suffixes: ``b`` stimuli, ``l`` layers, ``h`` heads, ``q`` queries, ``p`` pairs of a query and an object, ``k`` keys,
``n`` the picture's tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import log
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics import base
from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, against, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import attending
from blindspot.diagnostics.core.parts import Grid, Layout
from blindspot.diagnostics.core.stimuli import Stimulus, answers, directions, statements
from blindspot.scenes.world import CANVAS

SHOWN = 6
QUERIES = ("last", "subject", "reference")
PAIRS = (
    ("last", "asked"),
    ("last", "subject"),
    ("last", "reference"),
    ("last", "other"),
    ("subject", "subject"),
    ("subject", "other"),
    ("reference", "reference"),
    ("reference", "other"),
)
"""Whose attention is held against which object; ``asked`` is subject and reference, ``other`` all the rest."""
Form = Literal["published", "shift-invariant"]
FORMS: tuple[Form, ...] = get_args(Form)
ALPHAS = (0.5, 0.8, 1.2, 1.5, 2.0)
UNSURE, SURE, THRESHOLD = 0.5, 1.5, 0.4
"""AdaptVis as its authors run it on pictures of two objects."""
TASKS = {"direction": directions, "statement": statements}
_SCALING = (
    "Intervals: Wilson; differences to the model as it is are paired, with McNemar's exact p.",
    f"AdaptVis: alpha {UNSURE} where the likeliest first token has a probability below {THRESHOLD}, else {SURE}; the "
    "row says the mean.",
    "Published: scores times alpha. Shift-invariant: distance to the picture's highest score times alpha.",
)
MEASURES = ("mass", "enrichment", "auroc")
_TINY = 1e-30
_STIMULI = "Intervals: bootstrap over stimuli."
_SHARES = "Attention on the picture, and its entropy, by query and language-model layer"
_LAYERS = "Layer 0 is the language model's first."


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    if vlm.gated:
        return Findings(
            [Table("shares", _SHARES, [], ("Pictures reach this model by cross-attention, not as tokens.",))]
        )
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    step = base.steps(report, -(-len(stimuli) // budget.batch) + len(TASKS))
    grid = vlm.image_grid
    grid = grid if grid is not None and grid[0] * grid[1] >= 4 else None
    found = look(vlm, stimuli, budget.batch, grid, step)
    sensitivities = _means(found["growth"].mean(axis=2).transpose(0, 2, 1))
    tables = [
        Table("objects", "Attention on objects, by query, object, and language-model layer", _objects(found), (
            "Enrichment: 1 if attention is even over the picture. AUROC: 0.5 if it does not tell the object.",
            "Object `other`: any that is not asked about; of stimuli that have one. Where the question ends with the "
            "reference, the last token is the reference's.",
            "Heads `best`: the one of highest enrichment on the first half of the stimuli, measured on the second.",
            _LAYERS, _STIMULI)),
        Table("shares", _SHARES, _shares(found), (
            "`even` is what the share would be if attention were even over all tokens that the query sees.",
            "Without opening: attention on text before the picture (system prompt, first token) left out.",
            "Entropy within the picture: 1 if attention is even, 0 if on one token. Means over heads.",
            _LAYERS, _STIMULI)),
        Table("rollout", "Attention rollout from the last token to objects, up to each language-model layer",
              _rollout(found), ("Mean of heads and identity, half each, multiplied over layers.", _LAYERS, _STIMULI)),
        Table("sensitivity", "Change of the picture's share with alpha, layer by layer alone",
              [{"form": form, "layer": layer, **row}
               for form, rows in zip(FORMS, sensitivities, strict=True) for layer, row in enumerate(rows)],
              ("Derivative at alpha 1 of the last token's share of attention on the picture; mean over heads.",
               _LAYERS, _STIMULI)),
        scaling(vlm, budget, step),
    ]  # fmt: skip
    return Findings(tables, {} if grid is None else _pictures(vlm, stimuli, found, grid))


def look(
    vlm: HookedVLM, stimuli: Sequence[Stimulus], batch: int, grid: Grid | None, step: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Ask stimuli that mention a subject and a reference, and measure attention as it is computed.

    Without a grid the picture's tokens have no place, and no stimulus has an object. What is found: ``has_bp``: whether
    the stimulus has the object. ``mass``, ``enrichment``, ``auroc``: shape (b, l, h, p). ``share``, ``behind``,
    ``entropy``: share on the picture, the same without what is before it, entropy within it; (b, l, h, q). ``even_bq``,
    ``even_behind_bq``: both shares if attention were even. ``growth``: derivative of the share by alpha, (b, l, h,
    forms). ``rollout``: from the last token, (b, l, p, measures). ``maps``: attention within the picture, mean over
    heads, of the first `SHOWN` stimuli, (b, l, q, n). ``chosen_b``: the answer.
    """
    parts: list[dict[str, np.ndarray]] = []
    for number, prepared in enumerate(vlm.batches(stimuli, batch)):
        parts.append(_watched(vlm, prepared, grid))
        parts[-1]["maps"] = parts[-1]["maps"][: max(0, SHOWN - number * batch)]
        step()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _watched(vlm: HookedVLM, prepared: Prepared, grid: Grid | None) -> dict[str, np.ndarray]:
    """What `look` returns, of one batch; maps of all."""
    image_bt = prepared.image_bt
    (batch, length), device = image_bt.shape, image_bt.device
    image_bn = image_bt.nonzero()[:, 1].view(batch, -1)
    last_b = torch.full((batch,), length - 1)
    query_bq = torch.stack([last_b, *(prepared.mentions[role] for role in QUERIES[1:])], dim=1).to(device)
    object_bpn = torch.zeros(batch, len(PAIRS), image_bn.shape[1], dtype=torch.bool, device=device)
    if grid is not None:
        object_bpn = torch.from_numpy(_object_patches(prepared.stimuli, grid)).to(device)
    opening_bt = torch.arange(length, device=device) < image_bn[:, :1]
    mask_bt = prepared.inputs.get("attention_mask", torch.ones_like(image_bt)).bool()
    seen_bqt = mask_bt[:, None] & (torch.arange(length, device=device) <= query_bq[..., None])
    even, behind = (image_bn.shape[1] / seen.sum(dim=-1) for seen in (seen_bqt, seen_bqt & ~opening_bt[:, None]))
    rolled_btn = unrolled(image_bt)
    layers: dict[str, list[Tensor]] = defaultdict(list)

    def see(_: int, rows_bhqt: Tensor, mean_btt: Tensor, scores_bhk: Tensor) -> None:
        nonlocal rolled_btn
        image_bhqn = rows_bhqt.gather(3, image_bn[:, None, None].expand(-1, *rows_bhqt.shape[1:3], -1))
        share_bhq = image_bhqn.sum(dim=-1)
        opening_bhq = (rows_bhqt * opening_bt[:, None, None]).sum(dim=-1)
        rolled_btn = rolled(mean_btt, rolled_btn)
        grown = [sensitivity(rows_bhqt[:, :, 0], image_bt, growth(scores_bhk, image_bt, form)) for form in FORMS]
        on_objects = _on_objects(image_bhqn[:, :, [QUERIES.index(query) for query, _ in PAIRS]], object_bpn)
        last_b1pn = rolled_btn[:, None, None, -1].expand(-1, -1, len(PAIRS), -1)
        found = {
            **dict(zip(MEASURES, on_objects, strict=True)),
            "share": share_bhq,
            "behind": share_bhq / (1 - opening_bhq).clamp_min(_TINY),
            "entropy": entropy(image_bhqn),
            "growth": torch.stack(grown, dim=-1),
            "maps": (image_bhqn / share_bhq.clamp_min(_TINY)[..., None]).mean(dim=1),
            "rollout": torch.stack([measure[:, 0] for measure in _on_objects(last_b1pn, object_bpn)], dim=-1),
        }
        for name, value in found.items():
            layers[name].append(value.cpu())

    with attending(vlm.roles.layers, query_bq, see):
        chosen_b = vlm.run(prepared).choices_b
    single = {"even_bq": even, "even_behind_bq": behind, "has_bp": object_bpn.any(dim=-1), "chosen_b": chosen_b}
    stacked = {name: torch.stack(values, dim=1).numpy() for name, values in layers.items()}
    return stacked | {name: value.cpu().numpy() for name, value in single.items()}


def _object_patches(stimuli: Sequence[Stimulus], grid: Grid) -> np.ndarray:
    """Patches of the object of every pair, shape (stimuli, pairs, patches)."""
    layout, found = Layout.raster(grid), np.zeros((len(stimuli), len(PAIRS), grid[0] * grid[1]), dtype=bool)
    for found_pn, stimulus in zip(found, stimuli, strict=True):
        boxes = np.array([thing.box for thing in stimulus.scene.things]) / CANVAS
        subject, reference, *others = map(layout.on, boxes)
        parts = {"subject": subject, "reference": reference, "asked": subject | reference}
        parts["other"] = np.any([np.zeros_like(subject), *others], axis=0)
        found_pn[:] = [parts[target] for _, target in PAIRS]
    return found


def _on_objects(image_bhpn: Tensor, object_bpn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`MEASURES` of attention on the picture; of no use where a stimulus has no object."""
    mass_bhp = mass(image_bhpn, object_bpn)
    return mass_bhp, enrichment(mass_bhp, object_bpn), auroc(image_bhpn, object_bpn)


def mass(image_bhpn: Tensor, object_bpn: Tensor) -> Tensor:
    """Share of the attention on the picture that lies on the object, shape (b, h, p)."""
    return (image_bhpn * object_bpn[:, None]).sum(dim=-1) / image_bhpn.sum(dim=-1).clamp_min(_TINY)


def enrichment(mass_bhp: Tensor, object_bpn: Tensor) -> Tensor:
    """The object's share of attention over its share of the picture, shape (b, h, p); 1 if attention is even."""
    return mass_bhp / object_bpn.float().mean(dim=-1)[:, None]


def auroc(image_bhpn: Tensor, object_bpn: Tensor) -> Tensor:
    """How often a patch of the object gets more attention than another one, ties half; shape (b, h, p)."""
    values = image_bhpn.contiguous()
    ordered = values.sort(dim=-1).values
    below, upto = (torch.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    inside_bhp = ((below + upto) / 2 * object_bpn[:, None]).sum(dim=-1)
    object_b1p = object_bpn.sum(dim=-1)[:, None].float()
    return (inside_bhp - object_b1p**2 / 2) / (object_b1p * (object_bpn.shape[-1] - object_b1p))


def entropy(image_bhqn: Tensor) -> Tensor:
    """Entropy of attention within the picture over that of even attention, shape (b, h, q)."""
    share = image_bhqn / image_bhqn.sum(dim=-1, keepdim=True).clamp_min(_TINY)
    return -torch.special.xlogy(share, share).sum(dim=-1) / log(max(2, image_bhqn.shape[-1]))


def sensitivity(weights_bhk: Tensor, image_bk: Tensor, change_bhk: Tensor) -> Tensor:
    """Derivative of the picture's share of a query's attention by a parameter of the scores, shape (b, h).

    share of picture x share of the rest x (mean change of the picture's scores - mean change of the others), means
    weighted by attention (arXiv 2503.17349); ``change_bhk`` is the derivative of each score.
    """
    image_b1k = image_bk[:, None].to(weights_bhk.dtype)
    inside, outside = weights_bhk * image_b1k, weights_bhk * (1 - image_b1k)
    share, rest = inside.sum(dim=-1), outside.sum(dim=-1)
    mean_inside = (inside * change_bhk).sum(dim=-1) / share.clamp_min(_TINY)
    mean_outside = (outside * change_bhk).sum(dim=-1) / rest.clamp_min(_TINY)
    return share * rest * (mean_inside - mean_outside)


def unrolled(image_bt: Tensor) -> Tensor:
    """Attention rollout before the first layer, shape (b, tokens, n): each of the picture's tokens is its own."""
    image_bn = image_bt.nonzero()[:, 1].view(len(image_bt), -1)
    return torch.zeros(*image_bt.shape, image_bn.shape[1], device=image_bt.device).scatter(1, image_bn[:, None], 1.0)


def rolled(mean_btt: Tensor, before_btn: Tensor) -> Tensor:
    """One layer of attention rollout (Abnar and Zuidema 2020), shape (b, tokens, n): mean of heads and identity."""
    return (mean_btt @ before_btn + before_btn) / 2


def _objects(found: dict[str, np.ndarray]) -> list[Row]:
    rows: list[Row] = []
    half = len(found["has_bp"]) // 2
    for pair, (query, target) in enumerate(PAIRS):
        kept_b = found["has_bp"][:, pair]
        first_b, second_b = kept_b & (np.arange(len(kept_b)) < half), kept_b & (np.arange(len(kept_b)) >= half)
        if not first_b.any() or not second_b.any():
            continue
        values_mblh = np.stack([found[measure][..., pair] for measure in MEASURES])
        best_l = values_mblh[1, first_b].mean(axis=0).argmax(axis=-1)
        best_mbl = np.take_along_axis(values_mblh[:, second_b], best_l[None, None, :, None], axis=-1)[..., 0]
        means = _means(values_mblh[:, kept_b].mean(axis=-1).transpose(1, 0, 2))
        bests = _means(best_mbl.transpose(1, 0, 2))
        for number, measure in enumerate(MEASURES):
            for layer, best in enumerate(best_l.tolist()):
                of = {"query": query, "object": target, "measure": measure, "layer": layer}
                rows.append({**of, "heads": "mean", "head": None, **means[number][layer]})
                rows.append({**of, "heads": "best", "head": best, **bests[number][layer]})
    return rows


def _shares(found: dict[str, np.ndarray]) -> list[Row]:
    rows: list[Row] = []
    measures = (("share", "share", "even_bq"), ("share without opening", "behind", "even_behind_bq"),
                ("entropy", "entropy", None))  # fmt: skip
    for name, key, even in measures:
        means = _means(found[key].mean(axis=2).transpose(0, 2, 1))
        for number, query in enumerate(QUERIES):
            beside = None if even is None else float(found[even][:, number].mean())
            rows += [{"query": query, "measure": name, "layer": layer, **row, "even": beside}
                     for layer, row in enumerate(means[number])]  # fmt: skip
    return rows


def _rollout(found: dict[str, np.ndarray]) -> list[Row]:
    rows: list[Row] = []
    for pair, (query, target) in enumerate(PAIRS):
        kept_b = found["has_bp"][:, pair]
        if query == "last" and kept_b.any():
            means = _means(found["rollout"][kept_b][..., pair, :].transpose(0, 2, 1))
            rows += [{"object": target, "measure": measure, "layer": layer, **row}
                     for measure, of in zip(MEASURES, means, strict=True) for layer, row in enumerate(of)]  # fmt: skip
    return rows


def _means(values_bxl: np.ndarray) -> list[list[Row]]:
    """Mean over stimuli and its interval, for each entry of the other two axes."""
    count, first, second = values_bxl.shape
    ends_exl = base.bounds(base.resampled(values_bxl.reshape(count, -1))).reshape(2, first, second)
    mean_xl = values_bxl.mean(axis=0, dtype=float)
    return [[base.estimate(mean_xl[x, y], ends_exl[:, x, y], count) for y in range(second)] for x in range(first)]


def _pictures(vlm: HookedVLM, stimuli: list[Stimulus], found: dict[str, np.ndarray], grid: Grid) -> dict[str, Any]:
    """Maps of attention in the middle layer and in the one that looks most at what is asked about, and their pictures.

    ``maps`` has shape (queries, layers, stimuli, rows, columns) and sums to 1 over rows and columns, ``boxes`` are x0,
    y0, x1, y1 of subject and reference as shares of the picture's side.
    """
    shown, chosen_b = stimuli[:SHOWN], found["chosen_b"][:SHOWN]
    enriched_l = found["enrichment"][..., PAIRS.index(("last", "asked"))].mean(axis=(0, 2))
    layers = [len(enriched_l) // 2, int(enriched_l.argmax())]
    maps_qkbn = found["maps"][:, layers].transpose(2, 1, 0, 3)
    return {
        "images": np.stack([stimulus.image(vlm.side) for stimulus in shown]),
        "maps": maps_qkbn.reshape(*maps_qkbn.shape[:3], *grid),
        "queries": np.array(QUERIES),
        "layers": np.array(layers),
        "boxes": np.array([[s.subject.box, s.reference.box] for s in shown], dtype=np.float32) / CANVAS,
        "cells": np.array([[s.subject.cell, s.reference.cell] for s in shown]),
        "prompts": np.array([stimulus.prompt for stimulus in shown]),
        "answers": np.array([stimulus.answer for stimulus in shown]),
        "given": np.array([stimulus.choices[chosen] for stimulus, chosen in zip(shown, chosen_b, strict=True)]),
    }


def growth(scores_bhk: Tensor, image_bk: Tensor, form: Form) -> Tensor:
    """Derivative of the last query's scores by alpha at alpha 1, shape (batch, heads, keys); 0 outside the picture."""
    outside_b1k = ~image_bk[:, None]
    if form == "shift-invariant":
        highest = scores_bhk.masked_fill(outside_b1k, float("-inf")).amax(dim=-1, keepdim=True)
        scores_bhk = scores_bhk - highest
    return scores_bhk.masked_fill(outside_b1k, 0)


@contextmanager
def scaled(vlm: HookedVLM, prepared: Prepared, alpha_b: Tensor, form: Form) -> Iterator[None]:
    """Let the last token's scores on the picture be scaled in every layer while the block lasts."""

    def add(_: int, scores_bhk: Tensor) -> Tensor:
        return (alpha_b.to(scores_bhk.device)[:, None, None] - 1) * growth(scores_bhk, prepared.image_bt, form)

    with attending(vlm.roles.layers, add=add):
        yield


def scaling(vlm: HookedVLM, budget: Budget, step: Callable[[], None]) -> Table:
    rows: list[Row] = []
    for task, draw in TASKS.items():
        stimuli = draw(budget.stimuli, budget.seed, vlm.speech)
        found: dict[tuple[str, Form | None, float | None], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for prepared in vlm.batches(stimuli, budget.batch):
            plain = vlm.run(prepared)
            found["none", None, 1.0].append((plain.choices_b, torch.ones_like(plain.sure_b)))
            alphas = {("ScalingVis", alpha): torch.full_like(plain.sure_b, alpha) for alpha in ALPHAS}
            sharper_b = torch.where(plain.sure_b < THRESHOLD, UNSURE, SURE)
            for form, ((method, alpha), alpha_b) in product(FORMS, [*alphas.items(), (("AdaptVis", None), sharper_b)]):
                with scaled(vlm, prepared, alpha_b, form):
                    found[method, form, alpha].append((vlm.run(prepared).choices_b, alpha_b))
        truth_b, plain_b = answers(stimuli), None
        for (method, form, _), parts in found.items():
            chosen_b, alpha_b = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
            right_b = chosen_b == truth_b
            plain_b = right_b if plain_b is None else plain_b
            rows.append({"task": task, "method": method, "form": form, "alpha": float(alpha_b.mean()),
                         **share(right_b), **against(right_b, plain_b)})  # fmt: skip
        step()
    return Table("scaling", "Accuracy when the last token's attention to the picture is scaled", rows, _SCALING)
