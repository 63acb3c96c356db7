"""AdaptVis and ScalingVis: answers when the last token looks at the picture more sharply, or less.

After arXiv 2503.01773: scores of the last query on the picture's tokens are multiplied by alpha in every layer.
ScalingVis: one alpha. AdaptVis: a small alpha where the model is unsure, a large one where it is sure. What multiplying
does depends on the sign of a score, and so on a constant that the softmax does not see; the shift-invariant form scales
the distance to the picture's highest score instead.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget, Row, Table, against, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import attending
from blindspot.diagnostics.core.stimuli import answers, directions, statements

Form = Literal["published", "shift-invariant"]
FORMS: tuple[Form, ...] = get_args(Form)
ALPHAS = (0.5, 0.8, 1.2, 1.5, 2.0)
UNSURE, SURE, THRESHOLD = 0.5, 1.5, 0.4
"""AdaptVis as its authors run it on pictures of two objects."""
TASKS = {"direction": directions, "statement": statements}
_NOTES = (
    "Intervals: Wilson; differences to the model as it is are paired, with McNemar's exact p.",
    f"AdaptVis: alpha {UNSURE} where the likeliest first token has a probability below {THRESHOLD}, else {SURE}; the "
    "row says the mean.",
    "Published: scores times alpha. Shift-invariant: distance to the picture's highest score times alpha.",
)


def growth(scores_bhk: Tensor, image_bk: Tensor, form: Form) -> Tensor:
    """Derivative of the last query's scores by alpha at alpha 1, shape (batch, heads, keys); 0 outside the picture."""
    outside_b1k = ~image_bk[:, None]
    if form == "shift-invariant":
        highest = scores_bhk.masked_fill(outside_b1k, float("-inf")).amax(dim=-1, keepdim=True)
        scores_bhk = scores_bhk - highest
    return scores_bhk.masked_fill(outside_b1k, 0)


@contextmanager
def scaled(vlm: HookedVLM, prepared: Prepared, alpha_b: Tensor, form: Form) -> Iterator[None]:
    """Let the last token's scores on the picture be scaled in every layer while the block lasts."""

    def add(_: int, scores_bhk: Tensor) -> Tensor:
        return (alpha_b.to(scores_bhk.device)[:, None, None] - 1) * growth(scores_bhk, prepared.image_bt, form)

    with attending(vlm.roles.layers, add=add):
        yield


def scaling(vlm: HookedVLM, budget: Budget, step: Callable[[], None]) -> Table:
    """Accuracy under every alpha, and under AdaptVis."""
    rows: list[Row] = []
    for task, draw in TASKS.items():
        stimuli = draw(budget.stimuli, budget.seed, vlm.speech)
        found: dict[tuple[str, Form | None, float | None], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for prepared in vlm.batches(stimuli, budget.batch):
            plain = vlm.run(prepared)
            found["none", None, 1.0].append((plain.choices_b, torch.ones_like(plain.sure_b)))
            alphas = {("ScalingVis", alpha): torch.full_like(plain.sure_b, alpha) for alpha in ALPHAS}
            sharper_b = torch.where(plain.sure_b < THRESHOLD, UNSURE, SURE)
            for form, ((method, alpha), alpha_b) in product(FORMS, [*alphas.items(), (("AdaptVis", None), sharper_b)]):
                with scaled(vlm, prepared, alpha_b, form):
                    found[method, form, alpha].append((vlm.run(prepared).choices_b, alpha_b))
        truth_b, plain_b = answers(stimuli), None
        for (method, form, _), parts in found.items():
            chosen_b, alpha_b = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
            right_b = chosen_b == truth_b
            plain_b = right_b if plain_b is None else plain_b
            rows.append({"task": task, "method": method, "form": form, "alpha": float(alpha_b.mean()),
                         **share(right_b), **against(right_b, plain_b)})  # fmt: skip
        step()
    return Table("scaling", "Accuracy when the last token's attention to the picture is scaled", rows, _NOTES)
