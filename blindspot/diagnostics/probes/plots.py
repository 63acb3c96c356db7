"""What can be read at each stage: how well everything that matters can be read, from the pixels to the answer."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import isnan
from statistics import fmean
from typing import Any, NamedTuple

from blindspot.diagnostics.base import Number, Pictures, Row, Table, Tables, columns
from blindspot.diagnostics.figures import NOTICEABLE, clear, guesses, having, highest, known, listed, percent, ratio
from blindspot.plots import GREY, HUES, INK, LIGHT, NONE, Area, Figure, Key, Lines, Note, Rule, Series, stroke

ROWS = {
    "stages": columns(
        stage=str, order=int, tokens=str, target=str, readout=str, error=Number, control=Number, selectivity=Number,
        chance=Number, held_out=bool,
    ),
    "drops": columns(**{"from": str, "to": str}, target=str),
    "gap": columns(target=str, stage=str, readout=str, probe=Number, model=Number),
}  # fmt: skip
TARGETS = ("position", "relation", "count", "existence", "binding", "nearer", "depth")
NUMBERS = ("position", "depth")
"""Targets that are places, whose score is R2."""
R2 = "R\N{SUPERSCRIPT TWO}"
_LABEL = re.compile(r"(pixels|encoder|connector|language)(?: (\d+))?(?: \((image|word|last)\))?")
_PIXELS, _ENCODER, _IMAGE, _WORD, _LAST, _OTHER = range(6)
_WORDS = ("pixels", "image encoder,\nlayer", "language model,\nimage tokens, layer", "the object's\nword, layer",
          "last token,\nlayer", "other")  # fmt: skip
_MARKS = "os^Dv"
_TOKENS = {"image": "the image tokens", "word": "the word", "last": "the last token"}


class StagePlace(NamedTuple):
    """A stage of the pipeline, in an order that models of different depth share."""

    group: int
    layer: int
    label: str


Best = dict[str, dict[StagePlace, Row]]
"""For each target the row of the read-out that reads it best, for each stage on its way."""


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    if "stages" in tables:
        stages = tables["stages"]
        named = dict.fromkeys(str(row["target"]) for row in stages.rows)
        targets = sorted(named, key=lambda name: (*TARGETS, name).index(name))
        best = {target: found for target in targets if (found := best_rows(stages, target))}
        if best:
            yield _overview(best, tables)
            yield _controls(best, stages)


def best_rows(stages: Table, target: str) -> dict[StagePlace, Row]:
    """The row of the read-out that reads a target best, for each stage on its way."""
    best: dict[StagePlace, Row] = {}
    for row in known(having(stages.rows, target=target, held_out=False)):
        stage = stage_of(row)
        if stage not in best or row["value"] > best[stage]["value"]:
            best[stage] = row
    return {stage: best[stage] for stage in sorted(best)}


def stage_of(row: Row) -> StagePlace:
    """The stage of a row; labels are ``pixels``, ``encoder 3``, ``connector``, ``language 2 (word)``."""
    label = str(row["stage"])
    found = _LABEL.fullmatch(label)
    if found is None:
        return StagePlace(_OTHER, int(row["order"]), label)
    part, layer, tokens = found[1], int(found[2] or 0), found[3]
    group = {"pixels": _PIXELS, "encoder": _ENCODER}.get(part, {"word": _WORD, "last": _LAST}.get(tokens, _IMAGE))
    return StagePlace(_IMAGE if part == "connector" else group, layer, label)


def relative(value: float | None, chance: float | None) -> float:
    """Where a score lies between chance (0) and everything right (1)."""
    if value is None or chance is None or chance >= 1:
        return float("nan")
    return (value - chance) / (1 - chance)


def _scored(target: str, value: float | None) -> str:
    return f"{R2} {ratio(value)}" if target in NUMBERS else percent(value)


def _places(stages: Iterable[StagePlace]) -> dict[StagePlace, float]:
    """Where each stage is on the horizontal axis, in order: a step apart, with a gap between groups."""
    ordered = sorted(set(stages))
    places, at = {}, 0.0
    for number, stage in enumerate(ordered):
        if number:
            at += 1 if stage.group == ordered[number - 1].group else 1 + max(1.0, 0.03 * len(ordered))
        places[stage] = at
    return places


def _runs(stages: Iterable[StagePlace]) -> list[list[StagePlace]]:
    """Stages that a line joins: neighbours of one group."""
    return [list(group) for _, group in groupby(stages, key=lambda stage: stage.group)]


def _overview(best: Best, tables: Tables) -> Figure:
    x = _places(stage for rows in best.values() for stage in rows)
    gaps = {str(row["target"]): row for row in known(tables["gap"].rows if "gap" in tables else [], "model")
            if row["stage"] != "connector"}  # fmt: skip
    title, said = _point(best, tables, gaps)
    subtitle = (
        "Best read-out of each stage, from chance (0) to everything right (1), with 95 % interval. Diamonds: what "
        "the model itself answers. Grey: the most that read-outs of random labels reach. A read-out shows what is "
        "there, not what is used."
    )
    end = max(x.values()) + 1 + max(1.0, 0.03 * len(x))
    series, legend = [], []
    for shown in _runs(x):  # what the same read-outs reach on random labels, the most of all targets
        controls = [[relative(rows[stage]["control"], rows[stage]["chance"]) for rows in best.values() if stage in rows]
                    for stage in shown]  # fmt: skip
        reached = [max([0.0, *(value for value in found if not isnan(value))]) for found in controls]
        places = [x[stage] for stage in shown]
        if len(shown) == 1:
            places, reached = [places[0] - 0.3, places[0] + 0.3], reached * 2
        series.append(Series(places, [None] * len(places), LIGHT, [0.0] * len(places), reached, dash=NONE, shade=0.7))
    for number, (target, rows) in enumerate(best.items()):
        colour, mark = HUES[number % len(HUES)], _MARKS[number % len(_MARKS)]
        legend.append(Key(target, colour, mark=mark, size=5))
        for shown in _runs(rows):
            own = [{key: relative(rows[stage][key], rows[stage]["chance"]) for key in ("value", "low", "high")}
                   for stage in shown]  # fmt: skip
            places = [x[stage] for stage in shown]
            series.append(Series.of(places, own, colour, mark=mark, size=5 if len(x) < 30 else 3))
        if target in gaps:
            last, row = list(rows.items())[-1]
            at, model = end + 0.25 * (number - (len(best) - 1) / 2), relative(gaps[target]["model"], row["chance"])
            joined = [relative(row["value"], row["chance"]), model]
            series.append(Series([x[last], at], joined, colour, dash="dotted", width=1))
            series.append(Series([at], [model], colour, mark="D", size=8, edge="white"))
    panel = Lines(series=series, y_label="chance (0) to all right (1)", **_scaffold(x, end if gaps else None))
    behind = [{**row, "best": True} for found in best.values() for row in found.values()]
    return Figure("stages", title, subtitle, [[panel]], behind, 5.0, legend=[*legend, Key("control", LIGHT, NONE)],
                  legend_columns=len(best) + 1, says=tuple(said))  # fmt: skip


def _scaffold(x: dict[StagePlace, float], end: float | None = None, floor: float = 0) -> dict[str, Any]:
    """What a panel of stages has: a rule at chance, layers as ticks, and the names of groups below."""
    thin, areas, notes, ticks = max(1, len(x) // 24), [], [], {}
    for shown in _runs(x):
        first, last = x[shown[0]], x[shown[-1]]
        areas.append(Area((first - 0.45, last + 0.45), colour="#F7F7F5"))
        notes.append(((first + last) / 2, _WORDS[shown[0].group]))
    notes += [] if end is None else [(end, "answer")]
    for stage, at in x.items():
        if stage.layer % thin == 0 or stage.label == "pixels":
            ticks[at] = {"pixels": "", "connector": "0"}.get(stage.label, str(stage.layer))
    return {
        "rules": [Rule(floor)], "areas": areas, "y_limits": (-0.12, 1.06), "y_ticks": (0, 0.5, 1), "grid": "y",
        "x_limits": (-0.8, (max(x.values()) if end is None else end) + 0.8), "tick_size": 8, "x_ticks": ticks,
        "below": [Note(words, at, 0, up=True, shift=(0, -20), align=("center", "top")) for at, words in notes],
    }  # fmt: skip


def _point(best: Best, tables: Tables, gaps: Mapping[str, Row]) -> tuple[str, list[str]]:
    """The title, and the sentences for the lead; a target that the model guesses is told as such first."""
    chances = {target: next(iter(rows.values()))["chance"] for target, rows in best.items()}
    guessed = [target for target, row in gaps.items()
               if row["n"] and guesses(row["model"] * row["n"], row["n"], chances.get(target))]  # fmt: skip
    titles, said = [], _read(best)
    if guessed:
        titles.append(f"The model answers {listed(guessed)} no better than by guessing")
        said.insert(0, f"{titles[0]} ({', '.join(percent(gaps[target]['model']) for target in guessed)}): what is "
                       "read of a guessed target shows nothing about use.")  # fmt: skip
    worst = highest(row for row in (tables["drops"].rows if "drops" in tables else [])
                    if clear(row) and _beats_random(_at_stage(best, row["target"], row["from"])))  # fmt: skip
    if worst is not None:
        target, ends = str(worst["target"]), (str(worst["from"]), str(worst["to"]))
        before, after = (_scored(target, _at_stage(best, target, end).get("value")) for end in ends)
        first, second = (_spoken(end) for end in ends)
        tokens, _, layer = first.partition(" of language layer ")
        first = tokens if layer and second.endswith(f" {layer}") else first
        titles.append(f"most is lost of {target} between {first} and {second}: {before} to {after}")
        said.append(f"The largest loss is of {target}, between {first} and {second}: {ratio(worst['value'])} "
                    f"({ratio(worst['low'])} to {ratio(worst['high'])}).")  # fmt: skip
    elif "drops" in tables:
        titles.append("no clear loss of what can be read on the way to the answer")
        said.append("No clear loss of what can be read on the way to the answer.")
    judged = [row for target, row in gaps.items() if target not in guessed]
    there = [row for row in judged if clear(row) and _beats_random(_at_stage(best, row["target"], row["stage"]))]
    if (unused := highest(there)) is not None:
        what, read, answered = unused["target"], percent(unused["probe"]), percent(unused["model"])
        titles.append(f"{what} is there ({read}) but not answered ({answered})")
        said.append(f"There but not used: {what} can be read from the last token in {read} of pictures, the model "
                    f"answers {answered} right.")  # fmt: skip
    elif judged:
        said.append("No sign that the last token holds more than is answered.")
    title = "; ".join(titles) or "what can be read at each stage"
    return title[:1].upper() + title[1:], said


def _beats_random(row: Row) -> bool:
    """Whether a read-out does better than with random labels and than chance, at its own stage."""
    return (row.get("selectivity") or 0.0) >= NOTICEABLE


def _at_stage(best: Best, target: Any, label: Any) -> Row:
    return next((row for stage, row in best.get(str(target), {}).items() if stage.label == label), {})


def _last_token(rows: dict[StagePlace, Row]) -> Row | None:
    """The best row at the last token of the last layer; None if the target is not read so far."""
    (*_, (stage, last)) = rows.items()
    return last if stage.group == _LAST else None


def _read(best: Best) -> list[str]:
    """A sentence about the best and the last score of every target that reaches the last token."""
    parts = []
    for target, rows in best.items():
        if (last := _last_token(rows)) is not None:
            ends = max(row["value"] for row in rows.values()), last["value"]
            high, low = (_scored(target, value).removeprefix(f"{R2} ") for value in ends)
            low += "" if _beats_random(last) else " (no more than random labels)"
            parts.append(f"{target} {R2 if target in NUMBERS else ''} {high}, then {low}".replace("  ", " "))
    return [f"What can be read at the best stage, and then from the last token: {'; '.join(parts)}."] if parts else []


def _spoken(label: str) -> str:
    found = _LABEL.fullmatch(label)
    return f"{_TOKENS[found[3]]} of language layer {found[2]}" if found and found[3] else label


def _controls(best: Best, stages: Table) -> Figure:
    title = "Read-outs of each target, and what they reach with random labels"
    chosen = {target: max(rows.values(), key=lambda row: row["value"]) for target, rows in best.items()}
    beats = {target: row for target, row in chosen.items() if row["selectivity"] is not None}
    weak = [target for target, row in beats.items() if not _beats_random(row)]
    if weak:
        title = f"For {listed(weak)}, even the best read-outs do no better than with random labels"
    elif beats:
        least = min(beats, key=lambda target: beats[target]["selectivity"])
        title = f"The best read-outs beat random labels by {ratio(beats[least]['selectivity'])} ({least}) or more"
    last = {target: row for target, rows in best.items() if (row := _last_token(rows)) and target not in weak}
    lost = [
        f"{target} ({_scored(target, row['value'])} against {_scored(target, row['value'] - row['selectivity'])})"
        for target, row in last.items()
        if row["selectivity"] is not None and not _beats_random(row)
    ]
    if lost:
        title += f"; at the last token random labels do as well for {listed(lost)}"
    subtitle = (
        f"Score of the best read-out at each stage as it is ({R2} of position and depth, else share right), on content "
        "never trained on, and of its control task with random labels."
    )
    x = _places(stage for rows in best.values() for stage in rows)
    fresh = {(row["target"], row["stage"], row["readout"]): row["value"] for row in stages.rows if row["held_out"]}
    panels, behind = [], []
    for number, (target, rows) in enumerate(best.items()):
        series = []
        for shown in _runs(rows):
            own = [rows[stage] for stage in shown]
            new = [fresh.get((target, row["stage"], row["readout"])) for row in own]
            places = [x[stage] for stage in shown]
            series += [
                Series.of(places, own, HUES[number % len(HUES)]),
                Series(places, new, HUES[number % len(HUES)], dash=NONE, mark="o", size=6, hollow=True),
                Series(places, [row["control"] for row in own], GREY, dash="dotted", mark=".", width=1.2, size=6),
            ]
            behind += [{**row, "held_out_value": value} for row, value in zip(own, new, strict=True)]
        chance = next(iter(rows.values()))["chance"] or 0.0
        words = f"{target} (chance {ratio(chance)})" if chance else target
        panels.append([Lines(series=series, title=words, **_scaffold(x, floor=chance))])
    legend = [Key("as trained", INK, mark="o", size=4), Key("new content", INK, NONE, "o", face="none"),
              Key("control (random labels)", GREY, "dotted", "."), Key("chance", GREY, "dashed")]  # fmt: skip
    height = 0.95 + 1.45 * len(best)
    return Figure("stage_controls", title, subtitle, panels, behind, height, share="both", legend=legend)


def of_arms(diagnosed: Sequence[tuple[str, Mapping[str, Tables]]]) -> Figure | None:
    """The stages of several arms: a panel for each target with a line for each arm; None if no arm was probed.

    Args:
        diagnosed: label of the arm and the tables of its diagnostics; an arm with several seeds occurs several times,
            and its line is the mean.
    """
    probed = [
        (label, tables["probes"]["stages"]) for label, tables in diagnosed if "stages" in tables.get("probes", {})
    ]
    found = {target: means for target in TARGETS if (means := _means(probed, target))}
    if not found:
        return None
    spreads = []
    for target, means in found.items():
        for stage in {stage for _, stage in means}:
            at = sorted((value, arm) for (arm, where), value in means.items() if where == stage)
            if len(at) > 1:
                spreads.append((at[-1][0] - at[0][0], target, stage, at[0], at[-1]))
    title = "What can be read at each stage"
    if spreads:
        _, target, stage, worst, best = max(spreads)
        title = (f"Arms differ most in {target} at {_spoken(stage.label)}: {best[1]} {ratio(best[0])}, {worst[1]} "
                 f"{ratio(worst[0])}")  # fmt: skip
    strokes = {arm: stroke(number) for number, arm in enumerate(dict.fromkeys(label for label, _ in probed))}
    x = _places(stage for means in found.values() for _, stage in means)
    panels = [
        [Lines(title=target, title_size=11, **_scaffold(x), series=[
            Series([x[stage] for stage in shown], [means[arm, stage] for stage in shown], mark="o", size=3, width=1.5,
                   **drawn)
            for arm, drawn in strokes.items() for shown in _runs(stage for stage in x if (arm, stage) in means)
        ])]
        for target, means in found.items()
    ]  # fmt: skip
    behind = [
        {"target": target, "arm": arm, "stage": stage.label, "value": value}
        for target, means in found.items()
        for (arm, stage), value in means.items()
    ]
    subtitle = "Best read-out at each stage, from chance (0) to everything right (1); mean over seeds"
    legend = [Key(arm, mark="o", size=3, **drawn) for arm, drawn in strokes.items()]
    return Figure("stages_of_arms", title, subtitle, panels, behind, 1.15 + 1.55 * len(found), share="both",
                  legend=legend, legend_columns=3)  # fmt: skip


def _means(probed: Sequence[tuple[str, Table]], target: str) -> dict[tuple[str, StagePlace], float]:
    values: dict[tuple[str, StagePlace], list[float]] = {}
    for label, table in probed:
        for stage, row in best_rows(table, target).items():
            value = relative(row["value"], row["chance"])
            if not isnan(value):
                values.setdefault((label, stage), []).append(value)
    return {key: fmean(found) for key, found in values.items()}
