"""Which tokens in which layers carry the answer: patching, knockout, spatial-ID vectors, steering."""

from collections.abc import Iterator, Sequence
from math import isqrt

import numpy as np

from blindspot.diagnostics.base import Number, Pictures, Row, Table, Tables, columns
from blindspot.diagnostics.figures import EMPTY, clear, distinct, having, highest, known, percent, ratio
from blindspot.plots import GREY, HUES, INK, NAVY, WIDTH, Bar, Bars, Figure, Heat, Key, Lines, Note, Rule, Series
from blindspot.text import whole

_HIDDEN = columns(**{"from": str, "to": str}, first=int, last=int, margin=Number, margin_low=Number, margin_high=Number)
ROWS = {
    "patching": columns(part=str, layer=int, group=str, flipped=Number, tokens=Number),
    "knockout": _HIDDEN,
    "dropped": _HIDDEN,
    "spatial_id": columns(token=str, layer=int, chance=Number, share=Number),
    "steering": columns(token=str, layer=int, direction=str, strength=float),
}
_GROUPS = ("all image", "both objects' patches", "subject's patches", "reference's patches", "other patches", "words",
           "subject word", "relation word", "reference word", "last token", "everything")  # fmt: skip
_SPOKEN = {"all image": "the picture"}
_MOST_MAPS = 5
_LATTICE = 0.5
_NEEDED = 0.05
"""What dropping the picture's tokens must cost for them to be needed."""


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    if "patching" in tables:
        yield recovery("patching", tables["patching"])
    if "knockout" in tables:
        yield _knockout(tables["knockout"].rows)
    if "dropped" in tables and known(tables["dropped"].rows):
        yield dropped("dropped", "accuracy", tables["dropped"].rows)
    if "spatial_id" in tables and "spatial_id" in pictures:
        yield _lattices(tables["spatial_id"].rows, pictures["spatial_id"])
    if "steering" in tables:
        yield _steering(tables["steering"].rows)


def recovery(name: str, table: Table) -> Figure:
    """What of the answer comes back, as a map over layers and groups of tokens."""
    rows, named = table.rows, distinct(table.rows, "group")
    sites = list(dict.fromkeys((str(row["part"]), int(row["layer"])) for row in rows))
    groups = sorted(named, key=lambda name: _GROUPS.index(name) if name in _GROUPS else len(_GROUPS))
    values = {(str(row["part"]), int(row["layer"]), str(row["group"])): row["value"] for row in rows}
    layers = [layer for part, layer in sites if part == "language"]
    image, last = ([layer for layer in layers if (values.get(("language", layer, group)) or 0.0) >= 0.5]
                   for group in ("all image", "last token"))  # fmt: skip
    carried = []
    if image:
        carried.append(f"The answer is carried by the picture's tokens up to layer {max(image)} of the language model")
    if last:
        carried.append(f"{'' if image else 'The answer is carried '}by the last token from layer {min(last)} on")
    nothing = "No group of tokens alone carries half of the answer in any layer of the language model"
    title = ", ".join(carried) or nothing
    subtitle = (
        "Two pictures with the two objects exchanged, so the right answers are opposite. Percent of the answer that "
        "comes back when the states of some tokens (rows) in one layer (columns) are taken from the other picture. "
    ) + (table.notes[0] if table.notes else "")
    encoder, rules, notes = sum(part == "encoder" for part, _ in sites), [], []
    if 0 < encoder < len(sites):
        rules.append(Rule(encoder, "x", INK, "solid", 1.5))
        for words, middle in (("image encoder", encoder / 2), ("language model", (encoder + len(sites)) / 2)):
            notes.append(Note(words, middle / len(sites), 1, True, True, (0, 5), ("center", "bottom"), size=9.5))
    shown = np.array([[values.get((*site, group)) for site in sites] for group in groups], dtype=float)
    panel = Heat(values_hw=shown, names=groups, columns=[str(layer) for _, layer in sites], rules=rules, notes=notes,
                 x_label="layer")  # fmt: skip
    return Figure(name, title, subtitle, [[panel]], rows, 0.95 + 0.27 * len(groups), says=(f"{title}.",))


def _knockout(rows: Sequence[Row]) -> Figure:
    single = known(in_some_layers(rows))
    title = "No clear cost of hiding any tokens from others" if single else "What hiding tokens from others costs"
    worst = highest(row for row in single if clear(row))
    if worst is not None:
        title = f"{hiding(worst)}: {whole(100 * worst['value'])} points"
    return knockout("knockout", title, "accuracy lost", rows)


