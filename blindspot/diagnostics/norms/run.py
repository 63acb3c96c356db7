"""How large image tokens are beside text tokens in the language model, and whether their order matters.

Permutation sensitivity index (arXiv 2503.17349): (accuracy - accuracy with the image tokens in random order) /
accuracy, 0 for a model that reads a bag of patches. Only contents are permuted: the places where they stand keep their
positions. The same with every image token scaled to the text tokens' mean norm, which that paper found to help.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Accuracy, Budget, Findings, Report, Table, Value, bounds, resampled_means, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import NOTHING, Changes, Edit, Site
from blindspot.diagnostics.core.stimuli import TASKS, Stimulus, answers, directions
from blindspot.diagnostics.norms.plots import Norm, Permuted

ENTRY = Site("language", 0)
Change = Callable[[Prepared], Changes]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Norms at every layer of the language model, and accuracy under permutation and matched norms for every task."""
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    norms = _norms(vlm, stimuli, budget)
    report(1, len(TASKS) + 1)
    conditions: dict[str, Change] = {
        "as it is": lambda prepared: NOTHING,
        "permuted": lambda prepared: Changes((_permuted(prepared, budget.seed),)),
        "norms matched": lambda prepared: Changes((_matched(prepared),)),
        "norms matched, permuted": lambda prepared: Changes((_matched(prepared), _permuted(prepared, budget.seed))),
    }
    accuracy: list[Accuracy] = []
    index: list[Permuted] = []
    for number, (task, draw) in enumerate(TASKS.items(), start=2):
        asked = draw(budget.stimuli, budget.seed, vlm.speech)
        right = {
            name: vlm.choices(asked, budget.batch, change) == answers(asked) for name, change in conditions.items()
        }
        accuracy.extend({"task": task, "condition": name, **share(right_b)} for name, right_b in right.items())
        index.append({"task": task, "norms": "as they are", **_index(right["as it is"], right["permuted"])})
        matched = _index(right["norms matched"], right["norms matched, permuted"])
        index.append({"task": task, "norms": "matched", **matched})
        report(number, len(TASKS) + 1)
    return Findings(
        [
            Table("norms", "Norm of image tokens over norm of text tokens, by language-model layer", norms,
                  ("Text: the tokens behind the picture. Intervals: bootstrap over pictures.",)),
            Table("accuracy", "Accuracy with image tokens permuted and scaled", accuracy, ("Intervals: Wilson.",)),
            Table("permutation", "Permutation sensitivity index, by task", index,
                  ("0: order does not matter; None where nothing is answered right. Intervals: paired bootstrap.",)),
        ]
    )  # fmt: skip


def _norms(vlm: HookedVLM, stimuli: list[Stimulus], budget: Budget) -> list[Norm]:
    sites = vlm.sites("language")
    found: dict[Site, list[np.ndarray]] = {site: [] for site in sites}
    for prepared in vlm.batches(stimuli, budget.batch):
        trace = vlm.run(prepared, sites)
        for site in sites:
            norm_bt = trace.states[site].float().norm(dim=-1)
            pair = torch.stack([_mean(norm_bt, prepared.image_bt), _mean(norm_bt, prepared.behind_bt)], dim=1)
            found[site].append(pair.cpu().numpy())
    rows: list[Norm] = []
    for site in sites:
        image_b, text_b = np.concatenate(found[site]).T
        drawn_r2 = resampled_means(np.stack([image_b, text_b], axis=1))
        low, high = bounds(drawn_r2[:, 0] / drawn_r2[:, 1])
        ratio = float(image_b.mean() / text_b.mean())
        rows.append({"layer": site.layer, "value": ratio, "low": float(low), "high": float(high), "n": len(stimuli),
                     "image": float(image_b.mean()), "text": float(text_b.mean())})  # fmt: skip
    return rows


def _mean(values_bt: Tensor, chosen_bt: Tensor) -> Tensor:
    return (values_bt * chosen_bt).sum(dim=1) / chosen_bt.sum(dim=1)


def _permuted(prepared: Prepared, seed: int) -> Edit:
    """Every picture's tokens in an order of its own; the order depends on the stimulus, not on the batch."""
    source_bt = torch.arange(prepared.image_bt.shape[1]).repeat(len(prepared.stimuli), 1)
    for source_t, image_t, stimulus in zip(source_bt, prepared.image_bt.cpu(), prepared.stimuli, strict=True):
        generator = np.random.default_rng([seed, *repr(stimulus.scene).encode()])
        source_t[image_t] = source_t[image_t][torch.from_numpy(generator.permutation(int(image_t.sum())))]

    def change(states_btd: Tensor) -> Tensor:
        return states_btd.gather(1, source_bt.to(states_btd.device)[..., None].expand_as(states_btd))

    return Edit(ENTRY, change)


def _matched(prepared: Prepared) -> Edit:
    def change(states_btd: Tensor) -> Tensor:
        norm_bt = states_btd.float().norm(dim=-1)
        scale_bt = _mean(norm_bt, prepared.behind_bt)[:, None] / norm_bt.clamp_min(1e-9)
        scaled_btd = states_btd * scale_bt[..., None].to(states_btd.dtype)
        return torch.where(prepared.image_bt[..., None], scaled_btd, states_btd)

    return Edit(ENTRY, change)


def _index(plain_b: np.ndarray, permuted_b: np.ndarray) -> Value:
    if not plain_b.any():
        return {"value": None, "low": None, "high": None, "n": len(plain_b)}
    drawn_r2 = resampled_means(np.stack([plain_b, permuted_b], axis=1).astype(float))
    plain_r, permuted_r = drawn_r2[drawn_r2[:, 0] > 0].T  # of a few stimuli some draws have none that is right
    low, high = bounds(1 - permuted_r / plain_r)
    value = float(1 - permuted_b.mean() / plain_b.mean())
    return {"value": value, "low": float(low), "high": float(high), "n": len(plain_b)}
