"""What can be read at each stage: how well everything that matters can be read, from the pixels to the answer."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import isnan
from statistics import fmean
from typing import Any, NamedTuple

from blindspot.diagnostics.base import Between, Number, Pictures, Row, Table, Tables, Value
from blindspot.diagnostics.figures import NOTICEABLE, distinct, guesses, listed, percent, ratio, sure
from blindspot.plots import GREY, HUES, INK, LIGHT, NONE, Area, Figure, Key, Lines, Note, Rule, Series, stroke


class StageRow(Value):
    stage: str
    order: int
    tokens: str
    target: str
    readout: str
    error: Number
    control: Number
    selectivity: Number
    chance: Number
    held_out: bool


class Drop(Between, Value):
    target: str


class Gap(Value):
    target: str
    stage: str
    readout: str
    probe: Number
    model: Number


ROWS = {"stages": StageRow, "drops": Drop, "gap": Gap}
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


def draw(tables: Tables, pictures: Pictures) -> Iterator[Figure]:
    """The stage figure, and a panel for each target with its controls."""
    if "stages" in tables:
        stages = tables["stages"]
        targets = sorted(distinct(stages.rows, "target"), key=lambda name: (*TARGETS, name).index(name))
        best = {target: found for target in targets if (found := best_rows(stages, target))}
        if best:
            yield _overview(best, tables)
            yield _controls(best, stages)


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


def _overview(best: dict[str, dict[Stage, Row]], tables: Tables) -> Figure:
    stages = sorted({stage for rows in best.values() for stage in rows})
    x = places_of(stages)
    gaps = _last_gaps(tables)
    title, said = _point(best, tables)
    subtitle = (
        "Best read-out of each stage, from chance (0) to everything right (1), with 95 % interval. Diamonds: what "
        "the model itself answers. Grey: the most that read-outs of random labels reach. A read-out shows what is "
        "there, not what is used."
    )
    end = max(x.values()) + 1 + max(1.0, 0.03 * len(stages))
    series, legend = _control_floor(best, x), []
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


def _runs(stages: Iterable[Stage]) -> list[list[Stage]]:
    """Stages that a line joins: neighbours of one group."""
    return [list(group) for _, group in groupby(stages, key=lambda stage: stage.group)]


def _control_floor(best: dict[str, dict[Stage, Row]], x: dict[Stage, float]) -> list[Series]:
    """What the same read-outs reach on random labels, the most of all targets."""
    series = []
    for shown in _runs(sorted(x)):
        reached = []
        for stage in shown:
            found = [relative(rows[stage]["control"], rows[stage]["chance"]) for rows in best.values() if stage in rows]
            reached.append(max([0.0, *(value for value in found if not isnan(value))]))
        places = [x[stage] for stage in shown]
        if len(shown) == 1:
            places, reached = [places[0] - 0.3, places[0] + 0.3], reached * 2
        series.append(Series(places, [None] * len(places), LIGHT, [0.0] * len(places), reached, dash=NONE, shade=0.7))
    return series


def _scaffold(x: dict[Stage, float], end: float | None = None, floor: float = 0) -> dict[str, Any]:
    """What a panel of stages has: a rule at chance, layers as ticks, and the names of groups below."""
    thin, areas, notes = max(1, len(x) // 24), [], []
    for shown in _runs(x):
        first, last = x[shown[0]], x[shown[-1]]
        areas.append(Area((first - 0.45, last + 0.45), colour="#F7F7F5"))
        words = _WORDS[_GROUPS[shown[0].group]] if shown[0].group < len(_GROUPS) else "other"
        notes.append(((first + last) / 2, words))
    notes += [] if end is None else [(end, "answer")]
    return {
        "rules": [Rule(floor)], "areas": areas, "y_limits": (-0.12, 1.06), "y_ticks": (0, 0.5, 1), "grid": "y",
        "x_limits": (-0.8, (max(x.values()) if end is None else end) + 0.8), "tick_size": 8,
        "x_ticks": {x[stage]: stage.tick for stage in x if stage.layer % thin == 0 or stage.label == "pixels"},
        "below": [Note(words, at, 0, up=True, shift=(0, -20), align=("center", "top")) for at, words in notes],
    }  # fmt: skip


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


def _controls(best: dict[str, dict[Stage, Row]], stages: Table) -> Figure:
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
    x = places_of(sorted({stage for rows in best.values() for stage in rows}))
    fresh = {(row["target"], row["stage"], row["readout"]): row for row in stages.rows if row["held_out"]}
    panels, behind = [], []
    for number, (target, rows) in enumerate(best.items()):
        series = []
        for shown in _runs(rows):
            own = [rows[stage] for stage in shown]
            new = [fresh.get((target, row["stage"], row["readout"]), {"value": None})["value"] for row in own]
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
    found = {target: _means(probed, target) for target in TARGETS}
    found = {target: means for target, means in found.items() if means}
    if not found:
        return None
    arms = list(dict.fromkeys(label for label, _ in probed))
    stages = sorted({stage for means in found.values() for _, stage in means})
    x = places_of(stages)
    panels = [
        [Lines(title=target, title_size=11, **_scaffold(x), series=[
            Series([x[stage] for stage in shown], [means[arm, stage] for stage in shown], mark="o", size=3, width=1.5,
                   **stroke(number))
            for number, arm in enumerate(arms)
            for shown in _runs(stage for stage in stages if (arm, stage) in means)
        ])]
        for target, means in found.items()
    ]  # fmt: skip
    behind = [
        {"target": target, "arm": arm, "stage": stage.label, "value": value}
        for target, means in found.items()
        for (arm, stage), value in means.items()
    ]
    subtitle = "Best read-out at each stage, from chance (0) to everything right (1); mean over seeds"
    legend = [Key(arm, mark="o", size=3, **stroke(number)) for number, arm in enumerate(arms)]
    return Figure("stages_of_arms", _arms_title(found), subtitle, panels, behind, 1.15 + 1.55 * len(found),
                  share="both", legend=legend, legend_columns=3)  # fmt: skip


def _means(probed: Sequence[tuple[str, Table]], target: str) -> dict[tuple[str, Stage], float]:
    values: dict[tuple[str, Stage], list[float]] = {}
    for label, table in probed:
        for stage, row in best_rows(table, target).items():
            value = relative(row["value"], row["chance"])
            if not isnan(value):
                values.setdefault((label, stage), []).append(value)
    return {key: fmean(found) for key, found in values.items()}


def _arms_title(found: dict[str, dict[tuple[str, Stage], float]]) -> str:
    spreads = []
    for target, means in found.items():
        for stage in {stage for _, stage in means}:
            at = sorted((value, arm) for (arm, where), value in means.items() if where == stage)
            if len(at) > 1:
                spreads.append((at[-1][0] - at[0][0], target, stage, at[0], at[-1]))
    if not spreads:
        return "What can be read at each stage"
    _, target, stage, worst, best = max(spreads)
    ends = f"{best[1]} {ratio(best[0])}, {worst[1]} {ratio(worst[0])}"
    return f"Arms differ most in {target} at {spoken(stage.label)}: {ends}"