def in_some_layers(rows: Sequence[Row]) -> list[Row]:
    """Without what is hidden in all layers, unless there is one window alone."""
    every = (min(row["first"] for row in rows), max(row["last"] for row in rows))
    return [row for row in rows if (row["first"], row["last"]) != every] or list(rows)


def hiding(worst: Row) -> str:
    """Where it costs most to hide what this row hides."""
    first, last = worst["first"], worst["last"]
    where = f"layer {first}" if first == last else f"layers {first} to {last}"
    source = _SPOKEN.get(str(worst["from"]), f"the {worst['from']}")
    return f"Hiding {source} from the {worst['to']} costs most in {where}"


def knockout(name: str, title: str, lost: str, rows: Sequence[Row], says: tuple[str, ...] = ()) -> Figure:
    """Points lost (of what, is said) by flow: in all layers, and window by window."""
    every = (min(int(row["first"]) for row in rows), max(int(row["last"]) for row in rows))
    parts = list(dict.fromkeys((int(row["first"]), int(row["last"])) for row in in_some_layers(rows)))
    flows = list(dict.fromkeys((str(row["from"]), str(row["to"])) for row in rows))
    values = {(str(row["from"]), str(row["to"]), int(row["first"]), int(row["last"])): row for row in rows}
    interval = ", with 95 % interval" if known(rows, "low") else ""
    subtitle = (
        f"Points of {lost} when some tokens are hidden from others: in all layers of the language model "
        f"(bars{interval}) and in some (right, by layer)."
    )
    names = [f"{_SPOKEN.get(source, source)} \N{RIGHTWARDS ARROW} {target}" for source, target in flows]
    left = Bars(names=names, bars=[Bar.of(place, values.get((*flow, *every), EMPTY))
                                   for place, flow in enumerate(flows)],
                x_margin=0.15, title="hidden in all layers", title_size=9.5, light=True)  # fmt: skip
    shown = np.array([[values.get((*flow, *part), EMPTY)["value"] for part in parts] for flow in flows], dtype=float)
    labels = [str(first) if first == last else f"{first}\N{EN DASH}{last}" for first, last in parts]
    right = Heat(values_hw=shown, names=names, columns=labels, limits=(-1.0, 1.0), title="hidden in some layers",
                 title_size=9.5, light=True)  # fmt: skip
    return Figure(name, title, subtitle, [[left, right]], rows, 0.95 + 0.32 * len(flows), widths=(1, 1.1), says=says)


def dropped(name: str, of: str, rows: Sequence[Row]) -> Figure:
    """Points lost (of what, is said) when nothing sees the picture's tokens from a layer on."""
    rows, few = known(rows), f"less than {whole(100 * _NEEDED)} points of {of}"
    needed = [row["first"] for row in rows if (row["value"] >= _NEEDED if row["low"] is None else clear(row))]
    free = [row["first"] for row in rows if row["first"] > max(needed, default=-1)]
    least = min(rows, key=lambda row: row["value"])
    if len(rows) == 1:
        title = f"Without the picture's tokens {whole(100 * rows[0]['value'])} points of {of} are lost"
    elif needed:
        title = (f"The picture's tokens can be dropped from layer {free[0]} on" if free else
                 "The picture's tokens are needed to the last layers")  # fmt: skip
    elif least["value"] <= -_NEEDED:
        title = (f"Dropping the picture's tokens from layer {least['first']} on raises {of} by "
                 f"{whole(-100 * least['value'])} points")  # fmt: skip
    else:
        small = all(row["value"] < _NEEDED for row in rows)
        title = f"Dropping the picture's tokens costs {few}" if small else (
            "No clear cost of dropping the picture's tokens")  # fmt: skip
    subtitle = (
        f"Points of {of} lost when from a layer of the language model on nothing behind the picture sees its tokens, "
        "as where they are left out to save time; from layer 0 on the model is blind."
    )
    panel = Lines(series=[Series.of([int(row["first"]) for row in rows], rows, HUES[0], 100)], whole=9, grid="y",
                  rules=[Rule(0)], x_label="dropped from this layer on", y_label="points lost")  # fmt: skip
    return Figure(name, title, subtitle, [[panel]], rows, 2.7, says=(f"{title}.",))


