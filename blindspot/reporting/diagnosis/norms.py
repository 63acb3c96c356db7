"""Norms of image and text tokens, and how much the order of image tokens matters."""

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from blindspot.reporting.diagnosis.data import Pictures, Row, Tables, listed, ratio, sure
from blindspot.reporting.diagnosis.drawing import by_layer, dots, line, rule
from blindspot.reporting.figure_style import GREY, HUES, LIGHT
from blindspot.reporting.sheet import Drawn, Sheet

_NORMS = {"as they are": HUES[0], "matched": HUES[1]}


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Norm ratio by layer beside the permutation index by task."""
    ratios = [row for row in tables["norms"].rows if row["value"] is not None] if "norms" in tables else []
    indices = tables["permutation"].rows if "permutation" in tables else []
    if not ratios and not indices:
        return
    parts = []
    if ratios:
        parts.append(f"Image tokens enter with {ratios[0]['value']:.1f} times the norm of text tokens and leave with "
                     f"{ratios[-1]['value']:.1f} times")  # fmt: skip
    plain = [row for row in indices if row["norms"] == "as they are"]
    matters = [f"{row['task']} ({ratio(row['value'])})" for row in plain if sure(row)]
    if plain:
        parts.append(
            f"their order matters for {listed(matters)}" if matters else "their order clearly matters for no task"
        )
    title = "; ".join(parts)
    subtitle = (
        "Left: norm of image tokens over that of the text behind them. Right: share of accuracy that is lost when "
        "the image tokens are permuted (0: order does not matter), also with norms matched."
    )
    sheet = Sheet(title, subtitle, 3.1)
    left, right = sheet.panels(1, 2, bottom=0.8, gaps=(0, 1.1), widths=(1, 1.1))
    if ratios:
        line(left, [row["layer"] for row in ratios], ratios, HUES[0])
        rule(left, 1)
        left.set_ylim(bottom=0)
        by_layer(left)
        left.set_ylabel("image / text")
    _indices(right, indices)
    sheet.legend(Line2D([], [], color=colour, marker="o", label=f"norms {name}") for name, colour in _NORMS.items())
    yield Drawn(
        "norms",
        sheet,
        [{"table": "norms", **row} for row in ratios] + [{"table": "permutation", **row} for row in indices],
    )


def _indices(panel: Axes, rows: list[Row]) -> None:
    for place, row in zip(dots(panel, rows, "task", "norms", _NORMS), rows, strict=True):
        if row["value"] is None:
            panel.text(0, place, "none right", color=GREY, fontsize=8, va="center")
    rule(panel, 0, axis="x")
    panel.grid(axis="x", color=LIGHT, linewidth=0.6)
    panel.set_xlabel("permutation sensitivity index")
