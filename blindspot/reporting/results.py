"""From a run folder to ``results.json`` (``docs/results.md``): scores, differences, noise, verdicts, what to show."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from blindspot.evaluation.statistics import (
    ALPHA,
    CONFIDENCE,
    PERMUTATIONS,
    RESAMPLES,
    Noise,
    Sample,
    chance_corrected,
    contrast,
    correct,
    noise_band,
    paired,
    run_noise,
)
from blindspot.files import write_json
from blindspot.reporting.run import (
    STAGES,
    Column,
    Pair,
    RunAnswers,
    RunKey,
    RunPlan,
    load_answers,
    load_curves,
    load_plan,
    stage_name,
    unlearned_text,
)
from blindspot.text import clean, points, rounded, signed

VERSION = 5
SCENES, BOXES = 12, 6
"""Questions that the page shows: with every arm's answer, and with every arm's box."""
LIMIT = 100
"""Letters of an answer that are kept."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TESTED = ("low", "high", "error", "error_questions", "df", "p", "p_questions", "noise_included")
Row = dict[str, Any]


def collect(run: Path) -> Row:
    """Compute the results of the run folder ``run`` and write them to ``run/results.json``.

    The same inputs give the same bytes: there are no times in it and resampling is seeded. ``docs/results.md`` states
    the schema. Refused are a folder without a plan or a finished evaluation, and files that do not follow their schema.
    """
    plan = load_plan(run)
    answers = load_answers(run, plan)
    scores, differences, noise = _analysed(plan, answers)
    shown_models = _shown(plan, answers)
    results = {
        "version": VERSION,
        **plan.model_dump(include={"study", "title", "scale", "meaningful", "arms", "columns", "pairs"}),
        "seeds": plan.seeds(),
        "stages": plan.stages(),
        "notes": [*plan.notes, *unlearned_text(run, plan), *_notes(plan, answers, noise)],
        "method": {"confidence": CONFIDENCE, "alpha": ALPHA, "resamples": RESAMPLES, "permutations": PERMUTATIONS},
        "findings": _findings(plan, differences, noise),
        "scores": scores,
        "differences": differences,
        "noise": noise,
        "hypotheses": _verdicts(plan, answers),
        "curves": load_curves(run, plan),
        "gallery": _scenes(plan, answers, shown_models),
        "localisation": _boxes(plan, answers, shown_models),
    }
    shown = rounded(results)
    write_json(run / "results.json", shown)
    return shown


def _notes(plan: RunPlan, answers: RunAnswers, noise: list[Row]) -> Iterator[str]:
    if answers.missing:
        total = len(plan.evaluations())
        yield f"{len(answers.missing)} of {total} evaluations are not done; their arms or seeds are left out."
    if any(row["df"] == 0 for row in noise):
        yield (
            "No configuration ran more than once, so training noise is unknown: intervals and p values hold question "
            "sampling only and a difference may be an accident of one training run."
        )
    known = {column.asks for column in plan.columns}
    asked = {question["benchmark"] for question in answers.questions}
    if asked - known:
        yield f"Answers to {', '.join(sorted(asked - known))} belong to no column of the plan; left out."
    if known - asked:
        yield f"No questions for {', '.join(column.id for column in plan.columns if column.asks not in asked)}."


