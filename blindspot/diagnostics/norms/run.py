"""How large image tokens are beside text tokens in the language model, and whether their order matters.

Permutation sensitivity index (arXiv 2503.17349): (accuracy - accuracy with the image tokens in random order) /
accuracy, 0 for a model that reads a bag of patches. Only contents are permuted: the places where they stand keep their
positions. The same with every image token scaled to the text tokens' mean norm, which that paper found to help.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, bounds, estimate, resampled, share, steps
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Change, Changes, Site
from blindspot.diagnostics.core.stimuli import TASKS, answers, directions

ENTRY = Site("language", 0)


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    step, permute = steps(report, len(TASKS) + 1), partial(permuted, seed=budget.seed)
    norms = _norms(vlm, budget)
    step()
    conditions: dict[str, list[Callable[[Prepared], Change]]] = {
        "as it is": [],
        "permuted": [permute],
        "norms matched": [matched],
        "norms matched, permuted": [matched, permute],
    }
    accuracy: list[Row] = []
    indices: list[Row] = []
    for task, draw in TASKS.items():
        asked = draw(budget.stimuli, budget.seed, vlm.speech)
        right = []
        for parts in conditions.values():
            given_b = vlm.choices(asked, budget.batch, lambda p, parts=parts: Changes([(ENTRY, of(p)) for of in parts]))
            right.append(given_b == answers(asked))
        accuracy += [{"task": task, "condition": name, **share(right_b)}
                     for name, right_b in zip(conditions, right, strict=True)]  # fmt: skip
        indices.append({"task": task, "norms": "as they are", **index(right[0], right[1])})
        indices.append({"task": task, "norms": "matched", **index(right[2], right[3])})
        step()
    return Findings(
        [
            Table("norms", "Norm of image tokens over norm of text tokens, by language-model layer", norms,
                  ("Text: the tokens behind the picture. Intervals: bootstrap over pictures.",)),
            Table("accuracy", "Accuracy with image tokens permuted and scaled", accuracy, ("Intervals: Wilson.",)),
            Table("permutation", "Permutation sensitivity index, by task", indices,
                  ("0: order does not matter; None where nothing is answered right. Intervals: paired bootstrap.",)),
        ]
    )  # fmt: skip


def _norms(vlm: HookedVLM, budget: Budget) -> list[Row]:
    sites = vlm.sites("language")
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for prepared in vlm.batches(directions(budget.stimuli, budget.seed, vlm.speech), budget.batch):
        trace = vlm.run(prepared, sites)
        for site in sites:
            norm_bt = trace.states[site].float().norm(dim=-1)
            pair = [_mean(norm_bt, prepared.image_bt), _mean(norm_bt, prepared.behind_bt)]
            found[site].append(torch.stack(pair, dim=1).cpu())
    rows: list[Row] = []
    for site in sites:
        norms_b2 = torch.cat(found[site]).numpy()
        drawn_r2, (image, text) = resampled(norms_b2), (norms_b2[:, k].mean() for k in (0, 1))
        row = estimate(image / text, bounds(drawn_r2[:, 0] / drawn_r2[:, 1]), len(norms_b2))
        rows.append({"layer": site.layer, **row, "image": float(image), "text": float(text)})
    return rows


def _mean(values_bt: Tensor, chosen_bt: Tensor) -> Tensor:
    return (values_bt * chosen_bt).sum(dim=1) / chosen_bt.sum(dim=1)


def permuted(prepared: Prepared, seed: int) -> Change:
    """Every picture's tokens in an order of its own; the order depends on the stimulus, not on the batch."""
    source_bt = torch.arange(prepared.image_bt.shape[1]).repeat(len(prepared.stimuli), 1)
    for source_t, image_t, stimulus in zip(source_bt, prepared.image_bt.cpu(), prepared.stimuli, strict=True):
        generator = np.random.default_rng([seed, *repr(stimulus.scene).encode()])
        source_t[image_t] = source_t[image_t][torch.from_numpy(generator.permutation(int(image_t.sum())))]
    return lambda states_btd: states_btd.gather(1, source_bt.to(states_btd.device)[..., None].expand_as(states_btd))


def matched(prepared: Prepared) -> Change:
    """Every image token with the mean norm of the text behind the picture."""

    def change(states_btd: Tensor) -> Tensor:
        norm_bt = states_btd.float().norm(dim=-1)
        scale_bt = _mean(norm_bt, prepared.behind_bt)[:, None] / norm_bt.clamp_min(1e-9)
        scaled_btd = states_btd * scale_bt[..., None].to(states_btd.dtype)
        return torch.where(prepared.image_bt[..., None], scaled_btd, states_btd)

    return change


def index(plain_b: np.ndarray, permuted_b: np.ndarray) -> Row:
    if not plain_b.any():
        return estimate(None, (None, None), len(plain_b))
    drawn_r2 = resampled(np.stack([plain_b, permuted_b], axis=1).astype(float))
    plain_r, permuted_r = drawn_r2[drawn_r2[:, 0] > 0].T  # of a few stimuli some draws have none that is right
    return estimate(1 - permuted_b.mean() / plain_b.mean(), bounds(1 - permuted_r / plain_r), len(plain_b))
