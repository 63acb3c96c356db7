"""What answers follow: content, position ids of the language model, or positions of the encoder."""

from collections.abc import Iterator

import numpy as np
from matplotlib.patches import Patch

from blindspot.reporting.diagnosis.data import (
    Pictures,
    Row,
    Tables,
    guesses,
    listed,
    mean,
    percent,
    percent_span,
    whole,
)
from blindspot.reporting.diagnosis.drawing import heat
from blindspot.reporting.diagnosis.examples import Example, draw_examples
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT
from blindspot.reporting.sheet import Drawn, Sheet

POOLED = "mirrored or flipped"
CHANCE = 0.25
TOKENS = "order of tokens"
_OUTCOMES = {"follows": HUES[0], "unchanged": LIGHT, "other": HUES[4]}
_CHANGED = {"content": ("content",), "language ids": ("ids",), "encoder positions": ("encoder",),
            "all three": ("content", "ids", "encoder")}  # fmt: skip
_MOST_EXAMPLES = 4


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """Shares, the full factorial, and example pictures."""
    if "shares" in tables:
        yield _shares(tables["shares"].rows)
    if "factorial" in tables:
        yield _factorial(tables["factorial"].rows)
    if "flips" in tables and "examples" in pictures:
        yield _flips(tables["flips"].rows, pictures["examples"])


def _shares(rows: list[Row]) -> Drawn:
    pooled = {str(row["factor"]): row for row in rows if row["move"] == POOLED}
    moves = [move for move in dict.fromkeys(str(row["move"]) for row in rows) if move != POOLED]
    title, said = _point(pooled)
    drawn = next((row for row in pooled.values() if row["n"] is not None and row.get("asked")), None)
    if drawn is not None and guesses(drawn["n"], drawn["asked"], CHANCE):
        right = percent(drawn["n"] / drawn["asked"])
        title = (
            f"As drawn, {right} are answered right, no better than guessing: there is little that answers could follow"
        )
        said = (f"{title}.",)
    subtitle = (
        "One factor is moved, the others stay. Left: what becomes of answers when it is mirrored (left, right) or "
        "flipped (above, below), with the 95 % interval of those that follow. Right: percent that follow, by "
        "move."
    )
    sheet = Sheet(title, subtitle, 1.15 + 0.42 * len(pooled))
    left, right = sheet.panels(1, 2, left=1.5, bottom=0.75, top=0.32, gaps=(0, 0.25), widths=(1.35, 1))
    for place, row in enumerate(pooled.values()):
        start = 0.0
        for outcome, colour in _OUTCOMES.items():
            share = row["value" if outcome == "follows" else outcome]
            if share is not None:
                left.barh(place, 100 * share, left=start, height=0.62, color=colour)
                start += 100 * share
        if row["low"] is not None and row["value"] is not None:
            left.plot([100 * row["low"], 100 * row["high"]], [place, place], color=INK, linewidth=1.4)
            left.plot(100 * row["value"], place, "|", color=INK, markersize=10, markeredgewidth=1.6)
        else:
            left.text(1, place, "nothing to follow", color=GREY, va="center", fontsize=8.5)
    left.set_ylim(len(pooled) - 0.5, -0.5)
    left.set_yticks(range(len(pooled)), list(pooled))
    left.tick_params(axis="y", length=0)
    left.set_xlim(0, 100)
    left.set_xlabel("percent of answers")
    values = {(str(row["factor"]), str(row["move"])): row["value"] for row in rows}
    shown = [[values.get((factor, move)) for move in moves] for factor in pooled]
    heat(right, np.array(shown, dtype=float), [""] * len(pooled), moves)
    right.set_title("follow, percent", fontsize=9.5, loc="left")
    sheet.legend(Patch(color=colour, label=label) for label, colour in _OUTCOMES.items())
    return Drawn("follow", sheet, rows, said)


IN_PART = 0.1
"""Share of answers from which on they are said to follow something in part."""


def _point(pooled: dict[str, Row]) -> tuple[str, tuple[str, ...]]:
    asked = {factor: row for factor, row in pooled.items() if row["value"] is not None}
    if not asked:
        return "Nothing is answered right as drawn, so there is nothing that answers could follow", ()
    names = {"content": "the picture's content", "language ids": "language-model ids", TOKENS: "the order of tokens"}
    brief = [f"{names.get(factor, factor)} ({percent(row['value'])})" for factor, row in asked.items()]
    yes, in_part, no = (
        [word for word, row in zip(brief, asked.values(), strict=True) if low <= row["value"] < high]
        for low, high in ((0.5, 2), (IN_PART, 0.5), (-1, IN_PART))
    )
    parts = [listed(yes)] * bool(yes) + [f"in part {listed(in_part)}"] * bool(in_part)
    title = f"Answers follow {', '.join(parts)}" if parts else f"Answers do not follow {listed(no)}"
    title += f", not {listed(no)}" if parts and no else ""
    spans = [f"{names.get(factor, factor)} in {percent_span(row)}" for factor, row in asked.items()]
    return title, (f"When only one thing is mirrored or flipped, answers follow {listed(spans)}.",)


