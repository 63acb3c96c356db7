"""Patching between two pictures that differ in one thing: the two objects that are asked about have changed places.

Picture A and picture B have the same boxes; the objects in two of them are exchanged, so the right answer turns
around and no other pixel changes. States of the run on A replace those of the run on B at some tokens of one layer.
Recovery is how much of the difference between the two answers' logits comes back: 0 as in B, 1 as in A.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Report, bounds, resampled_means
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared, Trace
from blindspot.diagnostics.core.hooks import NOTHING, Changes, Edit, Site
from blindspot.diagnostics.core.stimuli import Stimulus, answers, direction
from blindspot.diagnostics.core.token_groups import language_groups, patch_groups
from blindspot.diagnostics.patching.plots import Patched
from blindspot.scenes.world import Scene

FEWEST = 16
Pair = tuple[Stimulus, Stimulus]


def exchanged(scene: Scene) -> Scene:
    """The scene with its first two objects in each other's box."""
    first, second, *others = scene.things
    there = second._replace(colour=first.colour, shape=first.shape)
    here = first._replace(colour=second.colour, shape=second.shape)
    return Scene((there, here, *others), scene.background)


def usable(vlm: HookedVLM, stimuli: Sequence[Stimulus], batch: int) -> tuple[list[Pair], str]:
    """Pairs that the model answers right both times, and a sentence about them.

    If there are fewer than `FEWEST`, all pairs that it answers differently, with its own answers in place of the right
    ones.
    """
    pairs = [(stimulus, direction(exchanged(stimulus.scene), vlm.speech)) for stimulus in stimuli]
    first_b, second_b = (vlm.choices(side, batch) for side in zip(*pairs, strict=True))
    right_b = (first_b == answers([a for a, _ in pairs])) & (second_b == answers([b for _, b in pairs]))
    said = f"{right_b.sum()} of {len(pairs)} pairs are answered right both times"
    if right_b.sum() >= FEWEST:
        return [pair for pair, right in zip(pairs, right_b, strict=True) if right], f"{said}; these are used."
    own = [
        (replace(a, answer=a.choices[first]), replace(b, answer=b.choices[second]))
        for (a, b), first, second in zip(pairs, first_b, second_b, strict=True)
        if first != second
    ]
    if not own:
        return [], f"Only {said}, and none is answered differently: there is nothing to patch."
    return own, f"Only {said}, so the {len(own)} answered differently are used, with the model's own answers as right."


def patch(
    vlm: HookedVLM, giving: Prepared, taking: Prepared, site: Site, groups: dict[str, Tensor]
) -> Iterator[tuple[str, Trace]]:
    """Run ``taking`` with the states of ``giving`` at a site, for one group of tokens after the other.

    Args:
        vlm: the model.
        giving: pictures A.
        taking: pictures B with the same questions.
        site: where states are replaced.
        groups: which tokens, each of shape (batch, tokens).
    """
    states_btd = vlm.state(giving, site)
    for name, mask_bt in groups.items():

        def change(own_btd: Tensor, mask_bt: Tensor = mask_bt) -> Tensor:
            return torch.where(mask_bt[..., None], states_btd, own_btd)

        changes = Changes((Edit(site, change),)) if mask_bt.any() else NOTHING
        yield name, vlm.run(taking, changes=changes)


def recoveries(vlm: HookedVLM, pairs: Sequence[Pair], batch: int, report: Report) -> list[Patched]:
    """Recovery for every site and group of tokens, with bootstrap intervals over pairs.

    Args:
        vlm: the model.
        pairs: stimuli A and B, whose answers differ.
        batch: pairs at a time.
        report: progress.
    """
    encoder = vlm.encoder_grid
    sites = [*(vlm.some_sites("encoder") if encoder else []), *vlm.some_sites("language")]
    gained: dict[tuple[Site, str], list[np.ndarray]] = defaultdict(list)
    flipped, sizes, whole = defaultdict(list), defaultdict(list), []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        giving, taking = vlm.prepare([a for a, _ in part]), vlm.prepare([b for _, b in part])
        ends_b2 = torch.from_numpy(np.stack([answers(giving.stimuli), answers(taking.stimuli)], axis=1))
        plain_b = _lead(vlm.run(taking), ends_b2)
        whole.append(_lead(vlm.run(giving), ends_b2) - plain_b)
        by_part = {"language": language_groups(giving, vlm.image_grid)}
        if encoder:
            patches = patch_groups(giving, encoder)
            by_part["encoder"] = {**patches, "all image": torch.ones_like(patches["other patches"])}
        for number, site in enumerate(sites, start=1):
            for name, trace in patch(vlm, giving, taking, site, by_part[site.part]):
                gained[site, name].append(_lead(trace, ends_b2) - plain_b)
                flipped[site, name].append((trace.choices_b.cpu() == ends_b2[:, 0]).numpy())
                sizes[site, name].append(by_part[site.part][name].sum(dim=1).cpu().numpy())
            report(start * len(sites) + number * len(part), len(pairs) * len(sites))
    tokens = {key: float(np.concatenate(found).mean()) for key, found in sizes.items()}
    keys = [key for key in gained if tokens[key]]
    series_qs = np.stack([np.concatenate(whole), *(np.concatenate(gained[key]) for key in keys)], axis=1)
    means_s = series_qs.mean(axis=0)
    drawn_rs = resampled_means(series_qs)
    low_s, high_s = bounds(drawn_rs / drawn_rs[:, :1])
    return [
        {"part": site.part, "layer": site.layer, "group": name, "value": float(means_s[s] / means_s[0]),
         "low": float(low_s[s]), "high": float(high_s[s]), "n": len(pairs),
         "flipped": float(np.concatenate(flipped[site, name]).mean()), "tokens": tokens[site, name]}
        for s, (site, name) in enumerate(keys, start=1)
    ]  # fmt: skip


def _lead(trace: Trace, ends_b2: Tensor) -> np.ndarray:
    """By how much the logit of A's answer is above that of B's, shape (batch,)."""
    ends = trace.logits_bk.cpu().gather(1, ends_b2).double().numpy()
    return ends[:, 0] - ends[:, 1]
