"""From a run folder to ``results.json`` (``docs/results.md``): scores, differences, noise, verdicts, what to show."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import hypot
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from blindspot.benchmarks.boxes import VIEW
from blindspot.evaluation.paper import load
from blindspot.evaluation.statistics import (
    ALPHA,
    CONFIDENCE,
    PERMUTATIONS,
    RESAMPLES,
    UNKNOWN,
    Noise,
    Sample,
    chance_corrected,
    correct,
    difference,
    noise_band,
    paired,
    run_noise,
)
from blindspot.files import write_json
from blindspot.reporting.claims import counted, failure_p, outcome, times, unlearned, verdicts
from blindspot.reporting.run import (
    STAGES,
    Column,
    Pair,
    RunAnswers,
    RunKey,
    RunPlan,
    asked_data,
    leading,
    load_answers,
    load_curves,
    load_plan,
    load_probes,
    mean_scores,
    said_box,
    stage_name,
    still_falling,
    unlearned_text,
)
from blindspot.text import clean, points, rounded, signed

VERSION = 6
SCENES, BOXES = 12, 6
"""Questions that the page shows: with every arm's answer, and with every arm's box."""
LIMIT = 100
"""Letters of an answer that are kept."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TESTED = ("low", "high", "error", "error_questions", "df", "p", "p_questions", "noise_included")
Row = dict[str, Any]
_Pick = tuple[Column, list[RunKey], int]


def collect(run: Path) -> Row:
    """Compute the results of the run folder ``run`` and write them to ``run/results.json``.

    The same inputs give the same bytes: there are no times in it and resampling is seeded. ``docs/results.md`` states
    the schema. Refused are a folder without a plan or a finished evaluation, and files that do not follow their schema.
    """
    plan = load_plan(run)
    answers = load_answers(run, plan)
    missing = set(answers.missing)
    for column in plan.columns:
        column.chance = answers.guessed(column) if column.chance is None else column.chance
    scores, differences, noise = _analysed(plan, answers)
    means = {stage: mean_scores(scores, stage) for stage in plan.stages()}
    failed, probes = failed_runs(scores), load_probes(run, plan)
    results = {
        "version": VERSION,
        **plan.model_dump(include={"study", "title", "scale", "meaningful", "arms", "columns", "pairs"}),
        "seeds": plan.seeds(),
        "stages": plan.stages(),
        "notes": [
            *plan.notes,
            *unlearned_text(run, plan),
            *still_falling(run, plan),
            *_notes(plan, answers, noise, differences),
        ],
        "method": {"confidence": CONFIDENCE, "alpha": ALPHA, "resamples": RESAMPLES, "permutations": PERMUTATIONS},
        "missing": [one.model_dump(include={"arm", "stage", "seed"}) for one in plan.steps if one.id in missing],
        "findings": _findings(plan, scores, differences, noise),
        "scores": scores,
        "gaps": _gaps(plan, scores),
        "differences": differences,
        "noise": noise,
        "times": times(plan, probes),
        "hypotheses": verdicts(plan, answers, failed, probes),
        "curves": load_curves(run, plan),
        "gallery": _scenes(plan, answers, means),
        "localisation": _boxes(plan, answers, means),
    }
    digests = {name: one["digest"] for name, one in asked_data(run, plan).items()}
    asks = {column.id: column.asks for column in plan.columns}
    for pick in [*results["gallery"], *results["localisation"]]:
        pick["digest"] = digests.get(asks[pick["column"]])
    shown = rounded(results)
    write_json(run / "results.json", shown)
    return shown