def _analysed(plan: RunPlan, answers: RunAnswers) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of scores, differences and noise, in the order of the plan's columns.

    Holm's correction runs over all pairs of one kind and all columns of one stage, and apart from that over the parts
    of one name.
    """
    scores: list[Row] = []
    differences: list[Row] = []
    noise: list[Row] = []
    seeds = len(plan.seeds())
    for column in plan.columns:
        for split, places in _splits(answers, column).items():
            runs = answers.samples(column, places)
            members: dict[tuple[str, str], list[Sample]] = defaultdict(list)
            for key, sample in runs.items():
                members[key.arm, key.stage].append(sample)
            pooled = {own: Sample.combined(each, [1 / len(each)] * len(each)) for own, each in members.items()}
            for stage in plan.stages():
                configurations: dict[str, list[float]] = defaultdict(list)
                for arm in plan.arms:
                    keys = answers.runs(arm.id, stage)
                    if keys:
                        mean = _score_row(answers, column, split, places, keys, pooled[arm.id, stage])
                        scores.append(mean | {"seed": None})
                    scores += [_score_row(answers, column, split, places, [key], runs[key]) for key in keys]
                    known = (runs[key].value for key in keys)
                    configurations[arm.replicate_of or arm.id].extend(value for value in known if value is not None)
                if split != "iid" and split not in column.parts:
                    continue
                between = run_noise(list(configurations.values()))
                if split == "iid":
                    noise.append({"column": column.id, "stage": stage, "split": split, "deviation": between.deviation,
                                  "df": between.df, "runs": between.runs,
                                  "band": noise_band(between, (seeds, seeds))})  # fmt: skip
                for pair in plan.pairs:
                    sides = answers.runs(pair.a, stage), answers.runs(pair.b, stage)
                    if all(sides):
                        both = pooled[pair.a, stage], pooled[pair.b, stage]
                        differences.append(_difference_row(column, split, pair, stage, sides, both, runs, between))
    correct(differences, lambda row: None if row["kind"] == "replicate" else (row["stage"], row["kind"], row["split"]))
    return scores, differences, noise


def _splits(answers: RunAnswers, column: Column) -> dict[str, list[int]]:
    """Places of a column's questions by split (``iid`` first), of ``all`` where there are several, and of its parts."""
    places, found = answers.of_column(column), defaultdict(list)
    for place in places:
        found[answers.questions[place]["groups"].get("split", "iid")].append(place)
    splits = {split: found[split] for split in sorted(found, key=lambda split: (split != "iid", split))}
    if len(splits) > 1:
        splits["all"] = places
    for name, wanted in column.parts.items():
        part = [
            place
            for place in found.get("iid", [])
            if all(answers.questions[place]["groups"].get(group) in values for group, values in wanted.items())
        ]
        if part:
            splits[name] = part
    return splits


def _score_row(
    answers: RunAnswers, column: Column, split: str, places: list[int], runs: list[RunKey], sample: Sample
) -> Row:
    found = sample.estimate()
    return {
        "arm": runs[0].arm,
        "column": column.id,
        "stage": runs[0].stage,
        "split": split,
        "seed": runs[0].seed,
        "n": sample.items,
        "clusters": sample.clusters,
        "score": found.value,
        "low": found.interval.low,
        "high": found.interval.high,
        "interval": found.interval.method,
        "parse_failures": float(np.mean([~answers.parsed[key][places] for key in runs])),
        "chance": column.chance,
        "chance_corrected": chance_corrected(found.value, column.chance),
    }


def _difference_row(
    column: Column, split: str, pair: Pair, stage: str, keys: tuple[list[RunKey], list[RunKey]],
    pooled: tuple[Sample, Sample], runs: dict[RunKey, Sample], noise: Noise,
) -> Row:  # fmt: skip
    """A pair over all seeds, and behind it (``seeds``) seed by seed."""
    test = paired(*pooled, noise, (len(keys[0]), len(keys[1])))
    seeds = []
    for a, b in zip(*keys, strict=False):
        one = paired(runs[a], runs[b])
        found = {name: getattr(one, name) for name in ("low", "high", "p_questions")}
        seeds.append({"seed_a": a.seed, "seed_b": b.seed, "difference": one.value} | found)
    return {
        **pair.model_dump(include={"a", "b", "label", "kind"}),
        "column": column.id,
        "stage": stage,
        "split": split,
        "n": pooled[0].items,
        "clusters": pooled[0].clusters,
        "difference": test.value,
        **{name: getattr(test, name) for name in _TESTED},
        "seeds": seeds,
    }


