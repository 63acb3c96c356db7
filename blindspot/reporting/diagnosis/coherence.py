"""Spatial coherence of the encoder's features, layer by layer."""

from collections.abc import Iterator

from blindspot.reporting.diagnosis.data import Pictures, Row, Tables, ratio
from blindspot.reporting.diagnosis.drawing import by_layer, line, rule
from blindspot.reporting.figure_style import GREY, HUES
from blindspot.reporting.sheet import Drawn, Sheet


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Coherence by layer: trained, with shuffled weights, and of the pixels."""
    if "coherence" not in tables:
        return
    rows = tables["coherence"].rows
    layers = sorted((row for row in rows if None not in (row["layer"], row["value"])), key=lambda row: row["layer"])
    by = {name: [row for row in layers if row["encoder"] == name] for name in ("trained", "shuffled")}
    pixels = next((row for row in rows if row["encoder"] == "pixels"), None)
    if not by["trained"]:
        return
    subtitle = (
        "Mean cosine of neighbouring patches minus that of distant ones, features centred, with 95 % interval. "
        "Shuffled: the same encoder with its weights in random order."
    )
    sheet = Sheet(_title(by, pixels), subtitle, 2.9)
    (panel,) = sheet.panels(right=1.3)
    for name, colour, style in (("trained", HUES[0], "solid"), ("shuffled", HUES[1], "dashed")):
        if by[name]:
            line(panel, [row["layer"] for row in by[name]], by[name], colour, linestyle=style)
            end = by[name][-1]
            panel.annotate(name, (end["layer"], end["value"]), xytext=(8, 0), textcoords="offset points", color=colour,
                           va="center")  # fmt: skip
    if pixels and pixels["value"] is not None:
        panel.axhline(pixels["value"], color=GREY, linewidth=1.4, linestyle="dotted")
        panel.annotate("pixels", (1, pixels["value"]), xycoords=("axes fraction", "data"), xytext=(8, 0),
                       textcoords="offset points", color=GREY, va="center")  # fmt: skip
    rule(panel, 0)
    by_layer(panel, "layer of the encoder (0: what enters the first)")
    panel.set_ylabel("near minus distant")
    yield Drawn("coherence", sheet, rows)


def _title(by: dict[str, list[Row]], pixels: Row | None) -> str:
    values = [row["value"] for row in by["trained"]]
    title = f"Neighbouring patches agree by {ratio(min(values))} to {ratio(max(values))} more than distant ones"
    beside = [f"pixels by {ratio(pixels['value'])}"] if pixels and pixels["value"] is not None else []
    if by["shuffled"]:
        beside.append(f"shuffled weights by {ratio(max(row['value'] for row in by['shuffled']))} at most")
    return title + (f"; {', '.join(beside)}" if beside else "")
