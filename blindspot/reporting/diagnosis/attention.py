"""Where the language model looks: by layer, and over pictures."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from blindspot.reporting.diagnosis.data import Pictures, Row, Tables, percent, ratio, sure
from blindspot.reporting.diagnosis.drawing import by_layer, line, picture, rule
from blindspot.reporting.diagnosis.examples import verdict
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT
from blindspot.reporting.sheet import WIDTH, Drawn, Sheet
from blindspot.reporting.text import clean

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


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Looking at objects by layer, maps over pictures, share of the picture, and scaling."""
    if "objects" in tables:
        yield _objects(tables["objects"].rows)
    if {"images", "maps", "queries", "layers", "boxes"} <= set(pictures):
        yield _maps(pictures)
    if "shares" in tables:
        yield _shares(tables["shares"].rows)
    if "scaling" in tables:
        yield _scaling(tables["scaling"].rows)


def _objects(rows: list[Row]) -> Drawn:
    means = [
        row for row in rows if (row["measure"], row["heads"]) == ("enrichment", "mean") and row["value"] is not None
    ]
    asked = [row for row in means if (row["query"], row["object"]) in _LOOKS and row["object"] != "other"]
    top = max(asked, key=lambda row: row["value"], default=None)
    title, said = "How much attention lies on objects", ()
    if top is not None:
        look = _LOOKS[top["query"], top["object"]][0].replace(" on ", " looks at ")
        auroc = next((row["value"] for row in rows if row["measure"] == "auroc" and row["heads"] == "mean"
                      and all(row[key] == top[key] for key in ("query", "object", "layer"))), None)  # fmt: skip
        much = f"{top['value']:.1f} times as much as even attention would (AUROC {ratio(auroc)})"
        title = f"In layer {top['layer']} the {look} {much}"
        other = max((row["value"] for row in means if row["object"] == "other"
                     and all(row[key] == top[key] for key in ("query", "layer"))), default=None)  # fmt: skip
        if other is not None and (top["low"] is None or top["low"] <= other):
            title += f", but at other objects no less ({other:.1f})"
        if top["value"] < 1.2:
            much = f"at most {ratio(top['value'])} times even attention"
            title = f"No layer looks at the objects that are asked about: {much}"
        said = (f"{title}.",)
    subtitle = (
        "Enrichment: share of attention on the object over its share of the picture (1: even). AUROC: how often a "
        "patch of the object gets more attention than another (0.5: by chance). Mean over heads; dashed: the best "
        "head."
    )
    sheet = Sheet(title, subtitle, 3.4)
    panels = sheet.panels(1, 2, bottom=1.0, top=0.3, gaps=(0, 0.75))
    for panel, measure, even in zip(panels, ("enrichment", "auroc"), (1.0, 0.5), strict=True):
        for (query, target), (_, colour) in _LOOKS.items():
            for heads, style in (("mean", "solid"), ("best", "dashed")):
                own = [row for row in rows if (row["query"], row["object"], row["measure"], row["heads"])
                       == (query, target, measure, heads)]  # fmt: skip
                if own and not (heads == "best" and target == "other"):
                    thick = 1 if heads == "best" else _THICK[query]
                    line(panel, [row["layer"] for row in own], own, colour, linestyle=style, linewidth=thick)
        rule(panel, even)
        by_layer(panel)
        panel.set_title("enrichment" if measure == "enrichment" else "AUROC", loc="left", fontsize=10)
    sheet.legend([Line2D([], [], color=colour, marker="o", label=name) for name, colour in _LOOKS.values()], columns=2)
    return Drawn("attention", sheet, rows, said)


