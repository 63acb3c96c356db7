"""Where the language model looks: by layer, and over pictures."""

from collections.abc import Iterator, Sequence

import numpy as np

from blindspot.diagnostics.base import AGAINST, Number, Pictures, Row, Tables, columns
from blindspot.diagnostics.figures import distinct, having, highest, known, paled, percent, ratio, sure, verdict
from blindspot.plots import GREY, HUES, INK, NONE, WIDTH, Figure, Key, Lines, Panel, Rule, Series
from blindspot.plots import Pictures as Picture
from blindspot.text import clean

ROWS = {
    "objects": columns(query=str, object=str, measure=str, layer=int, heads=str, head=int | None),
    "shares": columns(query=str, measure=str, layer=int, even=Number),
    "rollout": columns(object=str, measure=str, layer=int),
    "sensitivity": columns(form=str, layer=int),
    "scaling": columns(task=str, method=str, form=str | None, alpha=Number, **AGAINST),
}
_LOOKS = {
    ("last", "asked"): ("last token on both objects", HUES[0]),
    ("subject", "subject"): ("subject's word on the subject", HUES[1]),
    ("reference", "reference"): ("reference's word on the reference", HUES[2]),
    ("last", "other"): ("last token on other objects", GREY),
}
_WORDS = {"last": "the last token", "subject": "the subject's word", "reference": "the reference's word"}
_THICK = {"last": 3.4, "subject": 2.2, "reference": 1.2}
"""Line widths, so that lines on each other are seen."""
_MOST_PICTURES = 4
_LAYERS = "layer of the language model"


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    if "objects" in tables:
        yield _objects(tables["objects"].rows)
    if {"images", "maps", "queries", "layers", "boxes"} <= set(pictures):
        yield _maps(pictures)
    if "shares" in tables:
        yield _shares(tables["shares"].rows)
    if "scaling" in tables:
        yield _scaling(tables["scaling"].rows)


def _objects(rows: Sequence[Row]) -> Figure:
    means = known(having(rows, measure="enrichment", heads="mean"))
    top = highest(row for row in means if (row["query"], row["object"]) in _LOOKS and row["object"] != "other")
    title, said = "How much attention lies on objects", ()
    if top is not None:
        look = _LOOKS[top["query"], top["object"]][0].replace(" on ", " looks at ")
        at = {key: top[key] for key in ("query", "layer")}
        auroc = next(iter(having(rows, measure="auroc", heads="mean", object=top["object"], **at)), {"value": None})
        title = (f"In layer {top['layer']} the {look} {top['value']:.1f} times as much as even attention would "
                 f"(AUROC {ratio(auroc['value'])})")  # fmt: skip
        other = highest(having(means, object="other", **at))
        if other is not None and (top["low"] is None or top["low"] <= other["value"]):
            title += f", but at other objects no less ({other['value']:.1f})"
        if top["value"] < 1.2:
            much = f"at most {ratio(top['value'])} times even attention"
            title = f"No layer looks at the objects that are asked about: {much}"
        said = (f"{title}.",)
    subtitle = (
        "Enrichment: share of attention on the object over its share of the picture (1: even). AUROC: how often a "
        "patch of the object gets more attention than another (0.5: by chance). Mean over heads; dashed: the best "
        "head."
    )
    panels = []
    for measure, words, even in (("enrichment", "enrichment", 1.0), ("auroc", "AUROC", 0.5)):
        series = []
        for (query, target), (_, colour) in _LOOKS.items():
            for heads, dash, width in (("mean", "solid", _THICK[query]), ("best", "dashed", 1)):
                own = having(rows, query=query, object=target, measure=measure, heads=heads)
                if own and not (heads == "best" and target == "other"):
                    series.append(Series.of([row["layer"] for row in own], own, colour, dash=dash, width=width))
        panels.append(Lines(series=series, rules=[Rule(even)], whole=9, grid="y", x_label=_LAYERS, title=words))
    legend = [Key(name, colour, mark="o") for name, colour in _LOOKS.values()]
    return Figure("attention", title, subtitle, [panels], rows, 3.4, legend=legend, legend_columns=2, says=said)


def _maps(pictures: Pictures) -> Figure:
    images, maps, boxes = pictures["images"], pictures["maps"], pictures["boxes"]
    queries, layer = [str(query) for query in pictures["queries"]], int(pictures["layers"][-1])
    shown = min(_MOST_PICTURES, len(images))
    hits = [
        f"{sum(_on_object(maps[n, -1, k], boxes[k], query) for k in range(len(images)))} of {len(images)} for "
        f"{_WORDS.get(query, query)}"
        for n, query in enumerate(queries)
    ]
    title = f"In layer {layer} the patch that gets most attention lies on the object in {', '.join(hits)}"
    subtitle = (
        "Attention within the picture from three tokens (darker: more; mean over heads). Blue frame: the subject, "
        "orange: the reference. Left: question, the model's answer."
    ) + (f" The first {shown} pictures." if shown < len(images) else "")
    panels: list[list[Panel]] = []
    for k in range(shown):
        framed = list(zip(boxes[k].tolist(), (HUES[0], HUES[4]), strict=False))
        caption, colour = "", INK
        if {"prompts", "given", "answers"} <= set(pictures):
            said, colour = verdict(str(pictures["given"][k]), str(pictures["answers"][k]))
            caption = f"{clean(str(pictures['prompts'][k]), 32)}\n{said}"
        panels.append([Picture(image_hwc=images[k], boxes=framed, caption=caption, colour=colour)])
        pale = paled(images[k])
        for n, query in enumerate(queries):
            head = f"from {_WORDS.get(query, query)}" if k == 0 else ""
            panels[-1].append(Picture(image_hwc=pale, boxes=framed, weights_hw=maps[n, -1, k],
                                      title=head, title_size=9, light=True, centred=True))  # fmt: skip
    rows = [
        {"picture": k, "query": query, "layer": layer_at, "row": down, "column": across, "value": float(value)}
        for n, query in enumerate(queries)
        for at, layer_at in enumerate(pictures["layers"].tolist())
        for k in range(len(images))
        for (down, across), value in np.ndenumerate(maps[n, at, k])
    ]
    legend = [Key("subject", HUES[0], NONE, face="none"), Key("reference", HUES[4], NONE, face="none")]
    height = shown * ((WIDTH - 0.3 - 0.15 * len(queries)) / (len(queries) + 1) + 0.42) + 0.6
    return Figure("attention_maps", title, subtitle, panels, rows, height, legend=legend)