def _notes(plan: RunPlan, answers: RunAnswers, noise: list[Row], differences: list[Row]) -> Iterator[str]:
    if answers.missing:
        total = len(plan.evaluations())
        yield f"{len(answers.missing)} of {total} evaluations are not done; their arms, seeds or columns are left out."
    if any(row["df"] == 0 for row in noise):
        yield (
            "No configuration ran more than once, so training noise is unknown: intervals and p values hold question "
            "sampling only and a difference may be an accident of one training run."
        )
    if borrowed := sum(row["noise_pooled"] for row in differences):
        yield (
            f"{borrowed} of {len(differences)} differences have an arm with a single run that counts, whose noise is "
            "taken to be that of the other arms."
        )
    known = {column.asks for column in plan.columns}
    asked = {question["benchmark"] for question in answers.questions}
    if asked - known:
        yield f"Answers to {', '.join(sorted(asked - known))} belong to no column of the plan; left out."
    if known - asked and not answers.missing:
        yield f"No questions for {', '.join(column.id for column in plan.columns if column.asks not in asked)}."


def failed_runs(scores: list[Row]) -> dict[str, set[RunKey]]:
    """Per column the runs that have not learned it."""
    failed: dict[str, set[RunKey]] = defaultdict(set)
    for row in scores:
        if row["seed"] is not None and row["split"] == "iid" and not row["learned"]:
            failed[row["column"]].add(RunKey(row["arm"], row["stage"], row["seed"]))
    return failed


