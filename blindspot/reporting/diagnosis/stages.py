"""The stage figure: how well everything that matters can be read, from the pixels to the answer."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from blindspot.reporting.diagnosis.data import (
    NOTICEABLE,
    Pictures,
    Row,
    Table,
    Tables,
    guesses,
    listed,
    percent,
    ratio,
    sure,
)
from blindspot.reporting.diagnosis.drawing import line, numbers, rule
from blindspot.reporting.figure_style import GREY, HUES, INK, LIGHT
from blindspot.reporting.sheet import Drawn, Sheet

TARGETS = ("position", "relation", "count", "existence", "binding")
R2 = "R\N{SUPERSCRIPT TWO}"
_GROUPS = ("pixels", "encoder", "image tokens", "word", "last token")
_WORDS = {
    "pixels": "pixels", "encoder": "image encoder,\nlayer", "image tokens": "language model,\nimage tokens, layer",
    "word": "the object's\nword, layer", "last token": "last token,\nlayer",
}  # fmt: skip
_MARKS = "os^Dv"
_TOKENS = {"image": "the image tokens", "word": "the word", "last": "the last token"}


class Stage(NamedTuple):
    """A stage of the pipeline, in an order that models of different depth share."""

    group: int
    layer: int
    label: str

    @property
    def tick(self) -> str:
        return "" if self.label == "pixels" else "0" if self.label == "connector" else str(self.layer)


def draw(tables: Tables, pictures: Pictures) -> Iterator[Drawn]:
    """The stage figure, and a panel for each target with its controls."""
    if "stages" in tables:
        best = {
            target: found for target in _targets(tables["stages"]) if (found := best_rows(tables["stages"], target))
        }
        if best:
            yield _overview(best, tables)
            yield _controls(best, tables["stages"])


def best_rows(stages: Table, target: str) -> dict[Stage, Row]:
    """The row of the read-out that reads a target best, for each stage on its way."""
    best: dict[Stage, Row] = {}
    for row in stages.rows:
        if row["target"] == target and not row["held_out"] and row["value"] is not None:
            stage = stage_of(row)
            if stage not in best or row["value"] > best[stage]["value"]:
                best[stage] = row
    return {stage: best[stage] for stage in sorted(best)}


def stage_of(row: Row) -> Stage:
    """The stage of a row; labels are ``pixels``, ``encoder 3``, ``connector``, ``language 2 (word)``."""
    label = str(row["stage"])
    found = re.fullmatch(r"(pixels|encoder|connector|language)(?: (\d+))?(?: \((image|word|last)\))?", label)
    if found is None:
        return Stage(len(_GROUPS), int(row["order"]), label)
    part, layer, tokens = found[1], int(found[2] or 0), found[3]
    group = {"pixels": 0, "encoder": 1, "connector": 2}.get(part, {"word": 3, "last": 4}.get(tokens or "", 2))
    return Stage(group, layer, label)


def relative(value: float | None, chance: float | None) -> float:
    """Where a score lies between chance (0) and everything right (1)."""
    if value is None or chance is None or chance >= 1:
        return float("nan")
    return (value - chance) / (1 - chance)


def scored(target: str, value: float | None) -> str:
    """A score as it is written: R2 of position, else a share."""
    return f"{R2} {ratio(value)}" if target == "position" else percent(value)


def _targets(stages: Table) -> list[str]:
    named = dict.fromkeys(str(row["target"]) for row in stages.rows)
    return [*(target for target in TARGETS if target in named), *(target for target in named if target not in TARGETS)]


def places_of(stages: Sequence[Stage]) -> dict[Stage, float]:
    """Where each stage is on the horizontal axis: a step apart, with a gap between groups."""
    ordered = sorted(stages)
    gap = max(1.0, 0.03 * len(ordered))
    places, at = {}, 0.0
    for number, stage in enumerate(ordered):
        if number:
            at += 1 if stage.group == ordered[number - 1].group else 1 + gap
        places[stage] = at
    return places


def _overview(best: dict[str, dict[Stage, Row]], tables: Tables) -> Drawn:
    stages = sorted({stage for rows in best.values() for stage in rows})
    x = places_of(stages)
    gaps = _last_gaps(tables)
    title, said = _point(best, tables)
    subtitle = (
        "Best read-out of each stage, from chance (0) to everything right (1), with 95 % interval. Diamonds: what "
        "the model itself answers. Grey: the most that read-outs of random labels reach. A read-out shows what is "
        "there, not what is used."
    )
    sheet = Sheet(title, subtitle, 5.0)
    (panel,) = sheet.panels(bottom=1.12, top=0.12)
    end = max(x.values()) + 1 + max(1.0, 0.03 * len(stages))
    _control_floor(panel, best, x)
    for number, (target, rows) in enumerate(best.items()):
        colour, mark = HUES[number % len(HUES)], _MARKS[number % len(_MARKS)]
        at = end + 0.25 * (number - (len(best) - 1) / 2)
        _segments(panel, rows, x, colour, mark)
        if target in gaps:
            chance = list(rows.values())[-1]["chance"]
            model, before = relative(gaps[target]["model"], chance), list(rows)[-1]
            panel.plot([x[before], at], [_at(rows[before]), model], color=colour, linewidth=1, linestyle="dotted")
            panel.plot(at, model, "D", color=colour, markersize=8, markeredgecolor="white")
    scaffold(panel, x, named=True, end=end if gaps else None)
    panel.set_ylabel("chance (0) to all right (1)")
    marks = [Line2D([], [], color=HUES[n % len(HUES)], marker=_MARKS[n % len(_MARKS)], markersize=5, label=target)
             for n, target in enumerate(best)]  # fmt: skip
    sheet.legend([*marks, Patch(color=LIGHT, label="control")], columns=len(marks) + 1)
    rows = [row | {"best": True} for found in best.values() for row in found.values()]
    return Drawn("stages", sheet, rows, tuple(said))


def _segments(panel: Axes, rows: dict[Stage, Row], x: dict[Stage, float], colour: str, mark: str) -> None:
    for _, group in groupby(rows, key=lambda stage: stage.group):
        shown = list(group)
        scaled = [_scaled(rows[stage]) for stage in shown]
        line(panel, [x[stage] for stage in shown], scaled, colour, marker=mark, markersize=5 if len(x) < 30 else 3)


def _scaled(row: Row) -> Row:
    return {key: relative(row[key], row["chance"]) for key in ("value", "low", "high")}


def _at(row: Row) -> float:
    return relative(row["value"], row["chance"])


def _control_floor(panel: Axes, best: dict[str, dict[Stage, Row]], x: dict[Stage, float]) -> None:
    """What the same read-outs reach on random labels, the most of all targets."""
    for _, group in groupby(sorted(x), key=lambda stage: stage.group):
        shown = list(group)
        reached = []
        for stage in shown:
            found = [relative(rows[stage]["control"], rows[stage]["chance"]) for rows in best.values() if stage in rows]
            reached.append(max([0.0, *(value for value in found if not np.isnan(value))]))
        places = [x[stage] for stage in shown]
        if len(shown) == 1:
            places, reached = [places[0] - 0.3, places[0] + 0.3], reached * 2
        panel.fill_between(places, 0, reached, color=LIGHT, alpha=0.7, linewidth=0, zorder=0)


def scaffold(panel: Axes, x: dict[Stage, float], named: bool, end: float | None = None, floor: float = 0) -> None:
    """A rule at chance, layers as ticks, and the names of groups below."""
    rule(panel, floor)
    panel.set_ylim(-0.12, 1.06)
    panel.set_yticks([0, 0.5, 1])
    panel.grid(axis="y", color=LIGHT, linewidth=0.6)
    panel.set_axisbelow(True)
    last = end if end is not None else max(x.values())
    panel.set_xlim(-0.8, last + 0.8)
    thin = max(1, len(x) // 24)
    ticks = [stage for stage in x if stage.layer % thin == 0 or stage.label == "pixels"]
    panel.set_xticks([x[stage] for stage in ticks], [stage.tick if named else "" for stage in ticks], fontsize=8)
    panel.tick_params(axis="x", labelbottom=named)
    for number, stages in groupby(x, key=lambda stage: stage.group):
        places = [x[stage] for stage in stages]
        panel.axvspan(places[0] - 0.45, places[-1] + 0.45, color="#F7F7F5", zorder=-1, linewidth=0)
        if named:
            words = _WORDS[_GROUPS[number]] if number < len(_GROUPS) else "other"
            _below(panel, (places[0] + places[-1]) / 2, words)
    if named and end is not None:
        _below(panel, end, "answer")


def _below(panel: Axes, x: float, words: str) -> None:
    panel.annotate(words, (x, 0), xycoords=("data", "axes fraction"), xytext=(0, -20), textcoords="offset points",
                   ha="center", va="top", fontsize=8.5)  # fmt: skip


def _last_gaps(tables: Tables) -> dict[str, Row]:
    """For each target the gap between the last probe and the model."""
    rows = tables["gap"].rows if "gap" in tables else []
    return {str(row["target"]): row for row in rows if row["model"] is not None and row["stage"] != "connector"}


def _point(best: dict[str, dict[Stage, Row]], tables: Tables) -> tuple[str, list[str]]:
    """The title, and the sentences for the lead; a target that the model guesses is told as such first."""
    gaps = _last_gaps(tables)
    chances = {target: next(iter(rows.values()))["chance"] for target, rows in best.items()}
    guessed = [target for target, row in gaps.items()
               if row["n"] and guesses(row["model"] * row["n"], row["n"], chances.get(target))]  # fmt: skip
    titles, said = [], _read(best)
    if guessed:
        titles.append(f"The model answers {listed(guessed)} no better than by guessing")
        said.insert(0, f"{titles[0]} ({', '.join(percent(gaps[target]['model']) for target in guessed)}): what is "
                       "read of a guessed target shows nothing about use.")  # fmt: skip
    losses = [row for row in (tables["drops"].rows if "drops" in tables else [])
              if sure(row) and beats_random(_at_stage(best, row["target"], row["from"]))]  # fmt: skip
    worst = max(losses, key=lambda row: row["value"], default=None)
    if worst is not None and worst["value"] >= NOTICEABLE:
        target = str(worst["target"])
        before, after = (_at_stage(best, target, worst[end]).get("value") for end in ("from", "to"))
        where = _between(str(worst["from"]), str(worst["to"]))
        titles.append(f"most is lost of {target} {where}: {scored(target, before)} to {scored(target, after)}")
        said.append(f"The largest loss is of {target}, {where}: {ratio(worst['value'])} "
                    f"({ratio(worst['low'])} to {ratio(worst['high'])}).")  # fmt: skip
    elif "drops" in tables:
        titles.append("no clear loss of what can be read on the way to the answer")
        said.append(f"{_capital(titles[-1])}.")
    judged = {target: row for target, row in gaps.items() if target not in guessed}
    there = [row for row in judged.values() if sure(row) and beats_random(_at_stage(best, row["target"], row["stage"]))]
    unused = max(there, key=lambda row: row["value"], default=None)
    if unused is not None and unused["value"] >= NOTICEABLE:
        what, there, answered = unused["target"], percent(unused["probe"]), percent(unused["model"])
        titles.append(f"{what} is there ({there}) but not answered ({answered})")
        said.append(f"There but not used: {what} can be read from the last token in {there} of pictures, the model "
                    f"answers {answered} right.")  # fmt: skip
    elif judged:
        said.append("No sign that the last token holds more than is answered.")
    return _capital("; ".join(titles) or "what can be read at each stage"), said


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def beats_random(row: Row) -> bool:
    """Whether a read-out does better than with random labels and than chance, at its own stage."""
    return row.get("selectivity") is not None and row["selectivity"] >= NOTICEABLE


def _at_stage(best: dict[str, dict[Stage, Row]], target: Any, label: Any) -> Row:
    """The best row of a target at a stage; empty if there is none."""
    return next((row for stage, row in best.get(str(target), {}).items() if stage.label == label), {})


def _last_token(rows: dict[Stage, Row]) -> Row | None:
    """The best row at the last token of the last layer; None if the target is not read so far."""
    (*_, (stage, last)) = rows.items()
    return last if stage.group == _GROUPS.index("last token") else None


def _read(best: dict[str, dict[Stage, Row]]) -> list[str]:
    """A sentence about the best and the last score of every target that reaches the last token."""
    parts = []
    for target, rows in best.items():
        if (last := _last_token(rows)) is not None:
            ends = max(row["value"] for row in rows.values()), last["value"]
            high, low = (scored(target, value).removeprefix(f"{R2} ") for value in ends)
            low += "" if beats_random(last) else " (no more than random labels)"
            parts.append(f"{target} {R2 if target == 'position' else ''} {high}, then {low}".replace("  ", " "))
    return [f"What can be read at the best stage, and then from the last token: {'; '.join(parts)}."] if parts else []


def spoken(label: str) -> str:
    """A stage as it is said in a sentence."""
    found = re.fullmatch(r"language (\d+) \((image|word|last)\)", label)
    return f"{_TOKENS[found[2]]} of language layer {found[1]}" if found else label


def _between(before: str, after: str) -> str:
    first, second = spoken(before), spoken(after)
    tokens, _, layer = first.partition(" of language layer ")
    return f"between {tokens if layer and second.endswith(f' {layer}') else first} and {second}"


def _controls(best: dict[str, dict[Stage, Row]], stages: Table) -> Drawn:
    title = "Read-outs of each target, and what they reach with random labels"
    chosen = {target: max(rows.values(), key=lambda row: row["value"]) for target, rows in best.items()}
    beats = {target: row for target, row in chosen.items() if row["selectivity"] is not None}
    weak = [target for target, row in beats.items() if not beats_random(row)]
    if weak:
        title = f"For {listed(weak)}, even the best read-outs do no better than with random labels"
    elif beats:
        least = min(beats, key=lambda target: beats[target]["selectivity"])
        title = f"The best read-outs beat random labels by {ratio(beats[least]['selectivity'])} ({least}) or more"
    last = {target: row for target, rows in best.items() if (row := _last_token(rows)) and target not in weak}
    lost = [
        f"{target} ({scored(target, row['value'])} against {scored(target, row['value'] - row['selectivity'])})"
        for target, row in last.items()
        if row["selectivity"] is not None and not beats_random(row)
    ]
    if lost:
        title += f"; at the last token random labels do as well for {listed(lost)}"
    subtitle = (
        f"Score of the best read-out at each stage as it is ({R2} of position, else share right), on content never "
        "trained on, and of its control task with random labels."
    )
    sheet = Sheet(title, subtitle, 0.95 + 1.45 * len(best))
    x = places_of(sorted({stage for rows in best.values() for stage in rows}))
    panels = sheet.panels(len(best), bottom=0.95, top=0.25, gaps=(0.32, 0), share=True)
    fresh = {(row["target"], row["stage"], row["readout"]): row for row in stages.rows if row["held_out"]}
    rows_out: list[Row] = []
    for number, (panel, (target, rows)) in enumerate(zip(panels, best.items(), strict=True)):
        colour = HUES[number % len(HUES)]
        for _, group in groupby(rows, key=lambda stage: stage.group):
            shown = list(group)
            own = [rows[stage] for stage in shown]
            new = [fresh.get((target, row["stage"], row["readout"]), {"value": None}) for row in own]
            places = [x[stage] for stage in shown]
            line(panel, places, own, colour)
            panel.plot(places, numbers(new), color=colour, linestyle="none", marker="o", markersize=6,
                       markerfacecolor="none")  # fmt: skip
            panel.plot(places, numbers(own, "control"), color=GREY, linestyle="dotted", marker=".", linewidth=1.2)
            rows_out += [row | {"held_out_value": other["value"]} for row, other in zip(own, new, strict=True)]
        chance = next(iter(rows.values()))["chance"] or 0.0
        scaffold(panel, x, named=panel is panels[-1], floor=chance)
        panel.set_title(f"{target}" + (f" (chance {ratio(chance)})" if chance else ""), loc="left", pad=4, fontsize=10)
    sheet.legend(
        [Line2D([], [], color=INK, marker="o", markersize=4, label="as trained"),
         Line2D([], [], color=INK, marker="o", markersize=6, markerfacecolor="none", linestyle="", label="new content"),
         Line2D([], [], color=GREY, marker=".", linestyle="dotted", label="control (random labels)"),
         Line2D([], [], color=GREY, linestyle="dashed", label="chance")])  # fmt: skip
    return Drawn("stage_controls", sheet, rows_out)
