"""``blindspot benchmarks``, ``data``, ``scenes`` and ``doctor``: data, and what is on this machine."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from blindspot.cli.common import EXIT_USER, STATUS, DataRoot, Json, bars, option, told
from blindspot.errors import UserError, explained
from blindspot.terminal import listing

if TYPE_CHECKING:
    from blindspot.studies.schema import Study

data = typer.Typer(no_args_is_help=True, help="Look at training data in LLaVA's form; download benchmarks.")


def benchmarks(
    data: DataRoot = None,
    verify: Annotated[
        Path | None, option("A run of blindspot evaluate, put beside the published scores of its model.")
    ] = None,
    as_json: Annotated[bool, option("Print JSON instead of a table.", "--json")] = False,
) -> None:
    """List the benchmarks: questions, images, chance, licence, forms, and whether they are on this disk.

    Looked through are DATA/NAME, DATA itself for VLMEvalKit's TSV files, and
    the caches of Hugging Face. Nothing is downloaded.

    --verify says of each published score of the run's model whether it is inside
    the run's interval, outside, or not comparable, and why.

    [bold]Examples[/bold]

      [cyan]blindspot benchmarks[/cyan]
      [cyan]blindspot benchmarks --verify runs/eval/Qwen-Qwen3-VL-8B-Instruct[/cyan]
      [cyan]blindspot benchmarks --data ~/LMUData --json[/cyan]
    """
    from blindspot.benchmarks.registry import BENCHMARKS
    from blindspot.benchmarks.sources.download import data_root, locate

    if verify is not None:
        _verify(verify, as_json)
        return
    root = data_root(data)
    found: list[dict[str, Any]] = []
    for benchmark in BENCHMARKS.values():
        place = locate(benchmark, root)
        said = {name: getattr(benchmark, name) for name in ("name", "title", "licence", "citation")}
        forms = [
            {name: getattr(source, name) for name in ("form", "repository", "files", "page", "counts")}
            for source in benchmark.sources
        ]
        metrics = {"chance": benchmark.metrics[0].chance, "metrics": [metric.name for metric in benchmark.metrics]}
        found.append(
            said
            | metrics
            | {"forms": forms, "on_disk": "drawn" if benchmark.draw else None if place is None else str(place)}
        )
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    table = listing("name !", "title", "questions >", "images >", "chance >", "on this disk", box=SIMPLE_HEAD)
    for facts in found:
        counts = (_counted(facts, "questions"), _counted(facts, "images"))
        chance = "" if facts["chance"] is None else f"{facts['chance']:.3f}"
        table.add_row(facts["name"], facts["title"], *counts, chance, escape(facts["on_disk"] or "no"))
    Console().print(table)
    for facts in found:
        forms = []
        for form in facts["forms"]:
            urls = [name for name in form["files"] if "://" in name]
            forms.append(f"{form['form']} {form['repository'] or (urls[0] if urls else form['page'])}")
        print(f"{facts['name']}: {'; '.join(forms)}; licence {facts['licence']}")
    print(f"\nLooked in {root} and the caches of Hugging Face; to download: blindspot data get NAME")


def _verify(run: Path, as_json: bool) -> None:
    from blindspot.evaluation.scores.show import print_verification
    from blindspot.evaluation.scores.verify import verify

    found = verify(run)
    told(as_json, found, lambda console: print_verification(found, console))


def _counted(facts: dict[str, Any], name: str) -> str:
    """The published number, with the forms' names where they differ or are silent."""
    numbers = {form["form"]: form["counts"][name] for form in facts["forms"] if name in form["counts"]}
    if len(set(numbers.values())) <= 1:
        return f"{next(iter(numbers.values())):,}" if numbers else "?"
    return "\n".join(f"{form} {number:,}" for form, number in numbers.items())