def _findings(plan: RunPlan, differences: list[Row], noise: list[Row]) -> Row:
    """Counts of surviving differences per stage and kind, and paragraphs about them, last stage first.

    ``gains`` and ``losses`` of a count are surviving differences above and below zero.
    """
    names = {column.id: column.name for column in plan.columns}
    counts, paragraphs = [], []
    for stage in reversed(plan.stages()):
        for kind in dict.fromkeys(pair.kind for pair in plan.pairs if pair.kind != "replicate"):
            wanted = stage, kind, "iid"
            rows = [row for row in differences if (row["stage"], row["kind"], row["split"]) == wanted]
            rows = [row for row in rows if row["p"] is not None]
            if not rows:
                continue
            first, second = next((pair.first, pair.second) for pair in plan.pairs if pair.kind == kind)
            found = [row for row in rows if row["significant"]]
            gains = sum(row["difference"] > 0 for row in found)
            losses = sum(row["difference"] < 0 for row in found)
            start = f"After {STAGES.get(stage, stage)},"
            said = f"{gains} gain{'s' * (gains != 1)}, {losses} loss{'es' * (losses != 1)}"
            title = (
                f"{start} {gains + losses} of {len(rows)} differences between {first} and {second} exceed noise: {said}"
                if gains + losses
                else f"{start} none of {len(rows)} differences between {first} and {second} exceeds noise"
            )
            alone = sum(row["p_questions"] is not None and row["p_questions"] < ALPHA for row in rows)
            counts.append({"stage": stage, "kind": kind, "first": first, "second": second, "tests": len(rows),
                           "significant": gains + losses, "gains": gains, "losses": losses, "uncorrected": alone,
                           "title": title})  # fmt: skip
            paragraphs.append(_sentence(counts[-1], rows[0]["noise_included"], found, names))
        known = [row for row in noise if row["stage"] == stage and row["deviation"] is not None]
        if known and stage == plan.stages()[-1]:
            worst, typical = max(known, key=lambda row: row["deviation"]), median(row["deviation"] for row in known)
            paragraphs.append(
                f"Training the same arm again with another seed moves a column by {points(typical)} points (standard "
                f"deviation, median over columns; {points(worst['deviation'])} on {names[worst['column']]})."
            )
    return {"text": " ".join(paragraphs), "paragraphs": paragraphs, "counts": counts}


def _sentence(count: Row, noise_included: bool, found: list[Row], names: dict[str, str]) -> str:
    first, second, start = count["first"], count["second"], f"After {stage_name(count['stage'])}, "
    explained = "question sampling and training noise together" if noise_included else "question sampling"
    if not count["significant"]:
        return (
            f"{start}none of the {count['tests']} differences between {first} and {second} is larger than {explained} "
            f"would explain (Holm-corrected, 5 %); a test on questions alone, uncorrected, would have claimed "
            f"{count['uncorrected']}."
        )
    largest = max(found, key=lambda row: abs(row["difference"]))
    return (
        f"{start}{count['significant']} of the {count['tests']} differences between {first} and {second} "
        f"{'is' if count['significant'] == 1 else 'are'} larger than {explained} would explain (Holm-corrected, 5 %): "
        f"{first} is better in {count['gains']} and worse in {count['losses']}. The largest is "
        f"{largest['label']} on {names[largest['column']]}: {signed(largest['difference'])} points "
        f"({signed(largest['low'])} to {signed(largest['high'])}). A test on questions alone, uncorrected, would have "
        f"claimed {count['uncorrected']}."
    )


def _verdicts(plan: RunPlan, answers: RunAnswers) -> list[Row]:
    """One row a hypothesis: effect after the last stage, its interval, Holm's p over all of them, and the verdict.

    A claim is ``supported`` if the effect differs from zero, after Holm's correction, with the sign that it predicts;
    ``refuted`` if it differs with the other sign, or at all where none was predicted; else ``undecided``. Where a claim
    predicts no effect, ``supported`` is never said: the interval says how large an effect there can still be.
    """
    rows: list[Row] = []
    for claim in plan.hypotheses:
        runs = {arm: {key.seed: key for key in answers.runs(arm, plan.stages()[-1])} for arm in claim.contrast}
        seeds = sorted(set.intersection(*map(set, runs.values())))
        column = next(column for column in plan.columns if column.id == claim.column)
        places = answers.iid(column)
        if not seeds or not places:
            continue
        samples, weights = answers.samples(column, places), list(claim.contrast.values())
        effects_s = [Sample.combined([samples[runs[arm][seed]] for arm in claim.contrast], weights) for seed in seeds]
        error = Sample.combined(effects_s, [1 / len(seeds)] * len(seeds)).difference_error()
        test = contrast([effect.value or 0.0 for effect in effects_s], error, sum(max(one, 0) for one in weights))
        found = {name: getattr(test, name) for name in ("low", "high", "df", "p")}
        rows.append(claim.model_dump() | {"effect": test.value} | found)
    correct(rows, lambda row: "claims")
    for row in rows:
        significant = row.pop("significant")
        signs = {"positive": row["effect"] > 0, "negative": row["effect"] <= 0, "zero": False}
        held = "supported" if signs[row["predicts"]] else "refuted"
        row["verdict"] = "not tested" if row["p_holm"] is None else held if significant else "undecided"
    return rows