def _maps(pictures: Pictures) -> Drawn:
    images, maps, boxes = pictures["images"], pictures["maps"], pictures["boxes"]
    queries, layer = [str(query) for query in pictures["queries"]], int(pictures["layers"][-1])
    shown = min(_MOST_PICTURES, len(images))
    hits = {
        query: sum(_on_object(maps[n, -1, k], boxes[k], query) for k in range(len(images)))
        for n, query in enumerate(queries)
    }
    spoken = ", ".join(f"{hits[query]} of {len(images)} for {_WORDS.get(query, query)}" for query in queries)
    title = f"In layer {layer} the patch that gets most attention lies on the object in {spoken}"
    side = (WIDTH - 0.3 - 0.15 * len(queries)) / (len(queries) + 1)
    some = f" The first {shown} pictures." if shown < len(images) else ""
    subtitle = (
        "Attention within the picture from three tokens (darker: more; mean over heads). Blue frame: the subject, "
        "orange: the reference. Left: question, the model's answer."
    ) + some
    sheet = Sheet(title, subtitle, shown * (side + 0.42) + 0.6)
    panels = sheet.panels(shown, len(queries) + 1, left=0.15, top=0.3, bottom=0.72, gaps=(0.42, 0.15))
    rows = []
    for number in range(shown):
        line_of = panels[number * (len(queries) + 1) : (number + 1) * (len(queries) + 1)]
        _framed(line_of[0], images[number], boxes[number], *_caption(pictures, number))
        for n, query in enumerate(queries):
            panel = line_of[n + 1]
            _framed(panel, _pale(images[number]), boxes[number])
            high, wide = images[number].shape[:2]
            weights = maps[n, -1, number]
            panel.imshow(_shade(weights), extent=(-0.5, wide - 0.5, high - 0.5, -0.5), interpolation="none")
            if number == 0:
                panel.set_title(f"from {_WORDS.get(query, query)}", fontsize=9, fontweight="normal")
    for n, query in enumerate(queries):
        for at, layer_at in enumerate(pictures["layers"].tolist()):
            rows += [
                {"picture": k, "query": query, "layer": layer_at, "row": down, "column": across, "value": float(value)}
                for k in range(len(images))
                for (down, across), value in np.ndenumerate(maps[n, at, k])
            ]
    sheet.legend([Patch(facecolor="none", edgecolor=HUES[0], label="subject"),
                  Patch(facecolor="none", edgecolor=HUES[4], label="reference")])  # fmt: skip
    return Drawn("attention_maps", sheet, rows)


def _on_object(map_hw: np.ndarray, boxes: np.ndarray, query: str) -> bool:
    """Whether the patch of most attention overlaps the object that a query names; for other queries, either."""
    down, across = divmod(int(map_hw.argmax()), map_hw.shape[1])
    wanted = {"subject": boxes[:1], "reference": boxes[1:]}.get(query, boxes)
    high, wide = map_hw.shape
    return any(x0 * wide < across + 1 and x1 * wide > across and y0 * high < down + 1 and y1 * high > down
               for x0, y0, x1, y1 in wanted)  # fmt: skip


def _framed(panel: Axes, image: np.ndarray, boxes: np.ndarray, caption: str = "", colour: str = INK) -> None:
    picture(panel, image, caption, colour)
    high, wide = image.shape[:2]
    for (x0, y0, x1, y1), hue in zip(boxes.tolist(), (HUES[0], HUES[4]), strict=False):
        corner = (x0 * wide - 0.5, y0 * high - 0.5)
        for edge, width in (("white", 2.8), (hue, 1.6)):
            panel.add_patch(
                Rectangle(corner, (x1 - x0) * wide, (y1 - y0) * high, fill=False, edgecolor=edge, linewidth=width)
            )


def _caption(pictures: Pictures, number: int) -> tuple[str, str]:
    """What was asked and said about a picture, and the colour to write it in."""
    if not {"prompts", "given", "answers"} <= set(pictures):
        return "", INK
    said, colour = verdict(str(pictures["given"][number]), str(pictures["answers"][number]))
    return f"{clean(str(pictures['prompts'][number]), 32)}\n{said}", colour


def _pale(image: np.ndarray) -> np.ndarray:
    grey = image.astype(float).mean(axis=2, keepdims=True).repeat(3, axis=2)
    return (255 - 0.25 * (255 - grey)).astype(np.uint8)


def _shade(map_hw: np.ndarray) -> np.ndarray:
    """A map as a layer of blue, as opaque as there is attention; the most is opaque to 85 %."""
    layer = np.zeros((*map_hw.shape, 4))
    layer[..., :3] = (0.0, 0.19, 0.42)
    layer[..., 3] = 0.85 * map_hw / max(float(map_hw.max()), 1e-9)
    return layer


