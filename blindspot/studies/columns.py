"""The columns of a study's tables."""

from dataclasses import asdict
from typing import Any

from blindspot.studies.relatives import RELATIVES
from blindspot.studies.schema import Study


def columns(study: Study) -> list[dict[str, Any]]:
    """The columns of a study, for ``plan.json``: of its source, or those that the paper has of its benchmarks."""
    if study.recipe == "toy":
        return [
            {"metric": "accuracy", "relative": study.source == "scenes", **column} for column in RELATIVES[study.source]
        ]
    from blindspot.benchmarks.registry import select
    from blindspot.evaluation.paper import load

    paper = {column.key for column in load().columns}
    found: list[dict[str, Any]] = []
    for benchmark in select(study.asked):
        for metric in benchmark.metrics:
            if (benchmark.name, metric.name) not in paper and metric != benchmark.metrics[0]:
                continue
            most = sum(term.weight for term in metric.terms)
            found.append(
                {
                    "id": f"{benchmark.name}/{metric.name}",
                    "benchmark": benchmark.name,
                    "label": metric.name,
                    "paper": benchmark.title,
                    "metric": "accuracy",
                    "terms": [{**asdict(term), "weight": term.weight / most} for term in metric.terms],
                    "chance": None if metric.chance is None else metric.chance / most,
                    "description": f"{metric.name} of {benchmark.title}.",
                }
            )
    return found
