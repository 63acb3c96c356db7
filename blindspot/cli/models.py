"""``blindspot ask``, ``localise``, ``diagnose``, ``export``, ``encoders`` and ``positions``: models, one by one."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from blindspot.cli.common import Boxes, DataRoot, Json, Model, Models, Picture, TrustRemoteCode, bars, option, told
from blindspot.errors import UserError, one_of
from blindspot.terminal import listing
from blindspot.text import clean

if TYPE_CHECKING:
    from blindspot.benchmarks.boxes import Box
    from blindspot.diagnostics.base import Photo
    from blindspot.evaluation.boxes import Finding

_LONGEST_SHOWN = 300


def ask(
    models: Models,
    image: Picture,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask one model or several about a picture.

    One model: its answer and nothing else. Several: a table, one answer a row.
    A model of the miniature knows a closed set of words; a word outside it is
    refused with the list.

    [bold]Examples[/bold]

      [cyan]blindspot ask runs/miniature/models/clip-learned-seed0 scene.png "red left-of blue"[/cyan]
      [cyan]blindspot ask runs/siglip2 runs/aimv2 ramen.jpg "Are the chopsticks left of the bowl?"[/cyan]
    """
    from blindspot.model import images

    images.refuse_elongated(images.open_image(image))
    from blindspot.evaluation.boxes import names, open_subject  # torch, which a mistake need not load

    answers: list[tuple[str, str]] = []
    for model, name in zip(models, names(models), strict=True):
        subject = open_subject(model, name, trust_remote_code)
        lines = subject.ask(image, question).raw.splitlines()  # which stay, without what moves a terminal's cursor
        answers.append((name, "\n".join(clean(line, len(line)) for line in lines)))
    if len(answers) == 1:
        print(answers[0][1])
        return
    table = listing("model", "answer", box=SIMPLE_HEAD)
    for name, answer in answers:
        table.add_row(Text(name), Text(answer or "(empty answer)"))
    Console().print(table)


def app(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL ...]", help="As of `ask`, or the address of a server.")
    ] = None,
    served: Annotated[str | None, option("Of a server: the model's name there.", "--model")] = None,
    runs: Annotated[Path, option("Where runs lie, whose pages are listed.")] = Path("runs"),
    data: DataRoot = None,
    device: Annotated[str, option("cpu, cuda, ...", default="a GPU if there is one")] = "auto",
    host: Annotated[str, option("Who may come: by default this machine alone.")] = "127.0.0.1",
    port: Annotated[int, option("Where.", min=1, max=65535)] = 8321,
) -> None:
    """Try models on a local web page: a picture, a question, and where in them the answer comes from.

    A picture of your own, or a drawn scene whose objects you move; every
    model's answer, also mirrored, blind and with sides exchanged in the
    question; likelihoods of options; boxes; attention and what the answer needs,
    over the picture. And the pages of the runs in a folder, while they run.

    [bold]Examples[/bold]

      [cyan]blindspot app runs/miniature/models/clip-learned-seed0 runs/miniature/models/clip-axial-seed0[/cyan]
      [cyan]blindspot app llava-hf/llava-1.5-7b-hf --device cuda[/cyan]
      [cyan]blindspot app http://127.0.0.1:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct[/cyan]
    """
    models = models or []
    addresses = [model for model in models if model.startswith(("http://", "https://"))]
    if addresses and served is None:
        raise UserError(f"{addresses[0]} may serve several models; name one with --model")
    if find_spec("nicegui") is None:
        raise UserError("the page needs NiceGUI; install it with: pip install '.[app]' -c constraints.txt")
    from blindspot.app.guests import Guest
    from blindspot.app.page import serve
    from blindspot.benchmarks.sources.download import data_root
    from blindspot.evaluation.boxes import names
    from blindspot.model.formats.folder import find

    for model in models:
        if model not in addresses:
            find(model)
    serve([Guest(model, name, served if model in addresses else None, device)
           for model, name in zip(models, names(models), strict=True)], runs, data_root(data), host, port)  # fmt: skip


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    form: Annotated[
        str,
        option(
            "[bold]llava-hf[/bold]: transformers opens it without Blindspot; [bold]llava[/bold]: the original "
            "LLaVA's layout; [bold]blindspot[/bold]: this program's own.",
            "--format",
        ),
    ] = "llava-hf",
) -> None:
    """Write a model in a format that another program reads.

    A model with a special positional scheme or connector has no other format
    than Blindspot's own; asked for another, the command says why.

    [bold]Examples[/bold]

      [cyan]blindspot export runs/miniature/models/clip-learned-seed0 out/clip[/cyan]
      [cyan]blindspot export liuhaotian/llava-v1.5-7b out/llava-hf --format llava-hf[/cyan]
    """
    from blindspot.model import load
    from blindspot.model.load import export as write

    load.quiet()
    write(model, out, form)
    print(f"Written: {out}")