def _shares(rows: list[Row]) -> Drawn:
    measures = [name for name in dict.fromkeys(str(row["measure"]) for row in rows)]
    last = [row for row in rows if row["query"] == "last" and row["measure"] == "share" and row["value"] is not None]
    title = "Attention on the picture"
    if last:
        top = max(last, key=lambda row: row["value"])
        low = min(last, key=lambda row: row["value"])
        title = (f"The last token spends {percent(low['value'])} (layer {low['layer']}) to {percent(top['value'])} "
                 f"(layer {top['layer']}) of its attention on the picture; even attention would be "
                 f"{percent(top['even'])}")  # fmt: skip
    subtitle = (
        "Share of attention on the picture, also without what stands before the picture, and entropy within the "
        "picture (1: even, 0: one token). Dotted: what even attention over all visible tokens would be."
    )
    sheet = Sheet(title, subtitle, 3.2)
    panels = sheet.panels(1, len(measures), bottom=0.85, top=0.3, gaps=(0, 0.55))
    hues = dict(zip(_WORDS, HUES, strict=False))
    for panel, measure in zip(panels, measures, strict=True):
        for query, colour in hues.items():
            own = [row for row in rows if (row["query"], row["measure"]) == (query, measure)]
            if own:
                line(panel, [row["layer"] for row in own], own, colour, linewidth=_THICK[query])
            if own and own[0]["even"] is not None:
                panel.axhline(own[0]["even"], color=colour, linewidth=1, linestyle="dotted")
        panel.set_ylim(0, 1.03)
        by_layer(panel)
        panel.set_title(measure, loc="left", fontsize=10)
    sheet.legend(
        Line2D([], [], color=hues[query], marker="o", label=f"from {words}") for query, words in _WORDS.items()
    )
    return Drawn("attention_share", sheet, rows)


def _scaling(rows: list[Row]) -> Drawn:
    tasks, plain = list(dict.fromkeys(str(row["task"]) for row in rows)), {}
    for row in rows:
        if row["method"] == "none":
            plain[str(row["task"])] = row
    changed = [row for row in rows if row["method"] != "none" and row["difference"] is not None]
    loss = min(changed, key=lambda row: row["difference"], default=None)
    clear = [row for row in changed if sure({"value": row["difference"], "low": row["difference_low"]})]
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
    sheet = Sheet(title, subtitle, 3.2)
    panels = sheet.panels(1, max(1, len(tasks)), bottom=0.85, top=0.3, gaps=(0, 0.5))
    forms = dict(zip(dict.fromkeys(str(row["form"]) for row in rows if row["form"]), HUES, strict=False))
    for panel, task in zip(panels, tasks, strict=False):
        alphas = []
        for form, colour in forms.items():
            scaled = [row for row in rows if (row["task"], row["method"], row["form"]) == (task, "ScalingVis", form)]
            scaled += [{**plain[task], "alpha": 1.0}] if task in plain else []
            scaled.sort(key=lambda row: row["alpha"])
            alphas += [row["alpha"] for row in scaled]
            line(panel, [row["alpha"] for row in scaled], scaled, colour, 100)
            for row in rows:
                if (row["task"], row["method"], row["form"]) == (task, "AdaptVis", form) and row["value"] is not None:
                    panel.plot(max(alphas, default=2) + 0.3, 100 * row["value"], "D", color=colour, markersize=7)
        if task in plain and plain[task]["value"] is not None:
            rule(panel, 100 * plain[task]["value"])
        panel.set_ylim(0, 103)
        panel.grid(axis="y", color=LIGHT, linewidth=0.6)
        panel.set_xlabel("alpha")
        panel.set_title(f"{task}, percent right", loc="left", fontsize=10)
    sheet.legend([*(Line2D([], [], color=colour, marker="o", label=form) for form, colour in forms.items()),
                  Line2D([], [], color=GREY, marker="D", linestyle="", label="AdaptVis")])  # fmt: skip
    return Drawn("attention_scaling", sheet, rows)


def _way(row: Row) -> str:
    how: Sequence[str] = [str(row["method"]), *([str(row["form"])] if row["form"] else [])]
    return ", ".join(how) + (f", alpha {row['alpha']:g}" if row["alpha"] is not None else "")
