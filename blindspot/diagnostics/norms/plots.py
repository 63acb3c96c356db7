"""Norms of image and text tokens, and how much the order of image tokens matters."""

from collections.abc import Iterator

from blindspot.diagnostics.base import Number, Pictures, Tables, columns
from blindspot.diagnostics.figures import distinct, having, known, listed, ratio, sure
from blindspot.plots import GREY, HUES, Estimate, Figure, Forest, Key, Lines, Note, Rule, Series

ROWS = {
    "norms": columns(layer=int, image=Number, text=Number),
    "accuracy": columns(task=str, condition=str),
    "permutation": columns(task=str, norms=str),
}
_NORMS = {"as they are": HUES[0], "matched": HUES[1]}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    ratios = known(tables["norms"].rows) if "norms" in tables else []
    indices = tables["permutation"].rows if "permutation" in tables else []
    if not ratios and not indices:
        return
    parts = []
    left = Lines()
    if ratios:
        parts.append(f"Image tokens enter with {ratios[0]['value']:.1f} times the norm of text tokens and leave with "
                     f"{ratios[-1]['value']:.1f} times")  # fmt: skip
        left = Lines(series=[Series.of([row["layer"] for row in ratios], ratios, HUES[0])], rules=[Rule(1)],
                     y_limits=(0, None), whole=9, grid="y", x_label="layer of the language model",
                     y_label="image / text")  # fmt: skip
    if plain := having(indices, norms="as they are"):
        matters = [f"{row['task']} ({ratio(row['value'])})" for row in plain if sure(row)]
        parts.append(
            f"their order matters for {listed(matters)}" if matters else "their order clearly matters for no task"
        )
    tasks = distinct(indices, "task")
    at = [(row, tasks.index(str(row["task"])) + {"as they are": -0.14, "matched": 0.14}[str(row["norms"])])
          for row in indices]  # fmt: skip
    right = Forest(
        names=tasks, grid="x", rules=[Rule(0, "x")], x_label="permutation sensitivity index",
        estimates=[Estimate(place, row["value"], row["low"], row["high"], _NORMS[str(row["norms"])], size=6)
                   for row, place in at],
        notes=[Note("none right", 0, place, colour=GREY, size=8) for row, place in at if row["value"] is None],
    )  # fmt: skip
    subtitle = (
        "Left: norm of image tokens over that of the text behind them. Right: share of accuracy that is lost when "
        "the image tokens are permuted (0: order does not matter), also with norms matched."
    )
    rows = [{"table": "norms", **row} for row in ratios] + [{"table": "permutation", **row} for row in indices]
    legend = [Key(f"norms {name}", colour, mark="o") for name, colour in _NORMS.items()]
    yield Figure("norms", "; ".join(parts), subtitle, [[left, right]], rows, 3.1, widths=(1, 1.1), legend=legend)