def _analysed(plan: RunPlan, answers: RunAnswers) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of scores, differences and noise, in the order of the plan's columns.

    What is said of an arm is said of its runs that learned the column (`counted`). Holm's correction runs over all
    pairs of one kind and all columns of one stage, and apart from that over the parts of one name.
    """
    scores: list[Row] = []
    differences: list[Row] = []
    noise: list[Row] = []
    for column in plan.columns:
        failed: set[RunKey] = set()
        for split, places in _splits(answers, column).items():
            runs, asked = answers.samples(column, places), answers.asked(places)
            alone = {key: _score_row(answers, column, split, places, [key], one) for key, one in runs.items()}
            if split == "iid":
                failed = unlearned(alone, column.learned_at)
            for stage in plan.stages():
                keys = {arm.id: own for arm in plan.arms if (own := asked.get((arm.id, stage)))}
                kept = {arm: counted(own, failed) for arm, own in keys.items()}
                pooled = {arm: Sample.combined([runs[key] for key in own], [1 / len(own)] * len(own))
                          for arm, own in kept.items()}  # fmt: skip
                for arm, own in keys.items():
                    unread = float(np.mean([alone[key]["parse_failures"] for key in own]))
                    mean = _score_row(answers, column, split, places, kept[arm], pooled[arm])
                    scores.append(mean | {"seed": None, "parse_failures": unread} | outcome(own, failed))
                    scores += [alone[key] | outcome([key], failed) for key in own]
                if split != "iid" and split not in column.parts:
                    continue
                values = {arm: [value for key in own if (value := runs[key].value) is not None]
                          for arm, own in kept.items()}  # fmt: skip
                noises, between = _noises(plan, values)
                if split == "iid":
                    seeds = len(plan.seeds())
                    noise.append({"column": column.id, "stage": stage, "split": split, "deviation": between.deviation,
                                  "df": between.df, "runs": between.runs,
                                  "band": noise_band(between, (seeds, seeds))})  # fmt: skip
                for pair in plan.pairs:
                    if pair.a in keys and pair.b in keys:
                        sides = [(keys[arm], kept[arm], pooled[arm], noises[arm]) for arm in (pair.a, pair.b)]
                        differences.append(_difference_row(column, split, pair, stage, sides, runs, failed))
    correct(differences, lambda row: None if row["kind"] == "replicate" else (row["stage"], row["kind"], row["split"]))
    return scores, differences, noise


def _noises(plan: RunPlan, values: dict[str, list[float]]) -> tuple[dict[str, tuple[Noise, bool]], Noise]:
    """Of each arm the noise between runs, and that pooled over all arms; a replicate's runs are its twin's too.

    An arm with a single run that counts has the pooled noise, and is marked.
    """
    configurations: dict[str, list[float]] = defaultdict(list)
    twins = {arm.id: arm.replicate_of or arm.id for arm in plan.arms}
    for arm, own in values.items():
        configurations[twins[arm]] += own
    between, noises = run_noise(list(configurations.values())), {}
    for arm in values:
        own = run_noise([configurations[twins[arm]]])
        noises[arm] = (between, between.variance is not None) if own.variance is None else (own, False)
    return noises, between


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
        "error": found.error,
        "parse_failures": float(np.mean([~answers.parsed[key][places] for key in runs])),
        "chance": column.chance,
        "chance_corrected": chance_corrected(found.value, column.chance),
    }


def _difference_row(
    column: Column, split: str, pair: Pair, stage: str,
    sides: list[tuple[list[RunKey], list[RunKey], Sample, tuple[Noise, bool]]],
    runs: dict[RunKey, Sample], failed: set[RunKey],
) -> Row:  # fmt: skip
    """A pair over all seeds, and behind it (``seeds``) seed by seed.

    Each side: all runs, those that count, their mean, and their noise. Where scores differ by how many runs learned, p
    is at least Fisher's.
    """
    (keys_a, kept_a, a, (noise_a, pooled_a)), (keys_b, kept_b, b, (noise_b, pooled_b)) = sides
    test = paired(a, b, (noise_a, noise_b), (len(kept_a), len(kept_b)))
    p_failed, by_failing = failure_p((keys_a, keys_b), failed)
    if by_failing and test.noise_included and test.p is not None:
        test = replace(test, p=max(test.p, p_failed))
    seeds = []
    for one, other in zip(keys_a, keys_b, strict=False):
        alone = paired(runs[one], runs[other])
        found = {name: getattr(alone, name) for name in ("low", "high", "p_questions")}
        seeds.append({"seed_a": one.seed, "seed_b": other.seed, "difference": alone.value} | found)
    return {
        **pair.model_dump(include={"a", "b", "label", "kind"}),
        "column": column.id,
        "stage": stage,
        "split": split,
        "n": a.items,
        "clusters": a.clusters,
        "difference": test.value,
        **{name: getattr(test, name) for name in _TESTED},
        "noise_pooled": pooled_a or pooled_b,
        "p_failed": p_failed,
        "seeds": seeds,
    }


def _gaps(plan: RunPlan, scores: list[Row]) -> list[Row]:
    """What each arm has on the paper's general benchmarks (Table 1) more than on its spatial ones (Table 2).

    Both are means of chance-corrected scores, where open questions have chance 0. The benchmarks are independent
    samples of questions, so that the variances of their bootstraps add up; runs are compared by their whole difference.
    """
    paper, chances = load(), {column.id: column.chance or 0.0 for column in plan.columns}
    sides = [{column.id: column for column in paper.table(number) if column.id in chances} for number in "12"]
    weights = {own: sign / len(side) for side, sign in zip(sides, (1, -1), strict=True) for own in side}
    found: dict[tuple[str, str, int | None], dict[str, Row]] = defaultdict(dict)
    for row in scores:
        if row["column"] in weights and row["split"] == "iid":
            found[row["arm"], row["stage"], row["seed"]][row["column"]] = row

    def means(value_of: dict[str, float]) -> list[float]:
        return [fmean((value_of[own] - chances[own]) / (1 - chances[own]) for own in side) for side in sides]

    whole = {key: rows for key, rows in found.items() if all(sides) and len(rows) == len(weights)}
    both = {key: means({own: row["score"] for own, row in rows.items()}) for key, rows in whole.items()}
    runs: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for (arm, stage, seed), (general, spatial) in both.items():
        if seed is not None:
            runs[arm, stage][seed] = general - spatial
    gaps: list[Row] = []
    for stage in plan.stages():
        noises, _ = _noises(plan, {arm.id: [*runs[arm.id, stage].values()] for arm in plan.arms})
        for arm in plan.arms:
            if (key := (arm.id, stage, None)) not in whole:
                continue
            (general, spatial), rows = both[key], whole[key]
            parts = [weights[own] / (1 - chances[own]) * (row["error"] or 0.0) for own, row in rows.items()]
            clusters, count = min(row["clusters"] for row in rows.values()), len(runs[arm.id, stage])
            noise = noises[arm.id][0], UNKNOWN  # what is taken from it is no run
            test = difference(general - spatial, hypot(*parts) or None, clusters, None, noise, (count, 1), most=2.0)
            test = {name: getattr(test, name) for name in ("low", "high", "error", "error_questions", "noise_included")}
            printed = None
            if arm.paper and stage == plan.stages()[-1]:
                values = means({own: paper.value(arm.paper, one) for side in sides for own, one in side.items()})
                printed = values[0] - values[1]
            seeds = [{"seed": seed, "difference": one} for seed, one in runs[arm.id, stage].items()]
            gaps.append({"arm": arm.id, "stage": stage, "general": general, "spatial": spatial,
                         "difference": general - spatial, **test, "paper": printed, "seeds": seeds})  # fmt: skip
    return gaps


def _findings(plan: RunPlan, scores: list[Row], differences: list[Row], noise: list[Row]) -> Row:
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
    if said := _unlearned(plan, scores, names):
        paragraphs.append(said)
    return {"text": " ".join(paragraphs), "paragraphs": paragraphs, "counts": counts}


def _unlearned(plan: RunPlan, scores: list[Row], names: dict[str, str]) -> str:
    """What is to be said of runs that did not learn what others of their arm did; empty if all did."""
    rows = [row for row in scores if row["seed"] is None and (row["split"], row["stage"]) == ("iid", plan.stages()[-1])]
    mixed = [row for row in rows if 0 < row["learned"] < row["runs"]]
    if not mixed:
        return ""
    count = Counter({row["column"]: 0 for row in mixed})
    for row in mixed:
        count[row["column"]] += row["runs"] - row["learned"]
    column, most = count.most_common(1)[0]
    arms = {arm.id: arm.label for arm in plan.arms}
    worst = max((row for row in mixed if row["column"] == column), key=lambda row: row["failed_high"])
    return (
        f"{count.total()} times a run stayed near chance on a column that other runs of its arm learned, most often on "
        f"{names[column]} ({most}; {arms[worst['arm']]}: {worst['runs'] - worst['learned']} of {worst['runs']}, "
        f"{points(worst['failed_low'])} to {points(worst['failed_high'])} % of such runs). Scores and differences of "
        "an arm with two that learned are of those alone; how many do is an outcome of its own."
    )


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


def _shown(plan: RunPlan, answers: RunAnswers, places: list[int], means: dict[str, dict[str, float]]) -> list[RunKey]:
    """One model per arm that was asked these questions: its first seed after the last stage that was evaluated.

    Of very many arms the `leading` by their ``means`` after each stage.
    """
    asked = answers.asked(places)
    for stage in reversed(plan.stages()):
        if arms := [arm for arm in plan.arms if (arm.id, stage) in asked]:
            return [asked[arm.id, stage][0] for arm in leading(arms, (pair.b for pair in plan.pairs), means[stage])]
    return []


def _scenes(plan: RunPlan, answers: RunAnswers, means: dict[str, dict[str, float]]) -> list[Row]:
    """`SCENES` questions, benchmarks in turn: those on which the arms disagree most, one per image.

    Only questions of the iid split that count on their own are shown; ties are broken by a seeded shuffle.
    """
    queues: list[tuple[Column, list[RunKey], list[int]]] = []
    for column in {column.asks: column for column in reversed(plan.columns)}.values():
        places = answers.iid(column) if column.metric not in ("mean_iou", "pair_accuracy") else []
        if places and VIEW not in answers.questions[places[0]]["groups"]:
            mixed_q = np.random.default_rng(0).permutation(np.array(places, dtype=np.int64))
            shown = _shown(plan, answers, places, means)
            scores_sq = np.stack([answers.scores[key][mixed_q] for key in shown])
            queues.insert(0, (column, shown, mixed_q[np.argsort(-scores_sq.var(axis=0), kind="stable")].tolist()))
    picks: list[_Pick] = []
    seen: set[tuple[str, int]] = set()
    pictures = dict.fromkeys((column.asks for column in plan.columns), "") if plan.data else {}  # one set for all
    while queues and len(picks) < SCENES:
        column, shown, queue = queues.pop(0)
        name = pictures.get(column.asks, column.asks)
        fresh = [place for place in queue if (name, answers.questions[place]["image"]) not in seen]
        if fresh:
            seen.add((name, answers.questions[fresh[0]]["image"]))
            picks.append((column, shown, fresh[0]))
            queues.append((column, shown, fresh[1:]))
    order = {column.id: number for number, column in enumerate(plan.columns)}
    picks.sort(key=lambda pick: order[pick[0].id])
    return [row for row, _ in _told(answers, picks)]


def _boxes(plan: RunPlan, answers: RunAnswers, means: dict[str, dict[str, float]]) -> list[Row]:
    """`BOXES` questions at even steps from the worst to the best mean IoU over arms, with boxes as numbers."""
    picks: list[_Pick] = []
    for column in plan.columns:
        drawn = column.metric == "mean_iou" and column.box_units is not None
        places = [place for place in answers.iid(column) if drawn or VIEW in answers.questions[place]["groups"]]
        shown = _shown(plan, answers, places, means)
        places.sort(key=lambda place: (np.mean([answers.partial[key][place] for key in shown]), place))
        chosen = np.unique(np.linspace(0, len(places) - 1, BOXES).round().astype(int)) if places else []
        picks += [(column, shown, places[number]) for number in chosen]
    told = list(_told(answers, picks))
    for (column, shown, place), (pick, rows) in zip(picks, told, strict=True):
        drawn = column.metric == "mean_iou" and column.box_units is not None
        size = str(answers.questions[place]["groups"].get("picture", "")).split("x")
        pick |= {"units": [column.box_units] * 2 if drawn else [*map(float, size)], "box": read_box(pick["answer"])}
        for key, answer, row in zip(shown, pick["answers"], rows, strict=True):
            answer["score"] = float(answers.partial[key][place])
            answer["box"] = read_box(answer["raw"]) if drawn else said_box(row)
    return [pick for pick, _ in told if pick["box"] is not None]


def read_box(text: str) -> list[float] | None:
    """The four numbers ``x0 y0 x1 y1`` of a text, or None when there are not exactly four in order."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return numbers if len(numbers) == 4 and numbers[0] <= numbers[2] and numbers[1] <= numbers[3] else None


def _told(answers: RunAnswers, picks: Sequence[_Pick]) -> Iterator[tuple[Row, list[Row]]]:
    """Questions as the page shows them, with what models said, and the rows of these answers; each model's are read
    once."""
    places: dict[RunKey, list[int]] = defaultdict(list)
    for _, shown, place in picks:
        for key in shown:
            places[key].append(place)
    said = {key: answers.said(key, own) for key, own in places.items()}
    for column, shown, place in picks:
        question, rows = answers.questions[place], [said[key][place] for key in shown]
        replies = [
            {"arm": key.arm, "seed": key.seed, "raw": clean(str(row["raw"]), LIMIT),
             "score": float(answers.scores[key][place]), "parsed": bool(answers.parsed[key][place])}
            for key, row in zip(shown, rows, strict=True)
        ]  # fmt: skip
        pick = {
            "id": clean(str(question["id"]), LIMIT),
            "column": column.id,
            "image": question["image"],
            "prompt": clean(str(question["prompt"]), 2 * LIMIT),
            "answer": clean(str(question["answer"]), LIMIT),
            "choices": [clean(str(choice), LIMIT) for choice in question["choices"]],
            "answers": replies,
        }
        yield pick, rows
