"""Which tokens in which layers carry the answer: patching, knockout, spatial-ID vectors, steering."""

from collections.abc import Iterator
from math import isqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from blindspot.reporting.diagnosis.data import NOTICEABLE, Pictures, Row, Table, Tables, percent, ratio, sure, whole
from blindspot.reporting.diagnosis.drawing import DIVIDED, bars, heat, line
from blindspot.reporting.figure_style import GREY, HUES, LIGHT
from blindspot.reporting.sheet import WIDTH, Drawn, Sheet

_GROUPS = ("all image", "both objects' patches", "subject's patches", "reference's patches", "other patches", "words",
           "subject word", "relation word", "reference word", "last token", "everything")  # fmt: skip
_SPOKEN = {"all image": "the picture"}
_MOST_MAPS = 5
_LATTICE = 0.5


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Recovery by layer and tokens, what hiding tokens costs, maps of places, and steering by them."""
    if "patching" in tables:
        yield _recovery(tables["patching"])
    if "knockout" in tables:
        yield _knockout(tables["knockout"].rows)
    if "spatial_id" in tables and "spatial_id" in pictures:
        yield _lattices(tables["spatial_id"].rows, pictures["spatial_id"])
    if "steering" in tables:
        yield _steering(tables["steering"].rows)


def _recovery(table: Table) -> Drawn:
    rows = table.rows
    sites = list(dict.fromkeys((str(row["part"]), int(row["layer"])) for row in rows))
    named = dict.fromkeys(str(row["group"]) for row in rows)
    groups = [*(group for group in _GROUPS if group in named), *(group for group in named if group not in _GROUPS)]
    values = {(str(row["part"]), int(row["layer"]), str(row["group"])): row["value"] for row in rows}
    title = _carried(values, [layer for part, layer in sites if part == "language"])
    sheet = Sheet(title, "Two pictures with the two objects exchanged, so the right answers are opposite. Percent "
                         "of the answer that "
                  "comes back when the states of some tokens (rows) in one layer (columns) are taken from the other "
                  "picture. " + (table.notes[0] if table.notes else ""),
                  0.95 + 0.27 * len(groups))  # fmt: skip
    (panel,) = sheet.panels(left=1.6, bottom=0.6, top=0.3)
    shown = np.array([[values.get((*site, group)) for site in sites] for group in groups], dtype=float)
    heat(panel, shown, groups, [str(layer) for _, layer in sites])
    encoder = sum(part == "encoder" for part, _ in sites)
    if 0 < encoder < len(sites):
        panel.axvline(encoder, color="#222222", linewidth=1.5)
        panel.set_title("image encoder", x=encoder / len(sites) / 2, fontsize=9.5, fontweight="normal")
        panel.annotate("language model", ((encoder + len(sites)) / 2 / len(sites), 1), xycoords="axes fraction",
                       xytext=(0, 5), textcoords="offset points", ha="center", fontsize=9.5)  # fmt: skip
    panel.set_xlabel("layer")
    return Drawn("patching", sheet, rows, (f"{title}.",))


def _carried(values: dict[tuple[str, int, str], float | None], layers: list[int]) -> str:
    def holds(layer: int, group: str) -> bool:
        return (values.get(("language", layer, group)) or 0.0) >= 0.5

    image = [layer for layer in layers if holds(layer, "all image")]
    last = [layer for layer in layers if holds(layer, "last token")]
    if not image and not last:
        return "No group of tokens alone carries half of the answer in any layer of the language model"
    parts = []
    if image:
        parts.append(f"is carried by the picture's tokens up to layer {max(image)} of the language model")
    if last:
        parts.append(
            f"by the last token from layer {min(last)} on"
            if parts
            else f"is carried by the last token from layer {min(last)} on"
        )
    return "The answer " + ", ".join(parts)


def _knockout(rows: list[Row]) -> Drawn:
    windows = list(dict.fromkeys((int(row["first"]), int(row["last"])) for row in rows))
    every = (min(first for first, _ in windows), max(last for _, last in windows))
    flows = list(dict.fromkeys((str(row["from"]), str(row["to"])) for row in rows))
    values = {(str(row["from"]), str(row["to"]), int(row["first"]), int(row["last"])): row for row in rows}
    parts = [window for window in windows if window != every] or windows
    single = [row for row in rows if (int(row["first"]), int(row["last"])) in parts and row["value"] is not None]
    title = "No clear cost of hiding any tokens from others" if single else "What hiding tokens from others costs"
    clear = [row for row in single if sure(row) and row["value"] >= NOTICEABLE]
    if clear:
        worst = max(clear, key=lambda row: row["value"])
        first, last = worst["first"], worst["last"]
        where = f"layer {first}" if first == last else f"layers {first} to {last}"
        source = _SPOKEN.get(str(worst["from"]), f"the {worst['from']}")
        title = f"Hiding {source} from the {worst['to']} costs most in {where}: {whole(100 * worst['value'])} points"
    subtitle = (
        "Points of accuracy lost when some tokens are hidden from others: in all layers of the language model "
        "(bars, with 95 % interval) and in some (right, by layer)."
    )
    sheet = Sheet(title, subtitle, 0.95 + 0.32 * len(flows))
    left, right = sheet.panels(1, 2, left=2.75, bottom=0.55, top=0.3, gaps=(0, 0.3), widths=(1, 1.1))
    names = [f"{_SPOKEN.get(source, source)} \N{RIGHTWARDS ARROW} {target}" for source, target in flows]
    empty: Row = {"value": None, "low": None, "high": None}
    bars(left, names, [values.get((*flow, *every), empty) for flow in flows], [HUES[0]] * len(flows))
    left.set_title("hidden in all layers", loc="left", fontsize=9.5, fontweight="normal")
    left.margins(x=0.15)
    shown = np.array([[values.get((*flow, *part), empty)["value"] for part in parts] for flow in flows], dtype=float)
    labels = [str(first) if first == last else f"{first}\N{EN DASH}{last}" for first, last in parts]
    heat(right, shown, [""] * len(flows), labels, (-1.0, 1.0), DIVIDED)
    right.set_title("hidden in some layers", loc="left", fontsize=9.5, fontweight="normal")
    return Drawn("knockout", sheet, rows)


def _lattices(rows: list[Row], points_rl2: np.ndarray) -> Drawn:
    tokens = list(dict.fromkeys(str(row["token"]) for row in rows))
    layers = sorted({int(row["layer"]) for row in rows})
    if len(layers) > _MOST_MAPS:
        layers = [layers[at] for at in np.linspace(0, len(layers) - 1, _MOST_MAPS).round().astype(int)]
    best = max((row for row in rows if row["value"] is not None), key=lambda row: row["value"], default=None)
    title = "No token's state depends on where its object is"
    if best is not None:
        found = (
            "forms a map of the picture"
            if best["value"] >= max(_LATTICE, best["chance"] or 0)
            else "hardly forms a map of the picture"
        )
        title = (f"At layer {best['layer']} the state of the {best['token']} {found}: {ratio(best['value'])} like a "
                 f"lattice (by chance "
                 f"below {ratio(best['chance'])})")  # fmt: skip
    side = (WIDTH - 1.1 - 0.15 * (len(layers) - 1)) / len(layers)
    subtitle = (
        "By how much a state changes with the cell its object is in, on its two main components; neighbouring "
        "cells are joined, dark is the top row. Numbers: R\N{SUPERSCRIPT TWO} of a straight map from row and column."
    )
    sheet = Sheet(title, subtitle, 0.45 + len(tokens) * (side + 0.25))
    panels = sheet.panels(len(tokens), len(layers), left=0.95, bottom=0.12, top=0.3, gaps=(0.25, 0.15))
    for panel, (token, layer) in zip(panels, ((token, layer) for token in tokens for layer in layers), strict=True):
        at = next((n for n, row in enumerate(rows) if (row["token"], row["layer"]) == (token, layer)), None)
        value = None if at is None else rows[at]["value"]
        panel.set_title(
            f"layer {layer}: {ratio(value) if value is not None else 'no place'}", fontsize=8.5, fontweight="normal"
        )
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_edgecolor(LIGHT)
            spine.set_visible(True)
        if layer == layers[0]:
            panel.set_ylabel(token.replace(" ", "\n", 1), rotation=0, ha="right", va="center", labelpad=6)
        if at is not None and value is not None:
            _lattice(panel, points_rl2[at])
    csv = [
        {"token": row["token"], "layer": row["layer"], "place": place, "x": float(x), "y": float(y)}
        for row, points_l2 in zip(rows, points_rl2, strict=True)
        for place, (y, x) in enumerate(points_l2)
    ]
    return Drawn("spatial_id", sheet, csv)


def _lattice(panel: Axes, points_l2: np.ndarray) -> None:
    side = isqrt(len(points_l2))
    grid = points_l2[: side * side].reshape(side, side, 2)
    shades = ["#00304D", HUES[0], HUES[5], "#9CC9E5"]
    for number in range(side):
        panel.plot(grid[:, number, 1], grid[:, number, 0], color=GREY, linewidth=0.8, zorder=1)
        panel.plot(grid[number, :, 1], grid[number, :, 0], color=GREY, linewidth=0.8, zorder=1)
    for number in range(side):
        colour = shades[number * len(shades) // side]
        panel.plot(grid[number, :, 1], grid[number, :, 0], "o", color=colour, markersize=5, zorder=2)
    reach = 1.15 * float(np.abs(points_l2).max() or 1)
    panel.set_xlim(-reach, reach)
    panel.set_ylim(reach, -reach)


def _steering(rows: list[Row]) -> Drawn:
    tokens = list(dict.fromkeys(str(row["token"]) for row in rows))
    random = {
        (row["token"], row["layer"], row["strength"]): row["value"] for row in rows if row["direction"] == "random"
    }
    known = [row for row in rows if row["direction"] == "spatial id" and row["value"] is not None]
    beside = [(row, random.get((row["token"], row["layer"], row["strength"]))) for row in known]
    best, pushed = max(beside, key=lambda pair: pair[0]["value"] - (pair[1] or 0.0), default=(None, None))
    title = "Answers when a state is moved"
    if best is not None:
        title = (f"Telling the {best['token']} at layer {best['layer']} that its object is elsewhere turns "
                 f"{percent(best['value'])} of answers; a random push as strong turns {percent(pushed)}")  # fmt: skip
        if pushed is not None and (best["low"] is None or best["low"] <= pushed):
            title = (f"Telling a token that its object is elsewhere turns no more answers ({percent(best['value'])}) "
                     f"than a random push as strong ({percent(pushed)})")  # fmt: skip
    strengths = sorted({float(row["strength"]) for row in rows})
    subtitle = (
        "Share of answers that become those of the target cell when the difference of two spatial-ID vectors, "
        "times a strength, is added to one layer's states; with 95 % interval."
    )
    sheet = Sheet(title, subtitle, 3.1)
    panels = sheet.panels(1, max(1, len(tokens)), bottom=0.85, top=0.3, gaps=(0, 0.5))
    hues = dict(zip(strengths, (HUES[5], HUES[0], "#00304D", GREY), strict=False))
    for panel, token in zip(panels, tokens, strict=False):
        for direction, style in (("spatial id", "solid"), ("random", "dotted")):
            for strength, colour in hues.items():
                own = [
                    row
                    for row in rows
                    if (row["token"], row["direction"], row["strength"]) == (token, direction, strength)
                ]
                if own:
                    line(panel, [row["layer"] for row in own], own, colour, 100, linestyle=style,
                         marker="o" if direction == "spatial id" else ".")  # fmt: skip
        panel.set_ylim(-3, 103)
        panel.set_xticks(sorted({int(row["layer"]) for row in rows}))
        panel.grid(axis="y", color=LIGHT, linewidth=0.6)
        panel.set_xlabel("layer of the language model")
        panel.set_title(f"{token}, percent turned", loc="left", fontsize=10)
    marks = [
        Line2D([], [], color=colour, marker="o", label=f"strength {strength:g}") for strength, colour in hues.items()
    ]
    sheet.legend([*marks, Line2D([], [], color=GREY, linestyle="dotted", marker=".", label="random direction")])
    return Drawn("steering", sheet, rows)
