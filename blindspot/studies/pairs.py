"""Which arms are compared: those that stand apart on one axis only."""

from typing import Any

from blindspot.studies.arms import Arm, compose_label, expand_arms, moved, value_label
from blindspot.studies.axes import NAMES
from blindspot.studies.spec import Study

_SAME = {
    "pretrained_with": "positions that it was pretrained with",
    "evaluate_with": "those of training",
}


def compared_pairs(study: Study) -> list[dict[str, Any]]:
    """Pairs of arms ``a`` against ``b``: on one axis ``b`` is at a baseline of the study, elsewhere they are alike.

    ``kind`` is the axis (with the baseline, where an axis has several): one family of tests. ``first`` and ``second``
    say in words what the sides are. Last comes the replicate against its twin, which differ in their seeds alone.
    """
    arms = expand_arms(study)
    at = {arm.point: arm for arm in arms if not arm.replicate_of}
    pairs: list[dict[str, Any]] = []
    seen: set[frozenset[str]] = set()
    for axis, baselines in study.arms.baselines.items():
        for value in baselines:
            found = [(arm, at.get(moved(study, arm.point, axis, value))) for arm in at.values()]
            sides = [(a, b) for a, b in found if b and a != b and frozenset((a.id, b.id)) not in seen]
            seen |= {frozenset((a.id, b.id)) for a, b in sides}
            kind = axis if len(baselines) == 1 else f"{axis} against {value}"
            if sides:
                pairs += _described(axis, value, kind, sides)
    for arm in arms:
        if arm.replicate_of:
            short = next(twin for twin in arms if twin.id == arm.replicate_of).label.removeprefix("LLaVA-")
            sides = {"a": arm.id, "b": arm.replicate_of}
            words = {"first": "the replicate", "second": "the original"}
            pairs.append({**sides, "label": f"{short}, other seed", "kind": "replicate", **words})
    return pairs


def _described(axis: str, value: Any, kind: str, sides: list[tuple[Arm, Arm]]) -> list[dict[str, Any]]:
    values = {value_label(axis, getattr(a.point, axis)) for a, _ in sides}
    others = "pretraining" if value == "none" else f"{'other' if 'positions' in axis else 'another'} {NAMES[axis]}"
    first = next(iter(values)) if len(values) == 1 else others
    second = _SAME[axis] if value == "same" else value_label(axis, value)
    return [
        {"a": a.id, "b": b.id, "label": _label(a, b, axis, len(values) == 1), "kind": kind}
        | {"first": first, "second": second}
        for a, b in sides
    ]


def _label(a: Arm, b: Arm, axis: str, alike: bool) -> str:
    if not a.varied or not b.varied:
        return f"{a.label} against {b.label}"
    axes = [name for name in a.varied if name != axis or not alike]
    return compose_label(a.point, axes).removeprefix("LLaVA-") if axes else a.label
