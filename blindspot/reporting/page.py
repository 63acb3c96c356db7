"""The page of a study, from ``results.json``, figures and test images; all pages are of one base and self-contained."""

import base64
import hashlib
import io
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.errors import UserError
from blindspot.files import fingerprint, parse_json, sha256_file, write_json, write_text
from blindspot.reporting.results import VERSION, collect
from blindspot.reporting.run import MOST_ARMS, RunPlan, as_made, load_plan, stage_name
from blindspot.reporting.tables import arms_of, asked_on, columns_of, tables_of, told, write_tables
from blindspot.text import clean, data_uri, points, signed

PACKAGE = Path(__file__).parents[1]
Row = dict[str, Any]
PICTURES = Path("report") / "pictures"
MADE = Path("report") / "made.json"
"""Fingerprint of the code, of what a report was made from and of what it consists of."""
LIBRARIES = ("matplotlib", "numpy", "scipy")
_DRAWN_WIDTH = 256
_MOST_COMPARED = 3


def write_report(run: Path) -> Path:
    """Write ``tables/``, ``report/figures/`` and ``report/index.html`` from ``results.json``; returns the page.

    Collects the results first where ``results.json`` is missing or of another version. What draws is loaded here.
    """
    from blindspot.diagnostics.registry import plots_of
    from blindspot.reporting.diagnosis import follows, load_arms
    from blindspot.reporting.drawing import write_figures
    from blindspot.reporting.figures import hues, study_figures

    results, plan = _stored(run) or collect(run), load_plan(run)
    images_nhwc = _images(run, plan)
    write_tables(run, results)
    diagnosed = load_arms(run, plan)
    of_arms = plots_of("probes").of_arms(diagnosed)
    figures = write_figures([*study_figures(results), *([of_arms] if of_arms else [])], run / "report" / "figures")
    followed, arms = follows(diagnosed), arms_of(results)
    columns = {column.id: column for column in columns_of(results)}
    scenes, boxes = (
        [
            pick | {"picture": _picture(_file(run, columns[pick["column"]].asks, pick), images_nhwc, pick)}
            for pick in results[name]
        ]
        for name in ("gallery", "localisation")
    )
    compared = list(dict.fromkeys(f"{pair['first']} with {pair['second']}" for pair in results["pairs"]
                                  if pair["kind"] != "replicate"))  # fmt: skip
    if len(compared) > _MOST_COMPARED:
        compared = [*compared[:_MOST_COMPARED], f"{len(compared) - _MOST_COMPARED} more"]
    opening = next((pick for pick in scenes if pick["picture"] and columns[pick["column"]].english), None)
    if opening:  # with the first right answer and the first wrong one; with the first two if there is no such pair
        answers = opening["answers"]
        pair = [next((one for one in answers if (one["score"] == 1) == right), None) for right in (True, False)]
        opening = opening | {"answers": pair if all(pair) else answers[:2]}
    html = render(
        "page.html.j2",
        results=results,
        about=plan.about,
        columns=columns,
        asked={
            row["column"]: " and ".join(own.name for own in plan.meant(row["column"])) for row in results["hypotheses"]
        },
        relatives=asked_on(list(columns.values())),
        compared=compared,
        opening=opening,
        arms={arm.id: arm for arm in arms},
        hues=hues(arms),
        stages=[
            {"id": stage, "name": stage_name(stage), "tables": tables_of(results, stage)}
            for stage in reversed(results["stages"])
        ],
        told=told,
        figures=figures,
        follows=followed,
        most=MOST_ARMS,
        factors=list(dict.fromkeys(factor for row in followed for factor in row["shares"])),
        scenes=scenes,
        boxes=boxes,
        unseen=sum(pick["picture"] is None for pick in [*scenes, *boxes]),
    )
    page = run / "report" / "index.html"
    write_text(page, html)
    return page


def kept_report(run: Path) -> dict[str, Any] | None:
    """The results of a run whose report needs no remaking; None if its steps, its files or the code have changed."""
    try:
        made = parse_json((run / MADE).read_text(encoding="utf-8"))
        return _stored(run) if made == _made(run) else None
    except (OSError, ValueError):
        return None


def keep_report(run: Path) -> None:
    """Record that the report of a run was just made, from new results."""
    write_json(run / MADE, _made(run))


