"""Which tokens in which layers carry the answer: patching, attention knockout, spatial-ID vectors, steering.

Patching between two pictures that differ in one thing: picture A and picture B have the same boxes; the objects in two
of them, which are asked about, have changed places, so the right answer turns around and no other pixel changes. (Of a
model that knows words of solids alone they are twins: silhouettes are the same and shadows tell that the other of two
objects is nearer, or of three pictures the one in the middle tells that the other moved first.) States of the run on A
replace those of the run on B at some tokens of one layer. Recovery is how much of the difference between the two
answers' logits comes back: 0 as in B, 1 as in A.

Knockout: which tokens must see which others, and in which layers, for the answer to be right? Some tokens are hidden
from others in a window of the language model's layers (scores of minus infinity); all else stays. After Zhang et al.,
"Cross-modal Information Flow in Multimodal Large Language Models" (arXiv 2411.18620).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, bounds, estimate, resampled, sampled
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared, Trace
from blindspot.diagnostics.core.hooks import NOTHING, Changes, Site
from blindspot.diagnostics.core.parts import Grid
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, answers, direction, directions, twins
from blindspot.diagnostics.patching.spatial_id import deviations, maps, turns
from blindspot.errors import UserError
from blindspot.scenes.solid.motion import TASKS as MOTION
from blindspot.scenes.solid.tasks import TASKS
from blindspot.scenes.world import CELLS, Scene

FEWEST = 16
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
Pair = tuple[Stimulus, Stimulus]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:

    def stage(number: int) -> Report:
        return lambda done, of: report(number * 1000 + 1000 * done // of, 4000)

    flat = vlm.knows(directions(1, 0, vlm.speech)[0])
    shown = exchanges(directions(budget.stimuli, budget.seed, vlm.speech), vlm.speech) if flat else solids(vlm, budget)
    stimuli = [first for first, _ in shown]
    pairs, said = usable(vlm, shown, budget.batch)
    patched = recoveries(vlm, pairs, budget.batch, stage(0)) if pairs else []
    groups = vlm.prepare(stimuli[:1]).token_groups(vlm.image_grid)
    flows = [flow for flow in FLOWS if flow[0] in groups]
    flows += [(name, QUESTION) for name in groups if name.startswith("picture ")]
    cases = cases_of(vlm, flows)
    lost = drops(vlm, stimuli, [*cases, *dropping(vlm)], budget.batch, stage(1))
    rows, steered, pictures = [], [], dict[str, np.ndarray]()
    if flat:
        ids = deviations(vlm, max(2, budget.stimuli // len(CELLS)), budget, stage(2))
        rows, pictures["spatial_id"] = maps(ids, budget.seed)
        fresh = directions(max(1, budget.stimuli // 2), budget.seed + 1, vlm.speech)
        steered = turns(vlm, fresh, ids, budget, stage(3))
    places = [] if vlm.image_grid else ["The picture's tokens lie on no grid, so no group depends on places."]
    places += [] if flat else [f"Pictures are of solids, and pairs are twins. Asked: {stimuli[0].prompt}."]
    if vlm.encoder_grid is None:
        places.append("The encoder's tokens stand for no places, so it is not patched.")
    tables = [
        Table("patching", "How much of the answer comes back with states from the picture before the exchange",
              patched,
              (said, "0: as if nothing were patched; 1: as if everything were. Ratio of means over pairs.",
               "An object's patches are those where it stands in the picture that states are taken from.",
               "flipped: answers that become those of that picture. tokens: patched on average.",
               "Intervals: bootstrap over pairs.", *places)),
        Table("knockout", "Accuracy lost when some tokens are hidden from others, by window of layers",
              lost[: len(cases)],
              ("first, last: the window's layers. margin: what the right answer's logit loses on the best other.",
               "words: behind the picture and before the last token. Intervals: paired bootstrap over stimuli.",
               *places)),
        Table("dropped", "Accuracy lost when the picture's tokens are dropped from a layer on", lost[len(cases) :],
              ("From the first layer on nothing behind the picture sees it, as where its tokens are left out to save "
               "time.", "margin: as of knockout. Intervals: paired bootstrap over stimuli.")),
        Table("spatial_id", "How much spatial-ID vectors look like a lattice, by language-model layer", rows,
              ("Adjusted R2 of a linear map from row and column to the first two components; None before any place.",
               "chance: 95 % of places in random order score less. share: of the variance, in two components.",
               "Intervals: jackknife over scenes.")),
        Table("steering", "Share of answers that become those of the target place", steered,
              ("Only stimuli that are not answered so already. random: other directions of the same length.",
               "strength: times the difference of the two places' vectors. Intervals: Wilson.")),
    ]  # fmt: skip
    if pairs:
        pictures["pair"] = np.stack([stimulus.image(vlm.side) for stimulus in pairs[0]])
    return Findings(tables, pictures)


def exchanged(scene: Scene) -> Scene:
    """The scene with its first two objects in each other's box."""
    first, second, *others = scene.things
    there = second._replace(colour=first.colour, shape=first.shape)
    here = first._replace(colour=second.colour, shape=second.shape)
    return Scene((there, here, *others), scene.background)


