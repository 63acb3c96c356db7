"""``blindspot localise``: where is it, asked of one model or several."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blindspot.cli.options import Boxes, Models, Picture, TrustRemoteCode
from blindspot.cli.status import one_line_errors
from blindspot.text import clean

if TYPE_CHECKING:
    from blindspot.benchmarks.boxes import Box
    from blindspot.evaluation.boxes import Finding

_LONGEST_SHOWN = 300


def localise(
    models: Models,
    image: Picture,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="What to find, in quotes.")],
    box: Annotated[
        str | None, typer.Option(help="The true box, x0,y0,x1,y1 in pixels of the picture: adds the overlap (IoU).")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What to ask, {phrase} in place of the phrase. [dim]\\[default: the model family's own][/dim]"
        ),
    ] = None,
    boxes: Boxes = None,
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .pdf, .svg or .jpg.")] = Path("localised.png"),
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for scripts.")] = False,
) -> None:
    """Ask models where something is, and draw their boxes side by side.

    Each model is asked and read as its family writes boxes: numbers from 0 to
    1 (LLaVA), pixels of the resized picture (Qwen2.5-VL), 0 to 1000 with y
    first (Gemma 3), <loc> tokens (PaliGemma), points (Molmo), words (the
    miniature). All end up in pixels of the picture, whatever padding, cropping
    and resizing lie between. Of several boxes the first one counts. A model of
    another family is refused unless --boxes says how it writes them.

    [bold]Examples[/bold]

      [cyan]blindspot localise llava-hf/llava-1.5-7b-hf photo.jpg "the cup with green liquid"[/cyan]
      [cyan]blindspot localise runs/siglip2 runs/aimv2 photo.jpg "the cup" --box 204,31,459,355[/cyan]
      [cyan]blindspot localise runs/miniature/models/clip-learned-seed0 scene.png red[/cyan]
    """
    with one_line_errors():
        from blindspot.benchmarks.boxes import CONVENTIONS, spelt
        from blindspot.errors import UserError, one_of
        from blindspot.model import images

        if boxes is not None:
            one_of(boxes, CONVENTIONS, "--boxes", "convention")
        gold = None if box is None else spelt(box)
        picture = images.open_image(image)
        images.refuse_elongated(picture)
        # torch, which a mistake need not load
        from blindspot.evaluation.boxes import PHRASE, find, names, open_subject
        from blindspot.evaluation.boxes_figure import draw, refuse_suffix

        refuse_suffix(out)
        if prompt is not None and PHRASE not in prompt:
            raise UserError(f"the prompt {prompt[:60]!r} has no {PHRASE} in it, which stands for what is looked for")
        findings = [
            find(open_subject(model, name, trust_remote_code, boxes), image, phrase, prompt)
            for model, name in zip(models, names(models), strict=True)
        ]
        draw(picture, phrase, findings, out, gold)
        if as_json:
            rows = [finding.to_dict(gold) for finding in findings]
            print(json.dumps({"image": str(image), "phrase": phrase, "box": gold, "models": rows}, indent=1))
            return
        console = Console()
        console.print(_table(findings, gold))
        console.print(f"Written: {out}", soft_wrap=True, highlight=False, markup=False)


def _table(findings: list["Finding"], gold: "Box | None") -> Table:
    from blindspot.benchmarks.boxes import shown

    table = Table(box=SIMPLE_HEAD)
    for heading in ("model", "answer", "in pixels", *(("IoU",) if gold else ()), "remarks"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        first = finding.located.first
        cells = [finding.model, clean(finding.raw, _LONGEST_SHOWN), shown(first.numbers) if first else "-"]
        if gold:
            overlap = first and first.overlap(gold)
            inside = "inside" if first and first.hits(gold) else "outside"
            cells.append("-" if first is None else inside if overlap is None else f"{overlap:.2f}")
        table.add_row(*(Text(clean(cell, _LONGEST_SHOWN)) for cell in (*cells, "; ".join(finding.remarks))))
    return table