def _on_object(map_hw: np.ndarray, boxes: np.ndarray, query: str) -> bool:
    """Whether the patch of most attention overlaps the object that a query names; for other queries, either."""
    down, across = divmod(int(map_hw.argmax()), map_hw.shape[1])
    wanted = {"subject": boxes[:1], "reference": boxes[1:]}.get(query, boxes)
    high, wide = map_hw.shape
    return any(x0 * wide < across + 1 and x1 * wide > across and y0 * high < down + 1 and y1 * high > down
               for x0, y0, x1, y1 in wanted)  # fmt: skip


def _shares(rows: Sequence[Row]) -> Figure:
    last = known(having(rows, query="last", measure="share"))
    title = "Attention on the picture"
    if last:
        low, top = (pick(last, key=lambda row: row["value"]) for pick in (min, max))
        title = (f"The last token spends {percent(low['value'])} (layer {low['layer']}) to {percent(top['value'])} "
                 f"(layer {top['layer']}) of its attention on the picture; even attention would be "
                 f"{percent(top['even'])}")  # fmt: skip
    subtitle = (
        "Share of attention on the picture, also without what stands before the picture, and entropy within the "
        "picture (1: even, 0: one token). Dotted: what even attention over all visible tokens would be."
    )
    hues, panels = dict(zip(_WORDS, HUES, strict=False)), []
    for measure in distinct(rows, "measure"):
        series, rules = [], []
        for query, colour in hues.items():
            if own := having(rows, query=query, measure=measure):
                series.append(Series.of([row["layer"] for row in own], own, colour, width=_THICK[query]))
                rules += [Rule(row["even"], colour=colour, dash="dotted") for row in known(own[:1], "even")]
        panels.append(Lines(series=series, rules=rules, y_limits=(0, 1.03), whole=9, grid="y", x_label=_LAYERS,
                            title=measure))  # fmt: skip
    legend = [Key(f"from {words}", hues[query], mark="o") for query, words in _WORDS.items()]
    return Figure("attention_share", title, subtitle, [panels], rows, 3.2, legend=legend)


def _scaling(rows: Sequence[Row]) -> Figure:
    changed = [row for row in known(rows, "difference") if row["method"] != "none"]
    loss = min(changed, key=lambda row: row["difference"], default=None)
    clear = [row for row in changed if sure(row, "difference", "difference_low")]
    if clear:
        gain = max(clear, key=lambda row: row["difference"])
        title = (f"Scaling attention to the picture helps most by {100 * gain['difference']:+.0f} points "
                 f"({gain['task']}, {_way(gain)})")  # fmt: skip
    else:
        title = "No clear gain from scaling attention to the picture"
        if loss is not None and loss["difference"] < 0:
            title += f"; at worst it costs {-100 * loss['difference']:.0f} points ({loss['task']}, {_way(loss)})"
    subtitle = (
        "Accuracy when the last token's scores on the picture are multiplied by alpha in every layer "
        "(ScalingVis), as published and in a form that ignores a common shift; diamonds: AdaptVis. Dashed: as it "
        "is."
    )
    forms = dict(zip(dict.fromkeys(str(row["form"]) for row in rows if row["form"]), HUES, strict=False))
    panels = []
    for task in distinct(rows, "task"):
        plain, series, alphas = having(rows, task=task, method="none")[-1:], [], []
        for form, colour in forms.items():
            own = having(rows, task=task, form=form, method="ScalingVis")
            own = sorted([*own, *({**row, "alpha": 1.0} for row in plain)], key=lambda row: row["alpha"])
            alphas += [row["alpha"] for row in own]
            series.append(Series.of([row["alpha"] for row in own], own, colour, 100))
            series += [Series([max(alphas, default=2) + 0.3], [100 * row["value"]], colour, mark="D", size=7)
                       for row in known(having(rows, task=task, form=form, method="AdaptVis"))]  # fmt: skip
        rules = [Rule(100 * row["value"]) for row in known(plain)]
        panels.append(Lines(series=series, rules=rules, y_limits=(0, 103), grid="y", x_label="alpha",
                            title=f"{task}, percent right"))  # fmt: skip
    legend = [*(Key(form, colour, mark="o") for form, colour in forms.items()), Key("AdaptVis", GREY, NONE, "D")]
    return Figure("attention_scaling", title, subtitle, [panels], rows, 3.2, legend=legend)


def _way(row: Row) -> str:
    how = ", ".join(str(row[key]) for key in ("method", "form") if row[key])
    return how + (f", alpha {row['alpha']:g}" if row["alpha"] is not None else "")