def _lattices(rows: Sequence[Row], points_rl2: np.ndarray) -> Figure:
    tokens = distinct(rows, "token")
    layers = sorted({int(row["layer"]) for row in rows})
    if len(layers) > _MOST_MAPS:
        layers = [layers[at] for at in np.linspace(0, len(layers) - 1, _MOST_MAPS).round().astype(int)]
    best = highest(rows)
    title = "No token's state depends on where its object is"
    if best is not None:
        hardly = "" if best["value"] >= max(_LATTICE, best["chance"] or 0) else "hardly "
        title = (f"At layer {best['layer']} the state of the {best['token']} {hardly}forms a map of the picture: "
                 f"{ratio(best['value'])} like a lattice (by chance below {ratio(best['chance'])})")  # fmt: skip
    subtitle = (
        "By how much a state changes with the cell its object is in, on its two main components; neighbouring "
        "cells are joined, dark is the top row. Numbers: R\N{SUPERSCRIPT TWO} of a straight map from row and column."
    )
    panels: list[list[Lines]] = []
    for token in tokens:
        panels.append([])
        for layer in layers:
            at = next((n for n, row in enumerate(rows) if (row["token"], row["layer"]) == (token, layer)), None)
            value = None if at is None else rows[at]["value"]
            reach = 1.15 * float(np.abs(points_rl2[at]).max() or 1) if at is not None else 1
            panels[-1].append(Lines(
                series=_lattice(points_rl2[at]) if value is not None else (), bare=True,
                x_limits=(-reach, reach), y_limits=(reach, -reach), title_size=8.5, light=True, centred=True,
                title=f"layer {layer}: {ratio(value) if value is not None else 'no place'}",
                y_label=token.replace(" ", "\n", 1) if layer == layers[0] else ""))  # fmt: skip
    behind = [
        {"token": row["token"], "layer": row["layer"], "place": place, "x": float(x), "y": float(y)}
        for row, points_l2 in zip(rows, points_rl2, strict=True)
        for place, (y, x) in enumerate(points_l2)
    ]
    side = (WIDTH - 1.1 - 0.15 * (len(layers) - 1)) / len(layers)
    return Figure("spatial_id", title, subtitle, panels, behind, 0.45 + len(tokens) * (side + 0.25))


def _lattice(points_l2: np.ndarray) -> list[Series]:
    """Rows and columns of places as lines, and their points, shaded from the top row down."""
    side = isqrt(len(points_l2))
    grid = points_l2[: side * side].reshape(side, side, 2)
    shades = [NAVY, HUES[0], HUES[5], "#9CC9E5"]
    lines = [line for number in range(side) for line in (grid[:, number], grid[number])]
    return [
        *(Series(line[:, 1].tolist(), line[:, 0].tolist(), GREY, width=0.8) for line in lines),
        *(Series(grid[number, :, 1].tolist(), grid[number, :, 0].tolist(), shades[number * len(shades) // side],
                 dash="none", mark="o", size=5) for number in range(side)),
    ]  # fmt: skip


def _steering(rows: Sequence[Row]) -> Figure:
    keys = ("token", "layer", "strength")
    random = {tuple(row[key] for key in keys): row["value"] for row in having(rows, direction="random")}
    beside = [(row, random.get(tuple(row[key] for key in keys))) for row in known(having(rows, direction="spatial id"))]
    best, pushed = max(beside, key=lambda pair: pair[0]["value"] - (pair[1] or 0.0), default=(None, None))
    title = "Answers when a state is moved"
    if best is not None:
        title = (f"Telling the {best['token']} at layer {best['layer']} that its object is elsewhere turns "
                 f"{percent(best['value'])} of answers; a random push as strong turns {percent(pushed)}")  # fmt: skip
        if pushed is not None and (best["low"] is None or best["low"] <= pushed):
            title = (f"Telling a token that its object is elsewhere turns no more answers ({percent(best['value'])}) "
                     f"than a random push as strong ({percent(pushed)})")  # fmt: skip
    subtitle = (
        "Share of answers that become those of the target cell when the difference of two spatial-ID vectors, "
        "times a strength, is added to one layer's states; with 95 % interval."
    )
    ticks = sorted({int(row["layer"]) for row in rows})
    strengths = sorted({float(row["strength"]) for row in rows})
    hues = dict(zip(strengths, (HUES[5], HUES[0], NAVY, GREY), strict=False))
    panels = []
    for token in distinct(rows, "token"):
        series = []
        for direction, dash, mark in (("spatial id", "solid", "o"), ("random", "dotted", ".")):
            for strength, colour in hues.items():
                if own := having(rows, token=token, direction=direction, strength=strength):
                    series.append(Series.of([row["layer"] for row in own], own, colour, 100, dash=dash, mark=mark))
        panels.append(Lines(series=series, y_limits=(-3, 103), x_ticks=ticks, grid="y",
                            title=f"{token}, percent turned", x_label="layer of the language model"))  # fmt: skip
    legend = [Key(f"strength {strength:g}", colour, mark="o") for strength, colour in hues.items()]
    legend.append(Key("random direction", GREY, "dotted", "."))
    return Figure("steering", title, subtitle, [panels], rows, 3.1, legend=legend)
