"""Self-contained HTML pages, all from one base; that of a study, from ``results.json``, figures and test images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from blindspot.errors import UserError
from blindspot.reporting.drawing import data_uri
from blindspot.reporting.figures import hues
from blindspot.reporting.findings import asked_on, stage_name
from blindspot.reporting.plan import Plan, as_made
from blindspot.reporting.tables import (
    arms_of,
    columns_of,
    difference_table,
    part_difference_table,
    part_score_table,
    score_table,
)
from blindspot.reporting.text import clean, points, signed

_DRAWN_WIDTH = 256
_MOST_COMPARED = 3


def render(template: str, **values: Any) -> str:
    """A template of this folder as HTML. Everything that came from a model, a question or a study is escaped."""
    # For every extension: the templates end in .j2.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    tied = {"tied": lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")}
    environment.filters |= {"points": points, "signed": signed} | tied
    return environment.get_template(template).render(**values)


class Images:
    """The test images of a run, read one at a time.

    Raises:
        UserError: if they cannot be read.
    """

    def __init__(self, run: Path, plan: Plan) -> None:
        self._images_nhwc = np.empty((0, 1, 1, 3), np.uint8)
        if not plan.data:  # pictures of published benchmarks stay where they are
            return
        path = run / plan.data.get("test", "") / "test_images.npy"
        try:
            self._images_nhwc = np.load(as_made(path), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot read the test images {path}: {clean(str(error), 120)}; run the study again"
            ) from error

    def picture(self, number: Any) -> dict[str, Any] | None:
        """A data URI with the size to draw it at, or None where a question has no such image."""
        if not isinstance(number, int) or not 0 <= number < len(self._images_nhwc):
            return None
        image_hwc = np.ascontiguousarray(self._images_nhwc[number])
        buffer = io.BytesIO()
        Image.fromarray(image_hwc).save(buffer, format="PNG", optimize=True)
        height, width = image_hwc.shape[:2]
        return {
            "source": data_uri(buffer.getvalue(), "png"),
            "width": _DRAWN_WIDTH,
            "height": round(_DRAWN_WIDTH * height / width),
        }


def render_page(
    images: Images, results: dict[str, Any], figures: dict[str, dict[str, Any]], follows: list[dict[str, Any]]
) -> str:
    """The page as HTML. Everything that came from a model, a question or a study is escaped.

    Args:
        images: the test images that questions name by number.
        results: ``results.json``.
        figures: from ``write_figures``, by name.
        follows: what answers follow, arm by arm, where the study was diagnosed.
    """
    arms, columns = arms_of(results), columns_of(results)
    columns_by = {column.id: column for column in columns}
    scenes = [pick | {"picture": images.picture(pick["image"])} for pick in results["gallery"]]
    opening = [pick for pick in scenes if pick["picture"] and columns_by[pick["column"]].english]
    boxes = [pick | {"picture": images.picture(pick["image"])} for pick in results["localisation"]]
    for pick in boxes:
        pick["rectangle"] = _rectangle(pick["box"], pick["units"])
        pick["answers"] = [
            answer | {"rectangle": _rectangle(answer["box"], pick["units"])} for answer in pick["answers"]
        ]
    return render(
        "page.html.j2",
        results=results,
        columns=columns_by,
        relatives=asked_on(columns),
        compared=_compared(results["pairs"]),
        opening=opening[0] | {"answers": _two_sides(opening[0]["answers"])} if opening else None,
        arms={arm.id: arm for arm in arms},
        hues=hues(arms),
        stages=[_stage(results, stage) for stage in reversed(results["stages"])],
        figures=figures,
        follows=follows,
        factors=list(dict.fromkeys(factor for row in follows for factor in row["shares"])),
        scenes=[pick for pick in scenes if pick["picture"]],
        boxes=[pick for pick in boxes if pick["picture"]],
    )


def _two_sides(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first right answer and the first wrong one; the first two if there is no such pair."""
    pair = [next((one for one in answers if (one["score"] == 1) == right), None) for right in (True, False)]
    return [one for one in pair if one] if all(pair) else answers[:2]


def _compared(pairs: list[dict[str, Any]]) -> list[str]:
    """What the study compares, in words; of many comparisons the first."""
    found = list(
        dict.fromkeys(f"{pair['first']} with {pair['second']}" for pair in pairs if pair["kind"] != "replicate")
    )
    return found if len(found) <= _MOST_COMPARED else [*found[:_MOST_COMPARED], f"{len(found) - _MOST_COMPARED} more"]


def _stage(results: dict[str, Any], stage: str) -> dict[str, Any]:
    return {
        "id": stage,
        "name": stage_name(stage),
        "scores": score_table(results, stage, "iid"),
        "compositional": score_table(results, stage, "compositional"),
        "parts": part_score_table(results, stage),
        "differences": difference_table(results, stage),
        "part_differences": part_difference_table(results, stage),
    }


def _rectangle(box: list[float] | None, units: float) -> dict[str, float] | None:
    """A box as ``x, y, width, height`` in hundredths of the image, cut to a little beyond its edges."""
    if box is None:
        return None
    x0, y0, x1, y1 = (float(np.clip(100 * edge / units, -5, 105)) for edge in box)
    return {"x": round(x0, 2), "y": round(y0, 2), "width": round(x1 - x0, 2), "height": round(y1 - y0, 2)}