def render(template: str, **values: Any) -> str:
    """A template of this folder as HTML, or as Markdown. Everything that came from a model, a question or a study is
    escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        finalize=_in_markdown if template.endswith(".md.j2") else None,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    tied = {
        "tied": lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%"),
        "cell": lambda text: text.replace("|", "\\|"),
    }
    environment.filters |= {"points": points, "signed": signed, "rectangle": _rectangle, "sha256": _sha256} | tied
    return environment.get_template(template).render(**values)


def _in_markdown(value: Any) -> Any:
    """Text without HTML, which Markdown may hold; what is markup already stays."""
    return escape(value, quote=False) if type(value) is str else value


def _sha256(script: str) -> str:
    """The checksum by which a page's security policy knows the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _made(run: Path) -> dict[str, Any]:
    patterns = ("plan.json", "results.json", "steps/*/done.json", "tables/*", "report/**/*")
    parts = [(run, pattern) for pattern in patterns] + [(PACKAGE, "**/*.py"), (PACKAGE, "**/*.j2")]
    checksums = {
        f"{path.relative_to(root)}": sha256_file(path)
        for root, pattern in parts  # the engine holds the files of each step against its done.json
        for path in root.glob(pattern)
        if path.is_file() and path != run / MADE
    }
    return {"fingerprint": fingerprint([checksums, {name: version(name) for name in LIBRARIES}])}


def _stored(run: Path) -> dict[str, Any] | None:
    try:
        results = parse_json((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("version") == VERSION else None


def _images(run: Path, plan: RunPlan) -> np.ndarray:
    """The test images that questions name by number, read when they are looked at."""
    if not plan.data:  # pictures of published benchmarks stay where they are
        return np.empty((0, 1, 1, 3), np.uint8)
    path = run / plan.data.get("test", "") / "test_images.npy"
    try:
        return np.load(as_made(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the test images {path}: {clean(str(error), 120)}; run the study again") from error


def wanted_pictures(run: Path, results: Row) -> dict[Path, tuple[str, str, int]]:
    """The pictures of published benchmarks that the page shows where their files are there: what they are of.

    That is the benchmark, the digest of its data, and the key of the picture in these.
    """
    asks = {column.id: column.asks for column in columns_of(results)}
    picks = [*results["gallery"], *results["localisation"]]
    return {path: (asks[pick["column"]], pick["digest"], pick["image"])
            for pick in picks if (path := _file(run, asks[pick["column"]], pick))}  # fmt: skip


def _file(run: Path, benchmark: str, pick: Row) -> Path | None:
    """Where the picture of a published benchmark is kept, small."""
    if not pick["digest"] or pick["image"] is None:
        return None
    return run / PICTURES / f"{benchmark}-{pick['digest'][:12]}-{pick['image']}.jpg"


def _picture(file: Path | None, images_nhwc: np.ndarray, pick: Row) -> Row | None:
    """A data URI with the size to draw it at, or None where a question has no such image or it is not at hand."""
    from PIL import Image

    if file:
        return {"source": data_uri(file.read_bytes(), "image/jpeg"), "photo": True} if file.is_file() else None
    number = pick["image"]
    if not isinstance(number, int) or not 0 <= number < len(images_nhwc):
        return None
    image_hwc = np.ascontiguousarray(images_nhwc[number])
    buffer = io.BytesIO()
    Image.fromarray(image_hwc).save(buffer, format="PNG", optimize=True)
    high, wide = image_hwc.shape[:2]
    uri = data_uri(buffer.getvalue(), "image/png")
    return {"source": uri, "width": _DRAWN_WIDTH, "height": round(_DRAWN_WIDTH * high / wide), "photo": False}


def _rectangle(box: list[float] | None, units: list[float]) -> dict[str, float] | None:
    """A box as ``x, y, width, height`` in hundredths of the image's width, cut to a little beyond its edges."""
    if box is None:
        return None
    wide, high = units
    x0, y0, x1, y1 = (
        float(np.clip(100 * edge / wide, -5, 100 * side / wide + 5))
        for edge, side in zip(box, (wide, high) * 2, strict=True)
    )
    return {"x": round(x0, 2), "y": round(y0, 2), "width": round(x1 - x0, 2), "height": round(y1 - y0, 2)}
