"""The arms of a study, and which of them are compared."""

from dataclasses import asdict, dataclass
from typing import Any

from blindspot.studies.spec import FAMILIES, POSITIONS, Study

REPLICATE = "replicate"
REPLICATE_SEED_OFFSET = 1000


@dataclass(frozen=True)
class Arm:
    """One named configuration; ``label`` is how the paper's tables write it."""

    id: str
    label: str
    family: str
    positions: str
    replicate_of: str | None = None

    def training_seed(self, seed: int) -> int:
        """The seed that this arm's training draws from in run ``seed`` of the study."""
        return seed + REPLICATE_SEED_OFFSET if self.replicate_of else seed


def expand_arms(study: Study) -> list[Arm]:
    """Every family with every positional scheme, then the replicate if the study has one."""
    arms = [
        Arm(f"{family}-{positions}", f"LLaVA-{FAMILIES[family]}{POSITIONS[positions]}", family, positions)
        for family in study.arms.families
        for positions in study.arms.positions
    ]
    for arm in arms:
        if arm.id == study.arms.replicate:
            return [*arms, Arm(REPLICATE, f"{arm.label} (replicate)", arm.family, arm.positions, replicate_of=arm.id)]
    return arms


def compared_pairs(study: Study) -> list[dict[str, Any]]:
    """Pairs of arms ``a`` against ``b`` that differ in one thing: the positions, or only the seed."""
    pairs: list[dict[str, Any]] = []
    if {"learned", "axial"} <= set(study.arms.positions):
        pairs = [
            {"a": f"{family}-axial", "b": f"{family}-learned", "label": FAMILIES[family], "kind": "positions"}
            for family in study.arms.families
        ]
    for arm in expand_arms(study):
        if arm.replicate_of:
            label = f"{FAMILIES[arm.family]}{POSITIONS[arm.positions]}, other seed"
            pairs.append({"a": arm.id, "b": arm.replicate_of, "label": label, "kind": "replicate"})
    return pairs


def describe_arms(study: Study) -> list[dict[str, Any]]:
    """The arms as plain values, for ``plan.json``."""
    return [asdict(arm) for arm in expand_arms(study)]