def _shown(plan: RunPlan, answers: RunAnswers) -> list[RunKey]:
    """One model per arm: its first seed after the last stage that was evaluated."""
    for stage in reversed(plan.stages()):
        if runs := [key for arm in plan.arms for key in answers.runs(arm.id, stage)[:1]]:
            return runs
    return []


def _scenes(plan: RunPlan, answers: RunAnswers, shown: list[RunKey]) -> list[Row]:
    """`SCENES` questions, columns in turn: those on which the arms disagree most, one per image.

    Only questions of the iid split that count on their own are shown; ties are broken by a seeded shuffle.
    """
    queues: list[tuple[Column, list[int]]] = []
    for column in plan.columns:
        places = answers.iid(column) if column.metric not in ("mean_iou", "pair_accuracy") else []
        if places:
            mixed_q = np.random.default_rng(0).permutation(np.array(places, dtype=np.int64))
            scores_sq = np.stack([answers.scores[key][mixed_q] for key in shown])
            queues.append((column, mixed_q[np.argsort(-scores_sq.var(axis=0), kind="stable")].tolist()))
    picks: list[Row] = []
    seen: set[int] = set()
    while queues and len(picks) < SCENES:
        column, queue = queues.pop(0)
        fresh = [place for place in queue if answers.questions[place]["image"] not in seen]
        if fresh:
            seen.add(answers.questions[fresh[0]]["image"])
            picks.append(_pick(answers, shown, fresh[0], column))
            queues.append((column, fresh[1:]))
    order = {column.id: number for number, column in enumerate(plan.columns)}
    return sorted(picks, key=lambda pick: order[pick["column"]])


def _boxes(plan: RunPlan, answers: RunAnswers, shown: list[RunKey]) -> list[Row]:
    """`BOXES` questions at even steps from the worst to the best mean IoU over arms, with boxes as numbers."""
    picks = []
    for column in plan.columns:
        places = answers.iid(column) if column.metric == "mean_iou" and column.box_units is not None else []
        places.sort(key=lambda place: (np.mean([answers.scores[key][place] for key in shown]), place))
        chosen = np.unique(np.linspace(0, len(places) - 1, BOXES).round().astype(int)) if places else []
        for place in (places[number] for number in chosen):
            pick = _pick(answers, shown, place, column)
            pick |= {"units": column.box_units, "box": read_box(pick["answer"])}
            for answer in pick["answers"]:
                answer["box"] = read_box(answer["raw"])
            if pick["box"] is not None:
                picks.append(pick)
    return picks


def read_box(text: str) -> list[float] | None:
    """The four numbers ``x0 y0 x1 y1`` of a text, or None when there are not exactly four in order."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return numbers if len(numbers) == 4 and numbers[0] <= numbers[2] and numbers[1] <= numbers[3] else None


def _pick(answers: RunAnswers, shown: list[RunKey], place: int, column: Column) -> Row:
    question = answers.questions[place]
    replies = [
        {"arm": key.arm, "seed": key.seed, "raw": clean(answers.raw[key][place], LIMIT),
         "score": float(answers.scores[key][place]), "parsed": bool(answers.parsed[key][place])}
        for key in shown
    ]  # fmt: skip
    return {
        "id": clean(str(question["id"]), LIMIT),
        "column": column.id,
        "image": question["image"],
        "prompt": clean(str(question["prompt"]), 2 * LIMIT),
        "answer": clean(str(question["answer"]), LIMIT),
        "choices": [clean(str(choice), LIMIT) for choice in question["choices"]],
        "answers": replies,
    }
