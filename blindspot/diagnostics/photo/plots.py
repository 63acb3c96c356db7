"""One picture of the user's own: its answers, where they come from in it, and where in the model."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from blindspot.diagnostics.base import Number, Pictures, Row, Tables, columns
from blindspot.diagnostics.figures import distinct, having, highest, known, paled, percent
from blindspot.diagnostics.patching.plots import ROWS as PATCHING
from blindspot.diagnostics.patching.plots import dropped, hiding, in_some_layers, knockout, recovery
from blindspot.plots import HUES, WIDTH, Bar, Bars, Figure, Key, Lines, Panel, Rule, Series, stroke
from blindspot.plots import Pictures as Picture
from blindspot.text import clean, whole

_HIDDEN = columns(**{"from": str, "to": str}, first=int, last=int, odds=Number, said=str)
ROWS = {
    "answers": columns(condition=str, said=str, token=str),
    "attention": columns(measure=str, layer=int, head=int | None),
    "occlusion": columns(row=int, column=int, p=Number, said=str),
    "gradient": columns(row=int, column=int),
    "lens": columns(layer=int, token=str, said=str),
    "knockout": _HIDDEN,
    "dropped": _HIDDEN,
    "patching": PATCHING["patching"],
    "left_out": columns(part=str, why=str),
}
Array = np.ndarray | None
_ACROSS, _LAYERS = 4, "layer of the language model"
_SIDES = {"left": "right", "right": "left"}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    rows = {name: table.rows for name, table in tables.items()}
    if "answers" in rows and {"image", "blank"} <= set(pictures):
        yield _answers(rows["answers"], pictures, rows.get("left_out", ()))
    if "attention" in rows:
        yield _attention(rows["attention"])
        if {"image", "attention", "layers"} <= set(pictures):
            yield _maps(rows["attention"], pictures)
    if {"occlusion", "image"} <= set(pictures) and "occlusion" in rows:
        yield _needs(rows["occlusion"], pictures)
    if "lens" in rows:
        yield _lens(rows["lens"])
    if "knockout" in rows:
        yield _knockout(rows["knockout"])
    if "dropped" in rows:
        yield dropped("photo_dropped", "the answer's probability", rows["dropped"])
    if "patching" in tables:
        yield recovery("photo_patching", tables["patching"])


def _quoted(text: Any) -> str:
    return f"“{clean(str(text), 60)}”"


def _answers(rows: Sequence[Row], pictures: Pictures, left_out: Sequence[Row]) -> Figure:
    conditions, tokens = distinct(rows, "condition"), distinct(rows, "token")
    said = {name: str(having(rows, condition=name)[0]["said"]) for name in conditions}
    first = {name: percent(max(row["value"] or 0 for row in having(rows, condition=name))) for name in conditions}
    plain, mirrored, blind = (said[name] for name in ("as it is", "mirrored", "blind"))
    title = (f"It answers {_quoted(plain)} (first token {first['as it is']}), and without the picture "
             f"{'the same' if blind == plain else _quoted(blind)} ({first['blind']})")  # fmt: skip
    way = f"{'the same' if mirrored == plain else _quoted(mirrored)} ({first['mirrored']})"
    turned = re.sub(r"\b(left|right)\b", lambda found: _SIDES[found[0].lower()], plain, flags=re.IGNORECASE)
    if turned != plain:
        way += f": left and right {'' if turned.lower() == mirrored.lower() else 'do not '}follow the picture"
    image, box = pictures["image"], pictures.get("box")
    blank = np.broadcast_to(pictures["blank"], image.shape)
    mirror = None if box is None else np.array([1 - box[2], box[1], 1 - box[0], box[3]])
    shown = (image, box), (image[:, ::-1], mirror), (blank, None)
    panels: list[list[Panel]] = [
        [_picture(*pair, title=name, caption=clean(said[name], 40))
         for name, pair in zip(conditions, shown, strict=True)],
        [Bars(names=[clean(token, 16) for token in tokens], x_limits=(0, 118), x_ticks=(0, 50, 100),
              bars=[Bar.of(place, row) for place, row in enumerate(having(rows, condition=name))])
         for name in conditions],
    ]  # fmt: skip
    subtitle = (
        "Above: what is shown and what is answered; mirrored: left and right exchanged; blind: the picture's mean "
        "colour. Below: probability of the answer's first token in percent, of the likeliest tokens."
    )
    says = (f"{title}.", f"Mirrored left to right it answers {way}.",
            *(f"{row['part']} is left out: {row['why']}." for row in left_out))  # fmt: skip
    height = _high(image, len(shown)) + 0.9 + 0.24 * len(tokens)
    return Figure("photo_answers", title, subtitle, panels, rows, height, says=says)


def _picture(image_hw3: np.ndarray, box: Array, weights_hw: Array = None, **said: str) -> Picture:
    framed = [] if box is None else [(box.tolist(), HUES[4])]
    look: dict[str, Any] = {"title_size": 9, "light": True, "centred": True}
    return Picture(image_hwc=np.ascontiguousarray(image_hw3), boxes=framed, weights_hw=weights_hw, **said, **look)


def _high(image_hw3: np.ndarray, across: int) -> float:
    """Inches that a line of so many pictures takes."""
    return (WIDTH - 0.3 - 0.12 * (across - 1)) / across * image_hw3.shape[0] / image_hw3.shape[1] + 0.4


def _attention(rows: Sequence[Row]) -> Figure:
    shares, means, rollout = (having(rows, measure=name, head=None) for name in ("share", "enrichment", "rollout"))
    bests = [row for row in rows if row["head"] is not None]
    low, top = (pick(known(shares), key=lambda row: row["value"]) for pick in (min, max))
    title = (f"The last token spends {percent(low['value'])} (layer {low['layer']}) to {percent(top['value'])} (layer "
             f"{top['layer']}) of its attention on the picture")  # fmt: skip
    subtitle, legend = "Attention of the token that the answer comes from, mean over heads.", []
    panels: list[Panel] = [_by_layer([("", HUES[0], shares)], 100, title="percent on the picture", y_limits=(0, 103))]
    peak, best = highest(means), highest(bests)
    if peak is not None and best is not None:
        title = (f"The box gets {peak['value']:.1f} times even attention in layer {peak['layer']}, and "
                 f"{best['value']:.1f} times from head {best['head']} of layer {best['layer']}")  # fmt: skip
        subtitle += (" Enrichment: the box's share of the attention on the picture over its share of the picture (1: "
                     "even). Rollout: attention multiplied over layers.")  # fmt: skip
        lines = [("mean of heads", HUES[0], means), ("best head", HUES[1], bests), ("rollout", HUES[2], rollout)]
        panels.append(_by_layer(lines, title="enrichment of the box", rules=[Rule(1)]))
        legend = [Key(name, colour, mark="o") for name, colour, own in lines if own]
    return Figure("photo_attention", title, subtitle, [panels], rows, 2.7, legend=legend, says=(f"{title}.",))


def _by_layer(lines: list[tuple[str, str, list[Row]]], scale: float = 1, **more: Any) -> Lines:
    series = [Series.of([row["layer"] for row in own], own, colour, scale) for _, colour, own in lines]
    return Lines(series=series, whole=9, grid="y", x_label=_LAYERS, **more)


def _maps(rows: Sequence[Row], pictures: Pictures) -> Figure:
    image, maps, layers = (pictures[name] for name in ("image", "attention", "layers"))
    box = pictures.get("box")
    peak = highest(row for row in rows if row["measure"] == "enrichment" and row["head"] is None)
    at = int(np.flatnonzero(layers == peak["layer"])[0]) if peak else len(layers) - 1
    chosen = {at, *np.linspace(0, len(layers) - 1, min(len(layers), 5)).round().astype(int).tolist()}
    shown = [(f"layer {layers[n]}", maps[n]) for n in sorted(chosen)]
    if "best" in pictures:
        shown.append(("head {1} of layer {0}".format(*pictures["best_at"].tolist()), pictures["best"]))
    if "rollout" in pictures:
        shown.append(("rollout, all layers", pictures["rollout"]))
    panels = [_picture(image, box, title="as it is")]
    panels += [_picture(paled(image), box, map_hw, title=head) for head, map_hw in shown]
    title = f"In layer {layers[at]} {_top(maps[at])} gets most attention"
    subtitle = (
        "Attention of the token that the answer comes from within the picture (darker: more), mean over heads, by "
        "layer; with a box, the head that looks most at it; rollout."
    )
    lines = [panels[start : start + _ACROSS] for start in range(0, len(panels), _ACROSS)]
    behind = [{"map": head, "row": row, "column": column, "value": float(value)}
              for head, map_hw in shown for (row, column), value in np.ndenumerate(map_hw)]  # fmt: skip
    return Figure("photo_attention_maps", title, subtitle, lines, behind, len(lines) * _high(image, _ACROSS) + 0.1)


def _top(values_hw: np.ndarray) -> str:
    """Where a map has its largest value."""
    down, across = np.unravel_index(values_hw.argmax(), values_hw.shape)
    return f"row {down}, column {across} of {values_hw.shape[0]} x {values_hw.shape[1]}"


def _needs(rows: Sequence[Row], pictures: Pictures) -> Figure:
    image, box, worst = pictures["image"], pictures.get("box"), highest(rows)
    title = "Covering no part of the picture costs the answer anything"
    if worst is not None and worst["value"] > 0:
        title = (f"Covering {_top(pictures['occlusion'])} costs the answer most: {whole(100 * worst['p'])} points of "
                 f"probability, and the likeliest token is then {_quoted(worst['said'])}")  # fmt: skip
    panels = [_picture(image, box, title="as it is")]
    for name, head in (("occlusion", "lost when covered"), ("gradient", "gradient x input")):
        if name in pictures:
            panels.append(_picture(paled(image), box, np.clip(pictures[name], 0, None), title=head))
    subtitle = (
        "By how much the log-odds of the answer's first token fall (darker: more) when a part is covered with the "
        "picture's mean colour, and, to first order, when an image token becomes that colour's. What speaks against it "
        "is not drawn."
    )
    return Figure("photo_needs", title, subtitle, [panels], rows, _high(image, 3) + 0.1, says=(f"{title}.",))


def _lens(rows: Sequence[Row]) -> Figure:
    tokens, end = distinct(rows, "token"), max(row["layer"] for row in rows)
    said = {row["layer"]: row["said"] for row in rows}
    start = 1 + max((layer for layer in said if said[layer] != said[end]), default=-1)
    title = f"The last token says {_quoted(said[end])} behind layer {start - 1} and from there on"
    if start == 0:
        title = f"The last token says {_quoted(said[end])} before the first layer and from there on"
    lines = [(token, having(rows, token=token), stroke(number)) for number, token in enumerate(tokens)]
    series = [Series.of([row["layer"] for row in own], own, scale=100, **look) for _, own, look in lines]
    panel = Lines(series=series, rules=[Rule(start, "x")], y_limits=(-3, 103), whole=12, grid="y", title="percent",
                  x_label=f"layers that the token has passed, of {end}")  # fmt: skip
    subtitle = (
        "Probability of the likeliest first tokens if the language model ended after so many layers (logit lens). "
        "Dashed: from here on the answer is the likeliest token."
    )
    legend = [Key(clean(token, 24), mark="o", **look) for token, _, look in lines]
    return Figure("photo_lens", title, subtitle, [[panel]], rows, 2.7, legend=legend, says=(f"{title}.",))


def _knockout(rows: Sequence[Row]) -> Figure:
    worst = highest(in_some_layers(rows))
    title = "Hiding any tokens from others costs the answer nothing"
    if worst is not None and worst["value"] > 0:
        title = (f"{hiding(worst)}: {whole(100 * worst['value'])} points of probability, and the likeliest token is "
                 f"then {_quoted(worst['said'])}")  # fmt: skip
    return knockout("photo_knockout", title, "the answer's probability lost", rows, says=(f"{title}.",))
