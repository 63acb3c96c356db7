"""Spatial coherence of the encoder's features, layer by layer."""

from collections.abc import Iterator

from blindspot.diagnostics.base import Number, Pictures, Tables, columns
from blindspot.diagnostics.figures import having, known, ratio
from blindspot.plots import GREY, HUES, Figure, Lines, Note, Rule, Series

ROWS = {"coherence": columns(encoder=str, layer=int | None, near=Number, far=Number)}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    rows = tables["coherence"].rows if "coherence" in tables else []
    layers = sorted(known(known(rows, "layer")), key=lambda row: row["layer"])
    trained, shuffled = having(layers, encoder="trained"), having(layers, encoder="shuffled")
    if not trained:
        return
    values = [row["value"] for row in trained]
    title = f"Neighbouring patches agree by {ratio(min(values))} to {ratio(max(values))} more than distant ones"
    rules, notes, series, beside = [Rule(0)], [], [], []
    for name, own, colour, dash in (("trained", trained, HUES[0], "solid"), ("shuffled", shuffled, HUES[1], "dashed")):
        if own:
            series.append(Series.of([row["layer"] for row in own], own, colour, dash=dash))
            notes.append(Note(name, own[-1]["layer"], own[-1]["value"], shift=(8, 0), colour=colour, size=9.5))
    for row in known(having(rows, encoder="pixels"))[:1]:
        beside.append(f"pixels by {ratio(row['value'])}")
        rules.append(Rule(row["value"], dash="dotted", width=1.4))
        notes.append(Note("pixels", 1, row["value"], across=True, shift=(8, 0), colour=GREY, size=9.5))
    if shuffled:
        beside.append(f"shuffled weights by {ratio(max(row['value'] for row in shuffled))} at most")
    panel = Lines(series=series, rules=rules, notes=notes, whole=9, grid="y", y_label="near minus distant",
                  x_label="layer of the encoder (0: what enters the first)")  # fmt: skip
    subtitle = (
        "Mean cosine of neighbouring patches minus that of distant ones, features centred, with 95 % interval. "
        "Shuffled: the same encoder with its weights in random order."
    )
    yield Figure("coherence", "; ".join(filter(None, (title, ", ".join(beside)))), subtitle, [[panel]], rows, 2.9)
