"""Spatial coherence of the encoder's features, layer by layer."""

from collections.abc import Iterator

from blindspot.diagnostics.base import Number, Pictures, Row, Tables, Value
from blindspot.diagnostics.figures import ratio
from blindspot.plots import GREY, HUES, Figure, Lines, Note, Rule, Series


class CoherenceRow(Value):
    encoder: str
    layer: int | None
    near: Number
    far: Number


ROWS = {"coherence": CoherenceRow}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    """Coherence by layer: trained, with shuffled weights, and of the pixels."""
    rows = tables["coherence"].rows if "coherence" in tables else []
    layers = sorted((row for row in rows if None not in (row["layer"], row["value"])), key=lambda row: row["layer"])
    by = {name: [row for row in layers if row["encoder"] == name] for name in ("trained", "shuffled")}
    pixels = next((row for row in rows if row["encoder"] == "pixels" and row["value"] is not None), None)
    if not by["trained"]:
        return
    rules, notes, series = [Rule(0)], [], []
    for name, colour, dash in (("trained", HUES[0], "solid"), ("shuffled", HUES[1], "dashed")):
        if by[name]:
            series.append(Series.of([row["layer"] for row in by[name]], by[name], colour, dash=dash))
            end = by[name][-1]
            notes.append(Note(name, end["layer"], end["value"], shift=(8, 0), colour=colour, size=9.5))
    if pixels:
        rules.append(Rule(pixels["value"], dash="dotted", width=1.4))
        notes.append(Note("pixels", 1, pixels["value"], across=True, shift=(8, 0), colour=GREY, size=9.5))
    panel = Lines(series=series, rules=rules, notes=notes, whole=9, grid="y", y_label="near minus distant",
                  x_label="layer of the encoder (0: what enters the first)")  # fmt: skip
    subtitle = (
        "Mean cosine of neighbouring patches minus that of distant ones, features centred, with 95 % interval. "
        "Shuffled: the same encoder with its weights in random order."
    )
    yield Figure("coherence", _title(by, pixels), subtitle, [[panel]], rows, 2.9)


def _title(by: dict[str, list[Row]], pixels: Row | None) -> str:
    values = [row["value"] for row in by["trained"]]
    title = f"Neighbouring patches agree by {ratio(min(values))} to {ratio(max(values))} more than distant ones"
    beside = [f"pixels by {ratio(pixels['value'])}"] if pixels else []
    if by["shuffled"]:
        beside.append(f"shuffled weights by {ratio(max(row['value'] for row in by['shuffled']))} at most")
    return title + (f"; {', '.join(beside)}" if beside else "")