def push(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="A run folder of a study or of blindspot train, or a model.")
    ],
    repo: Annotated[
        str | None, typer.Argument(metavar="REPO", help="ORGANISATION/NAME on the Hub; with --to optional.")
    ] = None,
    to: Annotated[Path | None, option("Write the same files to this new folder instead, without network.")] = None,
    arm: Annotated[str | None, option("Of a run folder with several models: the arm.")] = None,
    seed: Annotated[int | None, option("Likewise, the seed.")] = None,
    private: Annotated[
        bool, option("Make a new repository private; else it is as the Hub has it.", "--private")
    ] = False,
    licence: Annotated[
        str | None, option("The Hub's name of a licence.", "--license", default="the base models', where known")
    ] = None,
    message: Annotated[str, option("Of the commit.")] = "Upload a model of Blindspot",
) -> None:
    """Publish a model on the Hugging Face Hub, with a card made from its run.

    Weights, config, processor and README.md go there, and nothing else of the
    run. The card says how the arm was made and trained, what it scores with
    intervals and run noise, which scores are not told from guessing, and how
    to open it. Paths of this machine are taken out. The token is that of
    `hf auth login` or $HF_TOKEN.

    [bold]Examples[/bold]

      [cyan]blindspot push runs/small ME/siglip2-2d --arm siglip2-2d --seed 0 --private[/cyan]
      [cyan]blindspot push runs/miniature/models/clip-axial-seed0 --to out/clip-axial[/cyan]
    """
    from tempfile import TemporaryDirectory

    from blindspot.files import new_folder
    from blindspot.reporting.card import make_card
    from blindspot.reporting.hub import fill, find_model, refuse_repository, upload
    from blindspot.studies.sizes import licence as licence_of

    if repo is None and to is None:
        raise UserError("say where: REPO (ORGANISATION/NAME on the Hub), or --to FOLDER")
    if repo is not None:
        refuse_repository(repo, uploads=to is None)
    if to is not None and to.exists():
        raise UserError(f"{to} exists; name a new folder")
    model = find_model(run, arm, seed)
    card = make_card(model, repo or (to or run).name, licence_of, licence)
    if to is not None:
        with new_folder(to, "free the disk or name another folder") as folder:
            fill(model, card, folder)
        print(f"Written: {to}")
    elif repo is not None:
        with TemporaryDirectory() as temporary:
            fill(model, card, Path(temporary), link=True)
            print(f"Published: {upload(Path(temporary), repo, private, message, print)}")


def encoders(as_json: Json = False) -> None:
    """Print the image encoders: sizes, tokens, cost, conventions, released checkpoints."""
    from blindspot.encoders import catalogue

    rows = catalogue.rows()
    told(as_json, rows, lambda console: console.print(catalogue.as_table(rows), catalogue.as_conventions(), sep="\n"))


def positions(as_json: Json = False) -> None:
    """Print the positional schemes of both sites with their properties, measured now."""
    from blindspot.positions import properties

    rows = properties.rows()
    told(as_json, rows, lambda console: console.print(properties.as_table(rows)))


def localise(
    models: Models,
    image: Picture,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="What to find, in quotes.")],
    box: Annotated[
        str | None, option("The true box, x0,y0,x1,y1 in pixels of the picture: adds the overlap (IoU).")
    ] = None,
    prompt: Annotated[
        str | None, option("What to ask, {phrase} in place of the phrase.", default="the model family's own")
    ] = None,
    boxes: Boxes = None,
    out: Annotated[Path, option("The picture to write: .png, .pdf, .svg or .jpg.")] = Path("localised.png"),
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, option("Print the findings as JSON, for scripts.", "--json")] = False,
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
    from blindspot.benchmarks.boxes import CONVENTIONS, spelt
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
    Console().print(_table(findings, gold))
    print(f"Written: {out}")


def _table(findings: list["Finding"], gold: "Box | None") -> Table:
    from blindspot.benchmarks.boxes import shown

    table = listing("model", "answer", "in pixels", *(("IoU",) if gold else ()), "remarks", box=SIMPLE_HEAD)
    for finding in findings:
        first = finding.located.first
        cells = [finding.model, clean(finding.raw, _LONGEST_SHOWN), shown(first.numbers) if first else "-"]
        if gold:
            overlap = first and first.overlap(gold)
            inside = "inside" if first and first.hits(gold) else "outside"
            cells.append("-" if first is None else inside if overlap is None else f"{overlap:.2f}")
        table.add_row(*(Text(clean(cell, _LONGEST_SHOWN)) for cell in (*cells, "; ".join(finding.remarks))))
    return table


