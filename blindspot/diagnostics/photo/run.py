"""One picture and one question of the user's own: what is answered, where it looks, what it needs, when it is decided.

Nothing is known of what is in the picture, so all numbers are about the first token of the model's own answer: how
probable it is, and by how much it stands above all others together (log-odds: the logarithm of p / (1 - p), which goes
on where p is 1).

Memory beside the weights: attention is computed for 256 queries at a time (`hooks.attending`), and of it is kept the
last query's on the picture from every layer and head, the mean over heads of one layer, and the rollout. At 32 layers
of 32 heads and 2,000 image tokens that is 8 + 18 + 17 MB, where the whole attention has 18 GB, in float32. For
gradients the attention is computed a second time instead of being kept.

Suffixes: ``l`` layers, ``h`` heads, ``q`` queries, ``t`` tokens, ``n`` the picture's tokens, ``v`` the vocabulary.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blindspot.diagnostics.attention.run import enrichment, mass, rolled, unrolled
from blindspot.diagnostics.base import Budget, Findings, Photo, Report, Row, Table, estimate, steps
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes, Site, attending
from blindspot.diagnostics.core.stimuli import Stimulus, direction
from blindspot.diagnostics.patching.run import (
    FLOWS,
    cases_of,
    dropping,
    exchanges,
    knocked,
    question_groups,
    recoveries,
    usable,
)
from blindspot.errors import UserError
from blindspot.evaluation.boxes import window_of
from blindspot.model.load import in_known_words
from blindspot.scenes.world import Scene

TOP = 5
LONGEST = 16
CELLS = 8
"""Most rows and columns of what is covered."""
MOST_TOKENS = 20_000
"""That are computed at a time."""
SHOWN = 288
"""Pixels of a picture's longer side on the page."""
BOX, REST = "box", "rest of the picture"
Found = tuple[Table, dict[str, Any]]


