"""Attention: from the tokens that ask, does the language model look at the objects that are asked about?

Looking at an object is mass (its share of the attention on the picture), enrichment (mass over its share of the
picture's area) and AUROC (attention against the object's box). How sharply and how much the picture is looked at is
entropy and share. All of it is correlation; what attention does to answers, `intervention` measures.
"""

from typing import Any

import numpy as np

from blindspot.diagnostics.attention.intervention import FORMS, TASKS, scaling
from blindspot.diagnostics.attention.look import PAIRS, QUERIES, Look, look
from blindspot.diagnostics.attention.plots import Looked, Rollout, Sensitivity, Share
from blindspot.diagnostics.base import Budget, Findings, Report, Table, Value, bounds, resampled_means
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.stimuli import Stimulus, answers, directions
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.scenes.world import CANVAS

SHOWN = 6
MEASURES = ("mass", "enrichment", "auroc")
_STIMULI = "Intervals: bootstrap over stimuli."
_SHARES = "Attention on the picture, and its entropy, by query and language-model layer"
_LAYERS = "Layer 0 is the language model's first."


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Where every layer looks, how much of it is the picture, and accuracy when that is scaled."""
    if isinstance(vlm.model, BlindspotForConditionalGeneration) and vlm.model.model.gated:
        return Findings(
            [Table("shares", _SHARES, [], ("Pictures reach this model by cross-attention, not as tokens.",))]
        )
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    steps = -(-len(stimuli) // budget.batch) + len(TASKS)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        report(done, steps)

    found = look(vlm, stimuli, budget.batch, SHOWN, step)
    objects = _objects(found) if found.grid is not None else []
    shares = _shares(found)
    rollout = _rollout(found) if found.grid is not None else []
    tables = [
        Table("objects", "Attention on objects, by query, object, and language-model layer", objects, (
            "Enrichment: 1 if attention is even over the picture. AUROC: 0.5 if it does not tell the object.",
            "Object `other`: any that is not asked about; of stimuli that have one. Where the question ends with the "
            "reference, the last token is the reference's.",
            "Heads `best`: the one of highest enrichment on the first half of the stimuli, measured on the second.",
            _LAYERS, _STIMULI)),
        Table("shares", _SHARES, shares, (
            "`even` is what the share would be if attention were even over all tokens that the query sees.",
            "Without opening: attention on text before the picture (system prompt, first token) left out.",
            "Entropy within the picture: 1 if attention is even, 0 if on one token. Means over heads.",
            _LAYERS, _STIMULI)),
        Table("rollout", "Attention rollout from the last token to objects, up to each language-model layer", rollout, (
            "Mean of heads and identity, half each, multiplied over layers.", _LAYERS, _STIMULI)),
        Table("sensitivity", "Change of the picture's share with alpha, layer by layer alone", _sensitivity(found), (
            "Derivative at alpha 1 of the last token's share of attention on the picture; mean over heads.",
            _LAYERS, _STIMULI)),
        scaling(vlm, budget, step),
    ]  # fmt: skip
    return Findings(tables, _pictures(vlm, stimuli, found) if found.grid is not None else {})


def _objects(found: Look) -> list[Looked]:
    """Rows of every pair, layer, measure and choice of heads."""
    rows: list[Looked] = []
    half = len(found.has_bp) // 2
    for pair, (query, target) in enumerate(PAIRS):
        kept_b = found.has_bp[:, pair]
        first_b, second_b = kept_b & (np.arange(len(kept_b)) < half), kept_b & (np.arange(len(kept_b)) >= half)
        if not first_b.any() or not second_b.any():
            continue
        values_mblh = np.stack([getattr(found, measure)[..., pair] for measure in MEASURES])
        best_l = values_mblh[1, first_b].mean(axis=0).argmax(axis=-1)
        best_mbl = np.take_along_axis(values_mblh[:, second_b], best_l[None, None, :, None], axis=-1)[..., 0]
        means = _means(values_mblh[:, kept_b].mean(axis=-1).transpose(1, 0, 2))
        bests = _means(best_mbl.transpose(1, 0, 2))
        for number, measure in enumerate(MEASURES):
            for layer in range(len(best_l)):
                for heads, head, found_at in (("mean", None, means), ("best", int(best_l[layer]), bests)):
                    rows.append({"query": query, "object": target, "measure": measure, "layer": layer,
                                 "heads": heads, "head": head, **found_at[number][layer]})  # fmt: skip
    return rows


def _shares(found: Look) -> list[Share]:
    rows: list[Share] = []
    for name, values_blhq in (
        ("share", found.share),
        ("share without opening", found.behind),
        ("entropy", found.entropy),
    ):
        means = _means(values_blhq.mean(axis=2).transpose(0, 2, 1))
        for number, query in enumerate(QUERIES):
            even = {"share": found.even_bq, "share without opening": found.even_behind_bq}.get(name)
            beside = None if even is None else float(even[:, number].mean())
            rows.extend(
                {"query": query, "measure": name, "layer": layer, **row, "even": beside}
                for layer, row in enumerate(means[number])
            )
    return rows


def _rollout(found: Look) -> list[Rollout]:
    rows: list[Rollout] = []
    for pair, (query, target) in enumerate(PAIRS):
        kept_b = found.has_bp[:, pair]
        if query == "last" and kept_b.any():
            means = _means(found.rollout[kept_b][..., pair, :].transpose(0, 2, 1))
            for number, measure in enumerate(MEASURES):
                rows.extend(
                    {"object": target, "measure": measure, "layer": layer, **row}
                    for layer, row in enumerate(means[number])
                )
    return rows


def _sensitivity(found: Look) -> list[Sensitivity]:
    means = _means(found.growth.mean(axis=2).transpose(0, 2, 1))
    return [
        {"form": form, "layer": layer, **row}
        for number, form in enumerate(FORMS)
        for layer, row in enumerate(means[number])
    ]


def _means(values_bxl: np.ndarray) -> list[list[Value]]:
    """Mean over stimuli and its interval, for each entry of the other two axes."""
    count, first, second = values_bxl.shape
    drawn_rs = resampled_means(values_bxl.reshape(count, -1))
    low, high = (bound.reshape(first, second) for bound in bounds(drawn_rs))
    mean = values_bxl.mean(axis=0, dtype=float)
    return [
        [
            {"value": float(mean[x, y]), "low": float(low[x, y]), "high": float(high[x, y]), "n": count}
            for y in range(second)
        ]
        for x in range(first)
    ]


def _pictures(vlm: HookedVLM, stimuli: list[Stimulus], found: Look) -> dict[str, Any]:
    """Maps of attention in the middle layer and in the one that looks most at what is asked about, and their pictures.

    ``maps`` has shape (queries, layers, stimuli, rows, columns) and sums to 1 over rows and columns, ``boxes`` are x0,
    y0, x1, y1 of subject and reference as shares of the picture's side.
    """
    assert found.grid is not None
    shown = stimuli[:SHOWN]
    enriched_l = found.enrichment[..., PAIRS.index(("last", "asked"))].mean(axis=(0, 2))
    layers = [len(enriched_l) // 2, int(enriched_l.argmax())]
    maps_bqkn = found.maps[:, layers].transpose(0, 2, 1, 3)
    boxes = [[thing.box for thing in (stimulus.subject, stimulus.reference)] for stimulus in shown]
    return {
        "images": np.stack([stimulus.image(vlm.side) for stimulus in shown]),
        "maps": maps_bqkn.transpose(1, 2, 0, 3).reshape(len(QUERIES), len(layers), len(shown), *found.grid),
        "queries": np.array(QUERIES),
        "layers": np.array(layers),
        "boxes": np.array(boxes, dtype=np.float32) / CANVAS,
        "cells": np.array([[stimulus.subject.cell, stimulus.reference.cell] for stimulus in shown]),
        "prompts": np.array([stimulus.prompt for stimulus in shown]),
        "answers": np.array([stimulus.answer for stimulus in shown]),
        "given": np.array([stimulus.choices[found.chosen_b[number]] for number, stimulus in enumerate(shown)]),
        "right": (found.chosen_b == answers(stimuli))[:SHOWN],
    }