def _factorial(rows: list[Row]) -> Drawn:
    contents, ids, encoders = (
        list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("content", "ids", "encoder")
    )
    values = {(str(row["content"]), str(row["ids"]), str(row["encoder"])): row["value"] for row in rows}
    asked = {encoder: sum((c, i, encoder) in values for c in contents for i in ids) for encoder in encoders}
    crossed = [encoder for encoder in encoders if asked[encoder] > len(contents)] or encoders[:1]
    means = {encoder: mean(row["value"] for row in rows if row["encoder"] == encoder) for encoder in crossed}
    by_ids = [mean(values.get((content, name, "original")) for content in contents) for name in ids]
    usual = [share for share in by_ids if share is not None]
    said = {"original": "as they are", "zero": "taken away"}
    title = "Right by the picture: " + ", ".join(
        f"{percent(share)} with encoder positions {said.get(encoder, encoder)}" for encoder, share in means.items()
    )
    if len(usual) > 1:
        spread = f"from {whole(100 * min(usual))} to {percent(max(usual))}"
        title += f"; {spread} over sets of language ids" if max(usual) > min(usual) else "; language ids change nothing"
    high = 0.95 + 0.27 * len(contents)
    subtitle = (
        "Percent answered as the picture says, for every content (rows), set of language-model ids (columns) and "
        "encoder positions (panels). Dash: not asked. Chance: 25."
    )
    sheet = Sheet(title, subtitle, high)
    panels = sheet.panels(1, max(1, len(crossed)), left=1.0, bottom=0.7, top=0.3, gaps=(0, 0.15))
    for panel, encoder in zip(panels, crossed, strict=False):
        shown = [[values.get((content, name, encoder)) for name in ids] for content in contents]
        heat(panel, np.array(shown, dtype=float), contents if panel is panels[0] else [""] * len(contents), ids)
        panel.tick_params(axis="x", labelrotation=35, labelsize=8)
        panel.set_title(f"encoder positions {said.get(encoder, encoder)}", fontsize=9.5, loc="left")
    return Drawn("factorial", sheet, rows)


def _flips(rows: list[Row], examples: np.ndarray) -> Drawn:
    numbers_of = list(dict.fromkeys(int(row["picture"]) for row in rows))
    chosen = np.linspace(0, len(numbers_of) - 1, min(len(numbers_of), _MOST_EXAMPLES)).round().astype(int)
    moved: list[tuple[str, Row, dict[str, Row]]] = []
    for number in (numbers_of[at] for at in chosen):
        own: dict[tuple[str, ...], Row] = {
            (row["content"], row["ids"], row["encoder"]): row for row in rows if row["picture"] == number
        }
        drawn = own["original", "original", "original"]
        move = next((name for name in ("mirrored", "flipped")
                     if (name, "original", "original") in own
                     and own[name, "original", "original"]["right"] != drawn["right"]), "mirrored")  # fmt: skip
        keys = {
            factor: tuple(move if part in parts else "original" for part in ("content", "ids", "encoder"))
            for factor, parts in _CHANGED.items()
        }
        moved.append((move, drawn, {factor: own[key] for factor, key in keys.items() if key in own}))
    factors = [factor for factor in _CHANGED if any(factor in line for _, _, line in moved)]
    changes = [
        f"{sum(line[factor]['answer'] != drawn['answer'] for _, drawn, line in moved if factor in line)} with {factor}"
        for factor in factors
    ]
    title = f"Of {len(moved)} example answers change {listed(changes)} moved" if factors else "Example answers"
    heads = ["as drawn", *(f"{factor}\nmoved" for factor in factors)]
    subtitle = (
        "The picture, the model's answer and whether the picture makes it right. Only moved content changes the "
        "picture; moved ids and positions change where its parts are said to be."
    )
    found = [
        (
            f"{drawn['prompt']}; moved: {move}",
            [_example(drawn, examples), *(_example(line[f], examples) if f in line else None for f in factors)],
        )
        for move, drawn, line in moved
    ]
    behind = [row for _, drawn, line in moved for row in (drawn, *line.values())]
    return Drawn("flips", draw_examples(title, subtitle, heads, found), behind)


def _example(row: Row, examples: np.ndarray) -> Example:
    return Example(examples[int(row["picture"]), int(row["drawn"])], str(row["answer"]), str(row["right"]))
