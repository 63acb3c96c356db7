"""What moves between two arms of a study of real size. `blindspot.studies.compare` does it for drawn scenes."""

from itertools import combinations
from typing import Any

from blindspot.studies.axes import Choice
from blindspot.studies.compare import Comparison
from blindspot.studies.paper.arms import ResolvedArm, expand
from blindspot.studies.paper.spec import PaperStudy, Stage

_AXES = {
    "positions": "encoder positions",
    "connector": "connector",
    "connector_from": "where stage 1 comes from",
    "language_model": "language model",
    "language_positions": "positions in the language model",
}
_STAGES = {"connector": "stage 1", "instruct": "stage 2"}
_SIZE = ("width", "layers")
_IMAGE = ("image side", "patch side")
_PREPARED = ("resizing", "normalisation")
_SAID_BY_GRIDS = ("patch tokens", "grid of the position table")


def moves(study: PaperStudy) -> list[Comparison]:
    """Every pair that the study compares, then one pair for every two encoders that tables only show side by side.

    Imports torch where arms have different encoders.
    """
    arms = {arm.id: arm for arm in expand(study)}
    found: list[Comparison] = []
    for arm in arms.values():
        for other in arm.against:
            words = difference(arm, arms[other])
            found.append(Comparison(arm.label, arms[other].label, True, words, arm.replicate_of == other))
    pairs = {frozenset((arms[a].encoder, arms[b].encoder)) for a in arms for b in arms[a].against}
    for a, b in combinations((arm for arm in arms.values() if not arm.replicate_of), 2):
        pair = frozenset((a.encoder, b.encoder))
        if len(pair) == 2 and pair not in pairs and not _beside_encoder(a, b):
            pairs.add(pair)
            found.append(Comparison(a.label, b.label, False, difference(a, b)))
    return found


def difference(a: ResolvedArm, b: ResolvedArm) -> tuple[str, ...]:
    """What differs between two arms, one entry an axis: ``axis: a against b``."""
    return (*_encoders(a, b), *_beside_encoder(a, b))


def _beside_encoder(a: ResolvedArm, b: ResolvedArm) -> list[str]:
    found = [
        f"{words}: {_say(first)} against {_say(second)}"
        for axis, words in _AXES.items()
        if (first := getattr(a, axis)) != (second := getattr(b, axis))
    ]
    if (a.positions == a.evaluate_with) != (b.positions == b.evaluate_with):
        found.append(f"positions at evaluation: {_evaluated(a)} against {_evaluated(b)}")
    if a.drop_first_patch != b.drop_first_patch:
        words = {True: "first patch dropped", False: "all patches"}
        found.append(f"patches: {words[a.drop_first_patch]} against {words[b.drop_first_patch]}")
    for name in a.own_stages.keys() & b.own_stages.keys():
        for key in Stage.model_fields:
            first, second = getattr(a.stages[name], key), getattr(b.stages[name], key)
            if first != second:
                found.append(f"{key} of {_STAGES[name]}: {_say(first)} against {_say(second)}")
    return found


def _encoders(a: ResolvedArm, b: ResolvedArm) -> list[str]:
    """Apart: weights, architecture, size, resolution, tokens and preparation, since each may move the result."""
    found = [f"pretrained weights: {a.encoder} against {b.encoder}"] if a.encoder != b.encoder else []
    words: list[str] = []
    if (a.encoder, a.image_size) != (b.encoder, b.image_size):
        words = _tower_words(a, b)
    named = {"architecture": [], "size of the encoder": [], "resolution": [], "preparation of pictures": []}
    for text in words:
        if text.startswith(_SIZE):
            named["size of the encoder"].append(text)
        elif text.startswith(_IMAGE):
            named["resolution"].append(text)
        elif text.startswith(_PREPARED):
            named["preparation of pictures"].append(text)
        elif not text.startswith(_SAID_BY_GRIDS):
            named["architecture"].append(text)
    found += [f"{name}: {'; '.join(texts)}" for name, texts in named.items() if texts]
    if a.grid != b.grid:
        found.append(f"patch tokens: {a.grid[0]} x {a.grid[1]} against {b.grid[0]} x {b.grid[1]}")
    return found


def _tower_words(a: ResolvedArm, b: ResolvedArm) -> list[str]:
    from blindspot.encoders import ENCODERS
    from blindspot.encoders.catalogue import describe
    from blindspot.encoders.catalogue import difference as differing

    towers: list[dict[str, Any]] = []
    for arm in (a, b):
        family = ENCODERS[arm.encoder_size.family]
        released = next((one for one in family.checkpoints if one.id == arm.encoder), None)
        if released is None:  # a folder of the user's own: its sizes say enough
            return (
                [f"image side in pixels: {a.image_size} against {b.image_size}"] if a.image_size != b.image_size else []
            )
        towers.append(describe(family, released.config(), arm.image_size))
    classes = [tower["transformers_class"] for tower in towers]
    head = [f"{classes[0]} against {classes[1]}"] if classes[0] != classes[1] else []
    return head + differing(*towers)


def _evaluated(arm: ResolvedArm) -> str:
    return "as trained" if arm.positions == arm.evaluate_with else f"{arm.evaluate_with.label} instead"


def _say(value: Any) -> str:
    if isinstance(value, Choice):
        return value.label
    if isinstance(value, list):
        return " + ".join(value)
    return str(getattr(value, "name", value) or getattr(value, "file", "its own"))