@data.command(epilog=STATUS)
def check(
    json_path: Annotated[Path, typer.Argument(metavar="JSON", help="An array of rows, or one row a line.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="The folder that image paths are relative to.")],
    out: Annotated[Path | None, option("Where to write the whole report, as JSON.")] = None,
    tokenizer: Annotated[
        Path | None, option("A tokenizer's folder; without one, lengths are estimated from words.")
    ] = None,
    template: Annotated[str, option("[bold]v1[/bold] (stage 2) or [bold]plain[/bold] (stage 1).")] = "v1",
    max_length: Annotated[int, option("Tokens that are kept of a row.", min=1)] = 2048,
    image_tokens: Annotated[int, option("Tokens that an image takes.", min=1)] = 256,
) -> None:
    """Read every row and the header of every image; say what is missing, broken, too long or without a label.

    Exit status 2 if there are rows that cannot be trained on.

    [bold]Examples[/bold]

      [cyan]blindspot data check llava_v1_5_mix665k.json data/ --out report.json[/cyan]
    """
    from blindspot.training.llava import check as checking
    from blindspot.training.llava.check import as_table

    with bars(transient=True) as show:
        found = checking.check(json_path, images, out, tokenizer, template, max_length, image_tokens, report=show)
    Console().print(as_table(found))
    if any(found["faults"].values()):
        raise typer.Exit(EXIT_USER)


@data.command(epilog=STATUS)
def get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A benchmark of `blindspot benchmarks`, or a study of real size.")
    ],
    root: DataRoot = None,
    form: Annotated[
        str | None, option("[bold]tsv[/bold] (VLMEvalKit), [bold]hub[/bold] (Hugging Face) or [bold]original[/bold].")
    ] = None,
) -> None:
    """Download a benchmark, or all that a study of real size needs. Broken off, the same command continues.

    What is on this disk already is not downloaded again, so that this also
    works without a network. Of a study that is data, checkpoints and
    benchmarks: their sizes are listed first.

    [bold]Examples[/bold]

      [cyan]blindspot data get vsr[/cyan]
      [cyan]blindspot data get gqa --form hub --data /scratch/benchmarks[/cyan]
      [cyan]blindspot data get paper --data /scratch[/cyan]
    """
    from blindspot.benchmarks.registry import BENCHMARKS, find
    from blindspot.benchmarks.sources.download import data_root
    from blindspot.benchmarks.sources.download import get as download
    from blindspot.studies.loading import load_study, shipped_studies

    if name in shipped_studies() or (name not in BENCHMARKS and name.endswith((".yaml", ".yml"))):
        if form:
            raise UserError(f"--form {form}: is of a single benchmark; of a study's the preferred forms are taken")
        _get_all(load_study(name), data_root(root))
        return
    with bars(transient=True) as show:
        place, before = download(find(name), data_root(root), form, show)
    print(f"{'Already there' if before else 'Written'}: {place}")


def _get_all(study: "Study", root: Path) -> None:
    from blindspot.studies.budget import plan
    from blindspot.studies.budget_show import needed
    from blindspot.studies.needs import fetch, to_download

    if study.recipe == "toy":
        raise UserError(f"study {study.name} draws what it reads; only studies of real size need data")
    with explained(f"--data: cannot make {root}", advice="choose another folder"):
        root.mkdir(parents=True, exist_ok=True)
    console = Console()
    needs = plan(study, data_root=root).needs
    console.print(needed(needs))
    (downloads, most), free = to_download(needs, root), shutil.disk_usage(root).free
    said = f"{decimal(round(downloads))} to download, which takes at most {decimal(round(most))} with archives, beside"
    console.print(f"{said} benchmarks; {decimal(free)} are free in {root}.", markup=False, soft_wrap=True)
    if most > free:
        raise UserError(
            f"what is missing takes about {decimal(round(most))} and the disk of {root} has {decimal(free)} free; free "
            "some, or name another folder with --data"
        )
    missing = fetch(study, root, lambda command: console.print(f"$ {command}", markup=False, soft_wrap=True))
    for line in missing:
        console.print(f"missing: {line}", markup=False, soft_wrap=True)
    if missing:
        raise UserError(f"{len(missing)} of the things that {study.name} needs are still missing, as listed; try again")
    print(f"All there: {root}")


def scenes(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; absent or empty.")],
    n: Annotated[int, option("About how many pictures.", "--n")] = 1000,
    split: Annotated[
        str,
        option(
            "[bold]train[/bold], [bold]test[/bold], or [bold]compositional[/bold]: "
            "a test about colours and shapes that training never combines."
        ),
    ] = "test",
    seed: Annotated[int, option("Another seed is another draw.")] = 0,
    png: Annotated[bool, option("Every picture as a PNG file, questions in metadata.jsonl.", "--png")] = False,
    world: Annotated[
        str,
        option(
            "[bold]flat[/bold]; [bold]solid[/bold], with depth, ids, boxes and captions; or [bold]motion[/bold], "
            "several pictures a question."
        ),
    ] = "flat",
    size: Annotated[int, option("Of worlds with depth: pixels along a side.", min=32)] = 448,
    cue: Annotated[str, option("Of worlds with depth: what tells it, as in blindspot evaluate.")] = "shadow",
) -> None:
    """Write drawn scenes as a Hugging Face datasets folder, to be used without Blindspot.

    Pictures, scene graphs and questions with answers; the README.md in the
    folder says what every field is and how to load it.

    [bold]Examples[/bold]

      [cyan]blindspot scenes data/scenes[/cyan]
      [cyan]blindspot scenes data/scenes-train --n 20000 --split train[/cyan]
      [cyan]blindspot scenes data/solids --world solid --size 336[/cyan]
    """
    from blindspot.scenes.export import export

    with Console().status(f"drawing {n} scenes"):
        export(out, n, split, seed, png, world, cue, size)
    print(f"Written: {out}; its README.md says how to load it")


def doctor(as_json: Json = False) -> None:
    """Look at what is installed, at the devices and the disk; say what is missing and how to mend it."""
    from blindspot import doctor

    checks = doctor.report()
    told(as_json, doctor.as_json(checks), lambda console: console.print(doctor.as_table(checks)))
    if not doctor.works(checks):
        raise typer.Exit(EXIT_USER)