def exchanges(stimuli: Sequence[Stimulus], speech: Speech) -> list[Pair]:
    """Questions about a direction, each with the same question about the scene `exchanged`."""
    return [(stimulus, direction(exchanged(stimulus.scene), speech)) for stimulus in stimuli]


def solids(vlm: HookedVLM, budget: Budget) -> list[Pair]:
    """Twins of solids, by the first task whose words the model knows: depth from shadows, or the order of pictures."""
    for task in (TASKS["nearer"], MOTION["first"]):
        rng = Random(f"diagnostics/patching/{task.name}/{budget.seed}")
        if vlm.knows(twins(task, rng, 0, vlm.speech)[0]):
            return [twins(task, rng, number % 2, vlm.speech) for number in range(budget.stimuli)]
    raise UserError("this model knows the words of none of the tasks that are patched: directions, nearer, first")


def usable(vlm: HookedVLM, pairs: Sequence[Pair], batch: int) -> tuple[list[Pair], str]:
    """Pairs that the model answers right both times, and a sentence about them.

    If there are fewer than `FEWEST`, all pairs that it answers differently, with its own answers in place of the right
    ones.
    """
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
    """Run ``taking`` (pictures B) with the states of ``giving`` (A) at a site, one group of tokens after the other."""
    states_btd = vlm.state(giving, site)
    for name, mask_bt in groups.items():

        def change(own_btd: Tensor, mask_bt: Tensor = mask_bt) -> Tensor:
            return torch.where(mask_bt[..., None], states_btd, own_btd)

        yield name, vlm.run(taking, changes=Changes([(site, change)]) if mask_bt.any() else NOTHING)


def recoveries(vlm: HookedVLM, pairs: Sequence[Pair], batch: int, report: Report) -> list[Row]:
    """Recovery for every site and group of tokens, with bootstrap intervals over pairs (A, B), whose answers differ."""
    encoder = vlm.encoder_grid if len(pairs[0][0].shots) < 2 else None
    sites = [*(vlm.some_sites("encoder") if encoder else []), *vlm.some_sites("language")]
    whole: list[np.ndarray] = []
    found: dict[tuple[Site, str], list[tuple[np.ndarray, ...]]] = defaultdict(list)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        giving, taking = vlm.prepare([a for a, _ in part]), vlm.prepare([b for _, b in part])
        ends_b2 = torch.from_numpy(np.stack([answers(giving.stimuli), answers(taking.stimuli)], axis=1))
        plain_b = _lead(vlm.run(taking), ends_b2)
        whole.append(_lead(vlm.run(giving), ends_b2) - plain_b)
        groups = {"language": giving.token_groups(vlm.image_grid)}
        if encoder:
            patches = giving.patch_groups(encoder)
            groups["encoder"] = {**patches, "all image": torch.ones_like(patches["other patches"])}
        for number, site in enumerate(sites, start=1):
            for name, trace in patch(vlm, giving, taking, site, groups[site.part]):
                flipped_b = (trace.choices_b.cpu() == ends_b2[:, 0]).numpy()
                tokens_b = groups[site.part][name].sum(dim=1).cpu().numpy()
                found[site, name].append((_lead(trace, ends_b2) - plain_b, flipped_b, tokens_b))
            report(start * len(sites) + number * len(part), len(pairs) * len(sites))
    joined = {key: [np.concatenate(each) for each in zip(*parts, strict=True)] for key, parts in found.items()}
    joined = {key: each for key, each in joined.items() if each[2].any()}
    series_qs = np.stack([np.concatenate(whole), *(gained_q for gained_q, *_ in joined.values())], axis=1)
    means_s, drawn_rs = series_qs.mean(axis=0), resampled(series_qs)
    ends_2s = bounds(drawn_rs / drawn_rs[:, :1])
    return [
        {"part": site.part, "layer": site.layer, "group": name,
         **estimate(means_s[s] / means_s[0], ends_2s[:, s], len(pairs)),
         "flipped": float(flipped_q.mean()), "tokens": float(tokens_q.mean())}
        for s, ((site, name), (_, flipped_q, tokens_q)) in enumerate(joined.items(), start=1)
    ]  # fmt: skip


