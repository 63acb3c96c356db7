"""Watching where a language model looks: every measure of every stimulus, layer and head, in one run of the stimuli."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.attention.intervention import FORMS, growth
from blindspot.diagnostics.attention.measures import (
    auroc,
    enrichment,
    entropy,
    mass,
    object_patches,
    rolled,
    sensitivity,
)
from blindspot.diagnostics.core.attending import attending
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.patch_grid import Grid
from blindspot.diagnostics.core.stimuli import Stimulus

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


@dataclass(frozen=True)
class Look:
    """Attention of all stimuli. Axes: stimuli, then layers and heads, then pairs of `PAIRS` or `QUERIES`.

    Attributes:
        grid: of the picture's tokens; None if they have no place, and then what is about objects is empty.
        has_bp: whether the stimulus has the object.
        mass, enrichment, auroc: shape (stimuli, layers, heads, pairs).
        share, behind, entropy: shape (stimuli, layers, heads, queries): share on the picture, the same without what is
            before the picture, entropy within the picture.
        even_bq, even_behind_bq: both shares if attention were even.
        growth: derivative of the share by alpha, shape (stimuli, layers, heads, forms).
        rollout: shape (stimuli, layers, pairs, measures), of pairs whose query is the last token.
        maps: attention within the picture, mean over heads, shape (shown stimuli, layers, queries, tokens).
        chosen_b: index of the model's answer.
    """

    grid: Grid | None
    has_bp: np.ndarray
    mass: np.ndarray
    enrichment: np.ndarray
    auroc: np.ndarray
    share: np.ndarray
    behind: np.ndarray
    entropy: np.ndarray
    even_bq: np.ndarray
    even_behind_bq: np.ndarray
    growth: np.ndarray
    rollout: np.ndarray
    maps: np.ndarray
    chosen_b: np.ndarray


def look(vlm: HookedVLM, stimuli: Sequence[Stimulus], batch: int, shown: int, step: Callable[[], None]) -> Look:
    """Ask stimuli that mention a subject and a reference, and measure attention as it is computed.

    Args:
        vlm: the model.
        stimuli: the questions.
        batch: at a time.
        shown: stimuli whose maps are kept.
        step: called after each batch.
    """
    grid = vlm.image_grid
    if grid is not None and grid[0] * grid[1] < 4:
        grid = None
    parts: list[dict[str, np.ndarray]] = []
    for number, prepared in enumerate(vlm.batches(stimuli, batch)):
        watcher = _Watcher(prepared, grid)
        with attending(vlm.roles.layers, see=watcher.see):
            chosen_b = vlm.run(prepared).choices_b
        parts.append({**watcher.found(max(0, shown - number * batch)), "chosen_b": chosen_b.cpu().numpy()})
        step()
    names = [field.name for field in fields(Look) if field.name != "grid"]
    return Look(grid, **{name: np.concatenate([part[name] for part in parts]) for name in names})


class _Watcher:
    """Measures of one batch."""

    def __init__(self, prepared: Prepared, grid: Grid | None) -> None:
        self._image_bt = prepared.image_bt
        batch, length = prepared.image_bt.shape
        device = prepared.image_bt.device
        self._image_bn = prepared.image_bt.nonzero()[:, 1].view(batch, -1)
        last_b = torch.full((batch,), length - 1)
        self._query_bq = torch.stack([last_b, *(prepared.mentions[role] for role in QUERIES[1:])], dim=1).to(device)
        self._opening_bt = torch.arange(length, device=device) < self._image_bn[:, :1]
        objects_bpn = _objects(prepared.stimuli, grid) if grid else np.zeros((batch, len(PAIRS), 0), bool)
        self._object_bpn = torch.from_numpy(objects_bpn).to(device)
        self._layers: dict[str, list[Tensor]] = {}
        mask_bt = prepared.inputs.get("attention_mask", torch.ones_like(prepared.image_bt)).bool()
        seen_bqt = mask_bt[:, None] & (torch.arange(length, device=device) <= self._query_bq[..., None])
        self._even = [
            self._image_bn.shape[1] / seen.sum(dim=-1) for seen in (seen_bqt, seen_bqt & ~self._opening_bt[:, None])
        ]
        self._rolled_btn = torch.zeros(batch, length, self._image_bn.shape[1], device=device)
        self._rolled_btn.scatter_(1, self._image_bn[:, None], 1.0)

    def see(self, layer: int, weights_bhtt: Tensor, scores_bhk: Tensor) -> None:
        heads, length = weights_bhtt.shape[1], weights_bhtt.shape[-1]
        query_bhqt = self._query_bq[:, None, :, None].expand(-1, heads, -1, length)
        rows_bhqt = weights_bhtt.gather(2, query_bhqt)
        image_bhqn = rows_bhqt.gather(3, self._image_bn[:, None, None].expand(-1, *rows_bhqt.shape[1:3], -1))
        share_bhq = image_bhqn.sum(dim=-1)
        opening_bhq = (rows_bhqt * self._opening_bt[:, None, None]).sum(dim=-1)
        self._rolled_btn = rolled(weights_bhtt, self._rolled_btn)
        grown = [
            sensitivity(rows_bhqt[:, :, 0], self._image_bt, growth(scores_bhk, self._image_bt, form)) for form in FORMS
        ]
        within_bhqn = image_bhqn / share_bhq.clamp_min(1e-30)[..., None]
        found = {
            "share": share_bhq,
            "behind": share_bhq / (1 - opening_bhq).clamp_min(1e-30),
            "entropy": entropy(image_bhqn),
            "growth": torch.stack(grown, dim=-1),
            "maps": within_bhqn.mean(dim=1),
        }
        image_bhpn = image_bhqn[:, :, [QUERIES.index(query) for query, _ in PAIRS]]
        found |= dict(zip(("mass", "enrichment", "auroc"), self._on_objects(image_bhpn), strict=True))
        last_b1pn = self._rolled_btn[:, None, None, -1].expand(-1, -1, len(PAIRS), -1)
        found["rollout"] = torch.stack([measure[:, 0] for measure in self._on_objects(last_b1pn)], dim=-1)
        for name, value in found.items():
            self._layers.setdefault(name, []).append(value.cpu())

    def _on_objects(self, image_bhpn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._object_bpn.shape[-1]:
            empty = image_bhpn.sum(dim=-1) * 0
            return empty, empty, empty
        mass_bhp = mass(image_bhpn, self._object_bpn)
        return mass_bhp, enrichment(mass_bhp, self._object_bpn), auroc(image_bhpn, self._object_bpn)

    def found(self, shown: int) -> dict[str, np.ndarray]:
        arrays = {name: torch.stack(layers, dim=1).numpy() for name, layers in self._layers.items()}
        arrays["maps"] = arrays["maps"][:shown]
        even, behind = (part.cpu().numpy() for part in self._even)
        return arrays | {
            "even_bq": even,
            "even_behind_bq": behind,
            "has_bp": self._object_bpn.any(dim=-1).cpu().numpy(),
        }


def _objects(stimuli: Sequence[Stimulus], grid: Grid) -> np.ndarray:
    """Patches of the object of every pair, shape (stimuli, pairs, patches)."""
    found = np.zeros((len(stimuli), len(PAIRS), grid[0] * grid[1]), dtype=bool)
    for row, stimulus in zip(found, stimuli, strict=True):
        subject, reference, *others = (object_patches(thing.box, grid) for thing in stimulus.scene.things)
        parts = {"subject": subject, "reference": reference, "asked": subject | reference}
        parts["other"] = np.any(others, axis=0) if others else np.zeros_like(subject)
        for pair, (_, target) in enumerate(PAIRS):
            row[pair] = parts[target]
    return found
