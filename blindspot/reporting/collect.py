"""From a run folder to ``results.json``."""

from pathlib import Path
from typing import Any

from blindspot.evaluation.statistics import ALPHA, CONFIDENCE, PERMUTATIONS, RESAMPLES
from blindspot.files import write_json
from blindspot.reporting.analysis import analyse
from blindspot.reporting.answers import Answers, load_answers
from blindspot.reporting.curves import load_curves, unlearned_text
from blindspot.reporting.findings import findings
from blindspot.reporting.gallery import pick_localisation, pick_scenes
from blindspot.reporting.hypotheses import verdicts
from blindspot.reporting.plan import Plan, load_plan
from blindspot.text import rounded

VERSION = 5


def collect(run: Path) -> dict[str, Any]:
    """Compute the results of the run folder ``run`` and write them to ``run/results.json``.

    The same inputs give the same bytes: there are no times in it and resampling is seeded. ``docs/results.md`` states
    the schema.

    Raises:
        UserError: if the folder holds no plan, no finished evaluation, or a file that does not follow its schema.
    """
    plan = load_plan(run)
    answers = load_answers(run, plan)
    analysis = analyse(plan, answers)
    results = {
        "version": VERSION,
        **plan.model_dump(include={"study", "title", "scale", "meaningful", "arms", "columns", "pairs"}),
        "seeds": plan.seeds(),
        "stages": plan.stages(),
        "notes": plan.notes + unlearned_text(run, plan) + _notes(plan, answers, analysis.noise),
        "method": {"confidence": CONFIDENCE, "alpha": ALPHA, "resamples": RESAMPLES, "permutations": PERMUTATIONS},
        "findings": findings(plan, analysis.differences, analysis.noise),
        "scores": analysis.scores,
        "differences": analysis.differences,
        "noise": analysis.noise,
        "hypotheses": verdicts(plan, answers),
        "curves": load_curves(run, plan),
        "gallery": pick_scenes(plan, answers),
        "localisation": pick_localisation(plan, answers),
    }
    shown = rounded(results)
    write_json(run / "results.json", shown)
    return shown


def _notes(plan: Plan, answers: Answers, noise: list[dict[str, Any]]) -> list[str]:
    notes = []
    if answers.missing:
        total = len(list(plan.evaluations()))
        notes.append(f"{len(answers.missing)} of {total} evaluations are not done; their arms or seeds are left out.")
    if any(row["df"] == 0 for row in noise):
        notes.append(
            "No configuration ran more than once, so training noise is unknown: intervals and p values hold question "
            "sampling only and a difference may be an accident of one training run."
        )
    known = {column.asks for column in plan.columns}
    asked = {question["benchmark"] for question in answers.questions}
    if asked - known:
        notes.append(f"Answers to {', '.join(sorted(asked - known))} belong to no column of the plan; left out.")
    if known - asked:
        notes.append(f"No questions for {', '.join(column.id for column in plan.columns if column.asks not in asked)}.")
    return notes
