"""Attention knockout: which tokens must see which others, and in which layers, for the answer to be right.

Some tokens are hidden from others in a window of the language model's layers (scores of minus infinity); all else
stays. After Zhang et al., "Cross-modal Information Flow in Multimodal Large Language Models" (arXiv 2411.18620).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Report, bounds, resampled_means
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import NOTHING, Changes
from blindspot.diagnostics.core.stimuli import Stimulus, answers
from blindspot.diagnostics.core.token_groups import language_groups
from blindspot.diagnostics.patching.plots import Knocked
from blindspot.evaluation.statistics import Sample

QUESTION = "words and last token"
MOST_WINDOWS = 8
FLOWS = (
    ("all image", QUESTION),
    ("all image", "words"),
    ("all image", "last token"),
    ("words", "last token"),
    ("subject's patches", "subject word"),
    ("subject's patches", "last token"),
    ("reference's patches", "last token"),
    ("other patches", "last token"),
)
"""What is hidden from what. ``words and last token`` is everything behind the picture: the model is then blind."""


def windows(layers: int) -> list[range]:
    """Layers in at most `MOST_WINDOWS` runs of one length (the last may be shorter), and all of them if there are two.

    Args:
        layers: of the language model.
    """
    width = -(-layers // MOST_WINDOWS)
    parts = [range(start, min(start + width, layers)) for start in range(0, layers, width)]
    return [*parts, range(layers)] if len(parts) > 1 else parts


def hidden(prepared: Prepared, groups: dict[str, Tensor], source: str, target: str) -> Tensor:
    """Attention scores that hide a group from another one, shape (batch, 1, tokens, tokens)."""
    seen_bt, seeing_bt = groups[source], groups[target]
    pair_btt = seeing_bt[:, :, None] & seen_bt[:, None, :]
    own_tt = torch.eye(seen_bt.shape[1], dtype=torch.bool, device=seen_bt.device)
    scores = torch.zeros(pair_btt.shape, device=seen_bt.device).masked_fill(pair_btt & ~own_tt, float("-inf"))
    return scores[:, None]


def drops(vlm: HookedVLM, stimuli: Sequence[Stimulus], batch: int, report: Report) -> list[Knocked]:
    """What accuracy and the right answer's margin lose for every flow and window, with intervals over stimuli."""
    spans = windows(len(vlm.roles.layers))
    flows = [flow for flow in FLOWS if vlm.image_grid or "patches" not in flow[0]]
    cases = [(source, target, span) for source, target in flows for span in spans]
    found: list[list[np.ndarray]] = [[] for _ in range(len(cases) + 1)]
    for done, prepared in enumerate(vlm.batches(stimuli, batch)):
        groups = question_groups(vlm, prepared)
        found[0].append(margins(vlm, prepared, NOTHING))
        for number, (source, target, span) in enumerate(cases, start=1):
            scores = hidden(prepared, groups, source, target)
            found[number].append(margins(vlm, prepared, Changes(scores=dict.fromkeys(span, scores))))
            report(done * batch * len(cases) + number * len(prepared.stimuli), len(stimuli) * len(cases))
    margin_qs = np.stack([np.concatenate(parts) for parts in found], axis=1)
    lost_qs = margin_qs[:, :1] - margin_qs[:, 1:]
    wrong_qs = (margin_qs[:, :1] > 0).astype(float) - (margin_qs[:, 1:] > 0)
    low_s, high_s = bounds(resampled_means(lost_qs))
    rows: list[Knocked] = []
    for s, (source, target, span) in enumerate(cases):
        drop = Sample.of(wrong_qs[:, s]).estimate().interval
        rows.append({
            "from": source, "to": target, "first": span.start, "last": span.stop - 1,
            "value": float(wrong_qs[:, s].mean()), "low": drop.low, "high": drop.high, "n": len(stimuli),
            "margin": float(lost_qs[:, s].mean()), "margin_low": float(low_s[s]), "margin_high": float(high_s[s]),
        })  # fmt: skip
    return rows


def question_groups(vlm: HookedVLM, prepared: Prepared) -> dict[str, Tensor]:
    """Groups of tokens, and everything behind the picture."""
    groups = language_groups(prepared, vlm.image_grid)
    return {**groups, QUESTION: groups["words"] | groups["last token"]}


def margins(vlm: HookedVLM, prepared: Prepared, changes: Changes) -> np.ndarray:
    """Logit of the right answer above the best of the others, shape (batch,); positive where it is answered right."""
    logits_bk = vlm.run(prepared, changes=changes).logits_bk.cpu().double()
    right_b1 = torch.from_numpy(answers(prepared.stimuli))[:, None]
    others_bk = logits_bk.scatter(1, right_b1, float("-inf"))
    return (logits_bk.gather(1, right_b1)[:, 0] - others_bk.amax(dim=1)).numpy()