def diagnose(
    model: Model,
    out: Annotated[Path | None, option("Folder to write.", default="runs/diagnose/MODEL")] = None,
    only: Annotated[
        str | None, option("Names, comma-separated, instead of all diagnostics. An unknown name prints the list.")
    ] = None,
    stimuli: Annotated[int, option("Pictures for each thing that is measured.", min=16)] = 256,
    batch: Annotated[int, option("Pictures at a time.", min=1)] = 32,
    seed: Annotated[int, option("Of the pictures and everything random.")] = 0,
    device: Annotated[str, option("cpu, cuda, ...", default="a GPU if there is one")] = "auto",
    image: Annotated[Path | None, option("A picture of your own to look at, with --question.")] = None,
    question: Annotated[str | None, option("About that picture.")] = None,
    box: Annotated[
        str | None, option("What to look for in it, x0,y0,x1,y1 in its pixels: is it looked at, is it needed?")
    ] = None,
) -> None:
    """Show at which stage of a model spatial information is there, what its answers follow, and where it is lost.

    Works on drawn pictures, whose truth is known; models of the miniature are
    asked in their own words, others in English. May be interrupted: the same
    command goes on with the diagnostics that are not done.

    With --image and --question it looks at that picture instead: the answer, as
    it is, mirrored and blind; attention and rollout; which parts the answer
    needs; from which layer on it is there, and which tokens it must see.

    [bold]What it writes[/bold]

      [cyan]index.html[/cyan]      the page: the stage figure, maps, answers that flip
      [cyan]*.json, *.npz[/cyan]   numbers and pictures of each diagnostic
      [cyan]figures/[/cyan]        every figure as SVG and PDF, with the CSV behind it

    [bold]Examples[/bold]

      [cyan]blindspot diagnose runs/miniature/models/clip-axial-seed0[/cyan]
      [cyan]blindspot diagnose llava-hf/llava-1.5-7b-hf --only probes,attention --device cuda[/cyan]
      [cyan]blindspot diagnose MODEL --image photo.jpg --question "What is left of the cup?" --box 20,30,90,110[/cyan]
    """
    from blindspot.diagnostics.base import Budget
    from blindspot.diagnostics.registry import DIAGNOSTICS, PHOTO

    photo = _photo(image, question, box)
    if photo is not None and only is not None:
        raise UserError("--only chooses among diagnostics of drawn pictures; leave it out, or --image")
    names = list(DIAGNOSTICS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    if not names:
        raise UserError(f"--only names no diagnostic; name some of {', '.join(DIAGNOSTICS)}")
    for name in names:
        one_of(name, DIAGNOSTICS, "--only", "diagnostic")
    from blindspot.diagnostics.run import claim, open_vlm
    from blindspot.diagnostics.run import diagnose as run
    from blindspot.evaluation.models.local import weights_sha256
    from blindspot.files import locked
    from blindspot.model.load import quiet
    from blindspot.reporting.diagnosis import write_diagnosis

    quiet()
    folder = out or Path("runs/diagnose") / (Path(model).name + ("" if photo is None else f"-{photo.label}"))
    names = names if photo is None else [PHOTO]
    budget, console = Budget(stimuli, batch, seed, photo), Console()
    with locked(folder):
        with console.status(f"opening {model}"):
            vlm = open_vlm(model, device)
        left = claim(folder, model, weights_sha256(vlm.model)[:16], names, budget)
        with bars(TimeElapsedColumn()) as show:
            run(vlm, left, budget, folder, show)
    page, sentences = write_diagnosis(folder)
    for sentence in sentences:
        console.print(f"- {sentence}", highlight=False)
    print(f"The page: {page}")


def _photo(image: Path | None, question: str | None, box: str | None) -> "Photo | None":
    """The picture that is to be looked at, if one is."""
    if image is None:
        for value, name in ((question, "--question"), (box, "--box")):
            if value is not None:
                raise UserError(f"{name} is about a picture; name it with --image")
        return None
    if question is None:
        raise UserError("--image needs a question; say it with --question")
    from blindspot.benchmarks.boxes import spelt
    from blindspot.diagnostics.base import Photo
    from blindspot.model import images

    where = None if box is None else spelt(box)
    picture = images.open_image(image)
    images.refuse_elongated(picture)
    return Photo.of(image.name, picture, question, where)