class Asked:
    """A model that has been asked about a photo.

    Attributes:
        blank_hw3: a picture like it in its mean colour.
        prepared: the question as the model's input.
        window: x0, y0, x1, y1 of what the model sees of the picture, in its pixels; beyond it where the model pads.
        layout: of the picture's tokens over this window; None: they lie on no grid that is known.
        box: of the photo, as shares of the window; None: there is none.
        box_n: which of the picture's tokens lie in the box.
        last_v: logits of all tokens at the last token.
        token: the first token of the answer.
        left_out: by its name, why something is.
    """

    def __init__(self, vlm: HookedVLM, photo: Photo) -> None:
        self.vlm, self.pixels_hw3 = vlm, photo.pixels_hw3
        blank_3 = photo.pixels_hw3.mean(axis=(0, 1)).round().astype(np.uint8)
        self.blank_hw3 = np.broadcast_to(blank_3, photo.pixels_hw3.shape)
        self.stimulus = Stimulus(Scene((), 0), in_known_words(vlm.processor, photo.question), (), "", {})
        self.prepared = self.prepare(photo.pixels_hw3)
        height, width = photo.pixels_hw3.shape[:2]
        self.window = x0, y0, x1, y1 = window_of(vlm.family, vlm.processor.image_processor, (width, height))
        self.left_out: dict[str, str] = {}
        self.layout = vlm.layout_of((round(y1 - y0), round(x1 - x0)), self.prepared)
        self.box = self.box_n = None
        if photo.box is not None:
            pixels = np.array(photo.box) * (width, height, width, height)
            self.box = np.clip((pixels - (x0, y0, x0, y0)) / (x1 - x0, y1 - y0, x1 - x0, y1 - y0), 0, 1)
            if self.box[0] == self.box[2] or self.box[1] == self.box[3]:
                self.left_out["the box"], self.box = "it lies outside of what this model sees of the picture", None
        if self.layout is None:
            self.left_out["maps of the picture's tokens"] = "it cannot be told where on the picture they lie"
        elif self.box is not None:
            self.box_n = torch.from_numpy(self.layout.on(self.box))
        self.last_v = vlm.run(self.prepared).last_bv[0]
        self.token = int(self.last_v.argmax())

    def prepare(self, *pictures: np.ndarray) -> Prepared:
        """The question about each of these pictures."""
        return self.vlm.prepare([self.stimulus] * len(pictures), pictures)

    def top(self, *more: int) -> dict[str, int]:
        """The likeliest first tokens, and some more, by their text; of several with one text the first."""
        found: dict[str, int] = {}
        for token in (*self.last_v.topk(TOP).indices.tolist(), *more):
            found.setdefault(self.word(token), token)
        return found

    def word(self, token: int) -> str:
        """A token as text."""
        return self.vlm.tokenizer.decode([token]).strip() or f"token {token}"

    def odds(self, last_bv: Tensor) -> Tensor:
        """Log-odds of the answer's first token, shape (batch,)."""
        others_bv = last_bv.index_fill(1, torch.tensor([self.token], device=last_bv.device), float("-inf"))
        return last_bv[:, self.token] - others_bv.logsumexp(dim=1)

    def lost(self, last_bv: Tensor) -> list[dict[str, Any]]:
        """What the answer's first token has lost in each of several runs, and the likeliest token there."""
        p_b, odds_b = last_bv.softmax(dim=-1)[:, self.token], self.odds(last_bv)
        p, odds = self.last_v.softmax(dim=0)[self.token], self.odds(self.last_v[None])[0]
        return [{"p": float(p - p_b[b]), "odds": float(odds - odds_b[b]), "said": self.word(int(last_bv[b].argmax()))}
                for b in range(len(last_bv))]  # fmt: skip

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of what is covered."""
        rows, columns = self.layout.grid if self.layout else (CELLS, CELLS)
        return min(rows, CELLS), min(columns, CELLS)

    @property
    def mapped(self) -> list[str]:
        """What a reader must know of maps: nothing where all tokens are on them."""
        on, of = len(self.layout.tokens) if self.layout else 0, int(self.prepared.image_bt.sum())
        said = (
            f"On maps are {on} tokens of the picture's tiles; the other {of - on} (of the whole picture, ends of rows) "
        )
        return [f"{said}count in shares and in the box."] if 0 < on < of else []

    def map(self, values: Tensor) -> np.ndarray:
        """Values of the picture's tokens, in the last axis, as maps of the picture."""
        assert self.layout is not None
        return values[..., self.layout.tokens].reshape(*values.shape[:-1], *self.layout.grid).cpu().numpy()

    def covered(self, row: int, column: int) -> np.ndarray:
        """The picture with a cell in its mean colour."""
        x0, y0, x1, y1 = self.window
        (rows, columns), pixels_hw3 = self.cells, self.pixels_hw3.copy()
        down, across = np.linspace(y0, y1, rows + 1), np.linspace(x0, x1, columns + 1)
        top, bottom, left, right = (max(0, round(edge)) for edge in (*down[row:][:2], *across[column:][:2]))
        pixels_hw3[top:bottom, left:right] = self.blank_hw3[top:bottom, left:right]
        return pixels_hw3


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    if budget.photo is None:
        raise UserError("this looks at a picture of your own; name it with --image")
    asked = Asked(vlm, budget.photo)
    flows = [flow for flow in FLOWS if "patches" not in flow[0]]
    flows += [(part, "last token") for part in (BOX, REST) if asked.box_n is not None]
    cases, later = cases_of(vlm, flows), dropping(vlm)
    step = steps(report, 4 + asked.cells[0] * asked.cells[1] + len(cases) + len(later))
    parts: dict[str, Callable[[], tuple[Any, ...]]] = {
        "answers": lambda: answers(asked, step),
        "attention": lambda: attention(asked, step),
        "occlusion": lambda: occlusion(asked, budget.batch, step),
        "gradient": lambda: gradient(asked, step),
        "lens": lambda: lens(asked, step),
        "knockout": lambda: knockout(asked, cases, later, step),
    }
    if (scene := budget.photo.scene) is not None:
        parts["patching"] = lambda: patching(vlm, scene)
    seen = Image.fromarray(asked.pixels_hw3).crop(tuple(map(round, asked.window)))  # pyright: ignore[reportArgumentType]
    seen.thumbnail((SHOWN, SHOWN))
    tables, pictures = [], {"image": np.asarray(seen), "blank": asked.blank_hw3[0, 0]}
    pictures |= {} if asked.box is None else {"box": asked.box}
    for name, part in parts.items():
        try:
            if vlm.gated and name in ("attention", "gradient", "knockout", "patching"):
                raise UserError("pictures reach this model by cross-attention, not as tokens")
            with nullcontext() if name == "attention" else attending(vlm.roles.layers, every=False):
                *found, shown = part()
        except UserError as error:
            asked.left_out[name] = str(error)
        else:
            tables += found
            pictures |= shown
    if asked.left_out:
        rows = [{"part": part, "why": why, **_one(None)} for part, why in asked.left_out.items()]
        tables.append(Table("left_out", "What this model or this picture does not allow", rows))
    return Findings(tables, pictures)