def _lead(trace: Trace, ends_b2: Tensor) -> np.ndarray:
    """By how much the logit of A's answer is above that of B's, shape (batch,)."""
    ends = trace.logits_bk.cpu().gather(1, ends_b2).double().numpy()
    return ends[:, 0] - ends[:, 1]


def windows(layers: int) -> list[range]:
    """Layers in at most `MOST_WINDOWS` runs of one length (the last may be shorter), and all if there are two runs."""
    width = -(-layers // MOST_WINDOWS)
    parts = [range(start, min(start + width, layers)) for start in range(0, layers, width)]
    return [*parts, range(layers)] if len(parts) > 1 else parts


def question_groups(prepared: Prepared, grid: Grid | None) -> dict[str, Tensor]:
    groups = prepared.token_groups(grid)
    return {**groups, QUESTION: groups["words"] | groups["last token"]}


def cases_of(vlm: HookedVLM, flows: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every flow in every window: what is hidden ``from`` ... ``to``, in the ``first`` to the ``last`` layer."""
    return [_case(*flow, span) for flow, span in product(flows, windows(len(vlm.roles.layers)))]


def dropping(vlm: HookedVLM) -> list[dict[str, Any]]:
    """The picture hidden from all behind it from a layer on, for the first layer of every window."""
    layers = len(vlm.roles.layers)
    starts = sorted({span.start for span in windows(layers)})
    return [_case(*FLOWS[0], range(start, layers)) for start in starts]


def _case(source: str, target: str, span: range) -> dict[str, Any]:
    return {"from": source, "to": target, "first": span.start, "last": span.stop - 1}


def knocked(
    vlm: HookedVLM, prepared: Prepared, groups: dict[str, Tensor], cases: Sequence[dict[str, Any]]
) -> Iterator[Trace]:
    """Ask with something hidden, one case after the other."""
    for case in cases:
        scores = hidden(groups[case["from"]], groups[case["to"]])
        yield vlm.run(prepared, changes=Changes(scores=dict.fromkeys(range(case["first"], case["last"] + 1), scores)))


def hidden(seen_bt: Tensor, seeing_bt: Tensor) -> Tensor:
    """Attention scores that hide some tokens from others, shape (batch, 1, tokens, tokens); none from itself."""
    pair_btt = seeing_bt[:, :, None] & seen_bt[:, None, :]
    own_tt = torch.eye(seen_bt.shape[1], dtype=torch.bool, device=seen_bt.device)
    return torch.zeros(pair_btt.shape, device=seen_bt.device).masked_fill(pair_btt & ~own_tt, float("-inf"))[:, None]


def drops(
    vlm: HookedVLM, stimuli: Sequence[Stimulus], cases: Sequence[dict[str, Any]], batch: int, report: Report
) -> list[Row]:
    """What accuracy and the right answer's margin lose in every case, with intervals over stimuli."""
    found: list[np.ndarray] = []
    for done, prepared in enumerate(vlm.batches(stimuli, batch)):
        margins = [_margins(vlm.run(prepared), prepared)]
        for trace in knocked(vlm, prepared, question_groups(prepared, vlm.image_grid), cases):
            margins.append(_margins(trace, prepared))
            report(done * batch * len(cases) + (len(margins) - 1) * len(prepared.stimuli), len(stimuli) * len(cases))
        found.append(np.stack(margins, axis=1))
    margin_qs = np.concatenate(found)
    lost_qs = margin_qs[:, :1] - margin_qs[:, 1:]
    wrong_qs = (margin_qs[:, :1] > 0).astype(float) - (margin_qs[:, 1:] > 0)
    low_s, high_s = bounds(resampled(lost_qs))
    return [
        {**case, **sampled(wrong_qs[:, s]),
         "margin": float(lost_qs[:, s].mean()), "margin_low": float(low_s[s]), "margin_high": float(high_s[s])}
        for s, case in enumerate(cases)
    ]  # fmt: skip


def _margins(trace: Trace, prepared: Prepared) -> np.ndarray:
    """Logit of the right answer above the best of the others, shape (batch,); positive where it is answered right."""
    logits_bk = trace.logits_bk.cpu().double()
    right_b1 = torch.from_numpy(answers(prepared.stimuli))[:, None]
    others_bk = logits_bk.scatter(1, right_b1, float("-inf"))
    return (logits_bk.gather(1, right_b1)[:, 0] - others_bk.amax(dim=1)).numpy()
