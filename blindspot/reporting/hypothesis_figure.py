"""Effects of the hypotheses of a study, with their intervals."""

from textwrap import fill
from typing import Any

from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT, POINTS
from blindspot.reporting.sheet import Drawn, Sheet
from blindspot.reporting.text import signed

COLOURS = {"supported": HUES[2], "refuted": HUES[1], "undecided": GREY, "not tested": LIGHT}


def draw_hypotheses(results: dict[str, Any]) -> Drawn | None:
    """One line a hypothesis: the effect that it is about, coloured by the verdict; None without hypotheses."""
    rows = [row for row in results["hypotheses"] if row["low"] is not None]
    if not rows:
        return None
    counted = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in COLOURS}
    said = ", ".join(f"{number} {verdict}" for verdict, number in counted.items() if number)
    title = f"Of {len(rows)} claims: {said}"
    subtitle = "Effect in points with 95 % interval over questions and training noise; the predicted side is shaded"
    sheet = Sheet(title, subtitle, 0.75 + 0.5 * len(rows))
    (axes,) = sheet.panels(left=3.3, right=1.45)
    reach = 1.08 * POINTS * max(max(abs(row["low"]), abs(row["high"])) for row in rows)
    for place, row in enumerate(rows):
        colour = COLOURS[row["verdict"]]
        if row["predicts"] != "zero":
            side = reach if row["predicts"] == "positive" else -reach
            axes.fill_between((0, side), place - 0.45, place + 0.45, color=LIGHT, alpha=0.45, linewidth=0)
        axes.plot([POINTS * row["low"], POINTS * row["high"]], [place, place], color=colour, linewidth=2.4)
        axes.plot(POINTS * row["effect"], place, "o", color=colour, markersize=8)
        axes.text(1.02, place, f"{signed(row['effect'])}  {row['verdict']}", color=INK, va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [fill(row["claim"], 44) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("effect (points)")
    return Drawn("hypotheses", sheet, rows)