def _one(value: float | Tensor | None) -> dict[str, Any]:
    """The columns of a number of one picture, which has no interval."""
    return estimate(None if value is None else float(value), (None, None), 1)


def answers(asked: Asked, step: Callable[[], None]) -> Found:
    """What is answered as it is, with left and right exchanged, and with nothing but the mean colour."""
    vlm, pixels_hw3 = asked.vlm, asked.pixels_hw3
    shown = {"as it is": pixels_hw3, "mirrored": np.ascontiguousarray(pixels_hw3[:, ::-1]), "blind": asked.blank_hw3}
    prepared = asked.prepare(*shown.values())
    last_bv = vlm.run(prepared).last_bv
    longest = {"max_new_tokens": LONGEST, **vlm.family.generation}
    said_bt = vlm.model.generate(**prepared.inputs, **longest)[:, prepared.image_bt.shape[1] :]
    rows: list[Row] = []
    for condition, p_v, said_t in zip(shown, last_bv.softmax(dim=-1), said_bt, strict=True):
        said = vlm.tokenizer.decode(said_t, skip_special_tokens=True).strip()
        rows += [{"condition": condition, "said": said, "token": word, **_one(p_v[token])}
                 for word, token in asked.top(*last_bv.argmax(dim=1).tolist()).items()]  # fmt: skip
    step()
    return Table("answers", "Answers, and probabilities of their first token", rows, (
        f"At most {LONGEST} tokens of an answer. The probability is that of its first token.",
        "Mirrored: left and right exchanged. Blind: nothing but the picture's mean colour.")), {}  # fmt: skip


def attention(asked: Asked, step: Callable[[], None]) -> Found:
    """Attention from the token that the answer comes from to the picture, by layer, and its rollout."""
    image_bt, count = asked.prepared.image_bt, len(asked.vlm.roles.layers)
    rolled_btn = unrolled(image_bt)
    weights: dict[int, Tensor] = {}
    rollouts: list[Tensor] = []

    def see(layer: int, rows_bhqt: Tensor, mean_btt: Tensor, _: Tensor) -> None:
        nonlocal rolled_btn
        rolled_btn = rolled(mean_btt, rolled_btn)
        weights[layer] = rows_bhqt[0, :, 0][:, image_bt[0]].cpu()
        rollouts.append(rolled_btn[0, -1].cpu())

    last_bq = torch.tensor([[image_bt.shape[1] - 1]], device=image_bt.device)
    with attending(asked.vlm.roles.layers, last_bq, see, every=False):
        asked.vlm.run(asked.prepared)
    if not weights:
        raise UserError("this model computes attention in a way of its own, which cannot be watched")
    layers = list(weights)
    if lacking := [str(layer) for layer in range(count) if layer not in weights]:
        what = f"attention in {len(lacking)} of {count} layers ({', '.join(lacking)})"
        asked.left_out[what] = "they compute none that can be read, as linear attention"
        asked.left_out["rollout"] = "it multiplies the attention of all layers"
    weights_lhn, rollouts_l1n = torch.stack([*weights.values()]), torch.stack(rollouts)[:, None]
    rows = _by_layer("share", layers, weights_lhn.sum(dim=-1).mean(dim=-1))
    shown: dict[str, Any] = {}
    if asked.layout is not None:
        shown = {"layers": np.array(layers), "attention": asked.map(weights_lhn.mean(dim=1))}
        shown["heads"] = asked.map(weights_lhn)
        shown |= {} if lacking else {"rollout": asked.map(rollouts[-1])}
    if asked.box_n is not None:
        enriched_lh, rolled_l1 = (_enriched(values, asked.box_n) for values in (weights_lhn, rollouts_l1n))
        rows += _by_layer("enrichment", layers, enriched_lh.mean(dim=1))
        rows += _by_layer("enrichment", layers, *enriched_lh.max(dim=1))
        rows += [] if lacking else _by_layer("rollout", layers, rolled_l1[:, 0])
        at, head = divmod(int(enriched_lh.argmax()), enriched_lh.shape[1])
        shown |= {"best": asked.map(weights_lhn[at, head]), "best_at": np.array([layers[at], head])}
    step()
    return Table("attention", "Attention of the last token on the picture, by language-model layer", rows, (
        "share: on the picture, of the last token's attention. enrichment: the box's share of that over its share of "
        "the picture, 1 if attention is even. head: the best; without one, the mean.",
        "rollout: enrichment of the mean of heads and identity, half each, multiplied over layers.", *asked.mapped,
    )), shown  # fmt: skip


def _by_layer(measure: str, layers: list[int], values_l: Tensor, head_l: Tensor | None = None) -> list[Row]:
    heads = [None] * len(layers) if head_l is None else head_l.tolist()
    return [{"measure": measure, "layer": layer, "head": head, **_one(value)}
            for layer, head, value in zip(layers, heads, values_l, strict=True)]  # fmt: skip


def _enriched(weights_lhn: Tensor, box_n: Tensor) -> Tensor:
    """Enrichment in the box, shape (layers, heads)."""
    box_lpn = box_n.expand(len(weights_lhn), 1, -1)
    return enrichment(mass(weights_lhn[:, :, None], box_lpn), box_lpn)[..., 0]


def occlusion(asked: Asked, batch: int, step: Callable[[], None]) -> Found:
    """What the answer loses when a part of the picture is covered with its mean colour, cell by cell."""
    places = list(np.ndindex(*asked.cells))
    size = max(1, min(batch, MOST_TOKENS // asked.prepared.image_bt.shape[1]))
    rows: list[Row] = []
    for start in range(0, len(places), size):
        part = places[start : start + size]
        trace = asked.vlm.run(asked.prepare(*(asked.covered(*place) for place in part)))
        for (row, column), lost in zip(part, asked.lost(trace.last_bv), strict=True):
            rows.append({"row": row, "column": column, **_one(lost["odds"]), "p": lost["p"], "said": lost["said"]})
            step()
    lost_hw = np.array([row["value"] for row in rows], np.float32).reshape(asked.cells)
    return Table("occlusion", "What the answer loses when a part of the picture is covered", rows, (
        "Value: by how much the answer's log-odds fall; p: its probability. said: the likeliest token then.",
        "Covered: in the picture's mean colour.")), {"occlusion": lost_hw}  # fmt: skip


def gradient(asked: Asked, step: Callable[[], None]) -> Found:
    """To first order, what the answer's log-odds lose when a token of the picture becomes that of the mean colour.

    The plain gradient x input would be close to 0: the norms in front of a layer leave nothing of a token's length.
    """
    if asked.layout is None:
        raise UserError("it cannot be told where on the picture its tokens lie")
    states_btd, gradient_btd = asked.vlm.gradient(asked.prepared, Site("language", 0), lambda v: asked.odds(v).sum())
    blank_btd = asked.vlm.state(asked.prepare(asked.blank_hw3), Site("language", 0))
    values_bt = ((states_btd - blank_btd).float() * gradient_btd.float()).sum(dim=-1)
    values_hw = asked.map(values_bt[asked.prepared.image_bt])
    rows = [{"row": row, "column": column, **_one(value)} for (row, column), value in np.ndenumerate(values_hw)]
    step()
    return Table("gradient", "Gradient x input of the picture's tokens", rows, (
        "Input: the token as it enters the language model, less the same token of a picture in the mean colour.",
        "To first order, what the log-odds lose without it. What later layers add (DeepStack) is left out.",
        *asked.mapped)), {"gradient": values_hw}  # fmt: skip


def lens(asked: Asked, step: Callable[[], None]) -> Found:
    """What the last token would say at every layer (logit lens, nostalgebraist 2020)."""
    last_lv = lens_logits(asked.vlm, asked.prepared)
    rows: list[Row] = []
    for layer, (p_v, lost) in enumerate(zip(last_lv.softmax(dim=-1), asked.lost(last_lv), strict=True)):
        rows += [{"layer": layer, "token": word, "said": lost["said"], **_one(p_v[token])}
                 for word, token in asked.top().items()]  # fmt: skip
    step()
    return Table("lens", "Probabilities that the state of the last token stands for, by layer", rows, (
        "The state that enters a layer through the model's own end (norm, head); the last number is the model itself.",
        "said: the likeliest token of all.")), {}  # fmt: skip


def lens_logits(vlm: HookedVLM, prepared: Prepared) -> Tensor:
    """Logits at the last token as if the language model ended at each of its sites, shape (sites, vocabulary).

    One run: the states that enter the layers leave the last one in its place, one row each, and the model's own end
    does the rest. Of one prompt.
    """
    *sites, end = vlm.sites("language")
    kept: list[Tensor] = []

    def keep(states_btd: Tensor) -> None:
        kept.append(states_btd[:, -1:])

    edits = [*((site, keep) for site in sites), (end, lambda states_btd: torch.cat([*kept, states_btd[:, -1:]]))]
    return vlm.run(prepared, changes=Changes(edits)).last_bv


def knockout(
    asked: Asked, cases: list[dict[str, Any]], later: list[dict[str, Any]], step: Callable[[], None]
) -> tuple[Table, Table, dict[str, Any]]:
    """What the answer loses when some tokens are hidden from others in a window of layers, or the picture from a layer
    on."""
    groups, image_bt = question_groups(asked.prepared, None), asked.prepared.image_bt
    for name, mask_n in () if asked.box_n is None else ((BOX, asked.box_n), (REST, ~asked.box_n)):
        groups[name] = torch.zeros_like(image_bt)
        groups[name][image_bt] = mask_n.to(image_bt.device)
    rows: list[Row] = []
    every = [*cases, *later]
    for case, trace in zip(every, knocked(asked.vlm, asked.prepared, groups, every), strict=True):
        (lost,) = asked.lost(trace.last_bv)
        rows.append({**case, **_one(lost["p"]), "odds": lost["odds"], "said": lost["said"]})
        step()
    return Table("knockout", "Probability that the answer loses when some tokens are hidden from others",
                 rows[: len(cases)], (
        "first, last: the window's layers. odds: by how much the log-odds fall. said: the likeliest token then.",
        "words: behind the picture and before the last token.")), Table(
        "dropped", "Probability that the answer loses when the picture's tokens are dropped from a layer on",
        rows[len(cases) :], (
        "From the first layer on nothing behind the picture sees it. odds, said: as of knockout.",)), {}  # fmt: skip


def patching(vlm: HookedVLM, scene: Scene) -> Found:
    """What of the answer comes back with some tokens' states from before two objects were exchanged, layer by layer."""
    pairs, said = usable(vlm, exchanges([direction(scene, vlm.speech)], vlm.speech), 1)
    if not pairs:
        raise UserError("where the one object lies is answered alike when the two are exchanged")
    rows = [{**row, **_one(row["value"])} for row in recoveries(vlm, pairs, 1, lambda done, of: None)]
    asked = f"Asked of both: {pairs[0][0].prompt}"
    return Table("patching", "How much of the answer comes back with states from the scene before the exchange", rows, (
        f"{asked}. {said}", "0: as if nothing were patched; 1: as if everything were.")), {}  # fmt: skip
