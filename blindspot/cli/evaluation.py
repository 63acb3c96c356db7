"""``blindspot evaluate``, ``score``, ``compare``, ``paper`` and ``serve``: answers and what they are worth."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from blindspot.cli.common import Batch, Boxes, DataRoot, Json, Model, Thinking, TrustRemoteCode
from blindspot.errors import UserError, one_of
from blindspot.text import clean

if TYPE_CHECKING:
    from blindspot.evaluation.base import Asked
    from blindspot.evaluation.run import Condition, Opened, Outcome

_CHECKED = 64
"""Questions of each benchmark that ``--check-batch`` asks twice."""

_TOLD = ("model", "file", "address", "weights_sha256", "sha256", "dtype", "device", "attention")
"""What of an answerer's identity is printed; run.json has all of it."""


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model folder of any format or a Hugging Face id; the address of a server (http://...); "
            "with --recorded a file of answers.",
        ),
    ],
    benchmarks: Annotated[
        str,
        typer.Option(
            help="Names, comma-separated, and sets: [bold]spatial[/bold], [bold]general[/bold], [bold]paper[/bold], "
            "[bold]all[/bold]; blindspot benchmarks lists them."
        ),
    ] = "spatial",
    data: DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder. [dim]\\[default: runs/eval/MODEL, or -CONDITION behind it][/dim]", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="[bold]auto[/bold] (the model family's own), [bold]llava[/bold] (its official evaluation), "
            "[bold]paper[/bold] (what the paper's code sent), [bold]plain[/bold], or a family's name."
        ),
    ] = "auto",
    profile: Annotated[
        str,
        typer.Option(help="Rules that answers are scored by; the table shows all side by side, this one first."),
    ] = "vlmevalkit-2025-09",
    thinking: Thinking = "harness",
    limit: Annotated[
        int | None, typer.Option(help="Only so many questions of each benchmark, drawn by a fixed seed.", min=1)
    ] = None,
    batch: Batch = 32,
    check_batch: Annotated[
        bool, typer.Option("--check-batch", help="Only compare answers in batches with answers one by one.")
    ] = False,
    show_prompts: Annotated[
        int | None, typer.Option(help="Only print so many prompts of each benchmark, as the model gets them.", min=1)
    ] = None,
    blind: Annotated[
        str | None,
        typer.Option(
            help="Without the picture: [bold]none[/bold] at all, a [bold]grey[/bold] one of its size, or "
            "[bold]shuffled[/bold], another question's."
        ),
    ] = None,
    swap_options: Annotated[
        bool, typer.Option("--swap-options", help="Show lettered options in reverse order.")
    ] = False,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="The family that MODEL is asked as. [dim]\\[default: that of its model_type, or of its name on a "
            "server][/dim]",
            show_default=False,
        ),
    ] = None,
    boxes: Boxes = None,
    likelihood: Annotated[
        bool, typer.Option("--likelihood", help="Ask how likely each allowed answer is, where they are few.")
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(help="auto (on a GPU what the family is published with, else the checkpoint's), bfloat16, ..."),
    ] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ... [dim]\\[default: a GPU if there is one][/dim]")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    served: Annotated[str | None, typer.Option("--model", help="Of a server: the model's name there.")] = None,
    concurrency: Annotated[int, typer.Option(help="Of a server: most requests under way.", min=1)] = 16,
    rate: Annotated[float | None, typer.Option(help="Of a server: most requests a minute.")] = None,
    key_env: Annotated[
        str, typer.Option(help="Of a server: the environment variable that holds the key, if it needs one.")
    ] = "OPENAI_API_KEY",
    recorded: Annotated[bool, typer.Option("--recorded", help="MODEL is a file of answers to one benchmark.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON, for scripts.")] = False,
) -> None:
    """Put benchmarks to a model and print its scores beside the paper's.

    Killed at any moment, the same command goes on: no question is lost, none is
    asked twice, and the files are the same. What a server failed on is asked
    again by the same command. Under torchrun the pictures are shared out.

    [bold]What it writes[/bold] into the run folder:

      [cyan]run.json[/cyan]             model, hash of its weights, prompts, data, versions
      [cyan]NAME/answers.jsonl[/cyan]   every raw answer, to score again with blindspot score
      [cyan]scores.json[/cyan]          every number of the table

    [bold]Examples[/bold]

      [cyan]blindspot evaluate llava-hf/llava-1.5-7b-hf --benchmarks spatial --prompts paper[/cyan]
      [cyan]blindspot evaluate runs/s2/model --benchmarks mmvp,vsr --blind grey[/cyan]
      [cyan]blindspot evaluate MODEL --benchmarks gqa --show-prompts 3[/cyan]
      [cyan]torchrun --nproc-per-node 8 -m blindspot evaluate MODEL --benchmarks all[/cyan]
      [cyan]blindspot evaluate http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct[/cyan]
      [cyan]blindspot evaluate answers.jsonl --recorded --benchmarks vsr[/cyan]
    """
    from blindspot.benchmarks.boxes import CONVENTIONS
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.scoring import profile as scoring_profile
    from blindspot.benchmarks.sources.download import data_root
    from blindspot.evaluation import prompts as prompt_profiles
    from blindspot.evaluation import run
    from blindspot.evaluation.boxes import asking_for_boxes, with_form

    rules = scoring_profile(profile, thinking).rules
    one_of(prompts, ("auto", *prompt_profiles.PROFILES), "--prompts", "prompt profile")
    if boxes is not None:
        one_of(boxes, CONVENTIONS, "--boxes", "convention")
    condition = run.Condition(blind, swap_options, likelihood)
    if profile == "likelihood" and not likelihood:
        raise UserError("--profile likelihood reads likelihoods, which are only asked for with --likelihood")
    chosen = select(benchmarks)
    if not any(benchmark.name in rules for benchmark in chosen):
        raise UserError(f"none of --benchmarks {benchmarks} is defined in {profile}; choose another --profile")
    folder = out or run.default_folder(served or model, prompts, condition, limit)
    first = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=as_json, quiet=not first)
    with console.status("reading the benchmarks"):
        places, collections = run.open_data(chosen, data_root(data))
    with console.status("opening the model"):
        if recorded and adapter:
            raise UserError("--adapter says how a model is asked, and recorded answers are there already")
        if recorded:
            opened = run.open_recorded(Path(model), chosen, boxes)
        elif model.startswith(("http://", "https://")):
            settings = {"key_env": key_env, "concurrency": concurrency, "per_minute": rate}
            opened = run.open_api(model, served, settings, adapter, boxes)
        else:
            opened = run.open_local(model, dtype, device, batch, trust_remote_code, adapter, boxes)
        name = opened.prompts if prompts == "auto" else prompts
        ask = asking_for_boxes(prompt_profiles.profile(name))
        collections = [with_form(collection, opened.form) for collection in collections]
    if show_prompts or check_batch:
        for collection in collections:
            asked = run.preview(collection, ask, condition, show_prompts or _CHECKED)
            _show_prompts(console, opened, asked) if show_prompts else _check_batch(console, opened, asked)
        return
    if first:
        with console.status("hashing the weights"):
            facts = _facts(opened, name, profile, condition, limit, folder)
        run.show_plan(console, facts, collections, places)
    with run.Bars(console) as bars:
        outcome = run.evaluate(
            opened.answerer,
            collections,
            folder,
            prompts=ask,
            prompt_profile=name,
            adapter=opened.adapter,
            condition=condition,
            limit=limit,
            report=bars,
        )
    if first:
        _print_scores(outcome, profile, thinking, as_json)


def _facts(
    opened: "Opened", prompts: str, profile: str, condition: "Condition", limit: int | None, folder: Path
) -> dict[str, str]:
    told = {name: str(value) for name, value in opened.answerer.identity.items() if name in _TOLD}
    changes = [f"{name} {value}" for name, value in condition.to_dict().items() if value]
    return {
        "model": ", ".join(value[:12] if name.endswith("sha256") else value for name, value in told.items()),
        **({"asked as": opened.adapter} if opened.adapter else {}),
        "prompts": prompts,
        "scored as": profile,
        "departs": ", ".join(changes) or "nothing",
        **({"limit": f"{limit:,} questions of each benchmark, drawn by a fixed seed"} if limit else {}),
        "run folder": str(folder),
    }


def _show_prompts(console: Console, opened: "Opened", asked: Sequence["Asked"]) -> None:
    for one in asked:
        pictures = ", ".join(one.picture_keys) or "none"
        title = f"question {clean(one.id)}, pictures {pictures}, at most {one.prompt.longest} tokens"
        console.rule(Text(title), align="left")
        shown = "\n".join(map(clean, opened.render(one.prompt).split("\n")))
        console.print(Text.assemble(shown, ("<end of prompt>", "dim")), soft_wrap=True)


def _check_batch(console: Console, opened: "Opened", asked: Sequence["Asked"]) -> None:
    if opened.check_batch is None:
        raise UserError("--check-batch is for a model on this machine; a server makes its own batches")
    differing = opened.check_batch(asked)
    for line in differing:
        console.print(Text(line), soft_wrap=True)
    console.print(f"{len(asked)} questions: {len(differing) or 'none'} answered otherwise one by one", highlight=False)


def _print_scores(outcome: "Outcome", profile: str, thinking: str, as_json: bool) -> None:
    from blindspot.evaluation import run
    from blindspot.evaluation.scores.report import score_run
    from blindspot.evaluation.scores.show import as_table

    if run.anything_finished(outcome.folder):
        scores = score_run(outcome.folder, profile, thinking)
        if as_json:
            print(json.dumps(scores, indent=1, ensure_ascii=False))
        else:
            as_table(scores, Console())
    if outcome.unanswered:
        raise UserError(run.why_unanswered(outcome.folder, outcome.unanswered))


def score(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="An answers.jsonl, or a run folder.")],
    profile: Annotated[
        str, typer.Option(help="Whose rules: a profile's name, or [bold]all[/bold] for all of them side by side.")
    ] = "vlmevalkit-2025-09",
    thinking: Thinking = "harness",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: a summary and every score.")] = False,
) -> None:
    """Score raw answers again, without a model.

    Profiles: vlmevalkit-2025-09 (the paper's), vlmevalkit-2026-08,
    lmms-eval-0.7.3, official (each benchmark's own script) and likelihood
    (the likeliest option, nothing parsed). None of them asks a judge or draws
    at random: the same answers always score the same.

    A benchmark gets its own metric, over pairs and groups where it has them;
    rows that do not make it up, or of no benchmark that is known here, get
    their mean, and are called so. --json prints the numbers of scores.json as
    "summary", and as "items" what was extracted from each row and its score.

    [bold]Examples[/bold]

      [cyan]blindspot score runs/eval/llava/gqa/answers.jsonl[/cyan]
      [cyan]blindspot score runs/eval/llava --profile official --json > official.json[/cyan]

    What the comparison of strings alone does to a result:

      [cyan]blindspot score runs/eval/llava --profile all[/cyan]
    """
    from blindspot.benchmarks.scoring import DEFAULT, PROFILES
    from blindspot.evaluation.scores.report import score as score_answers
    from blindspot.evaluation.scores.runs import scored_rows
    from blindspot.evaluation.scores.show import as_table

    every = profile == "all"
    scores = score_answers(answers, DEFAULT if every else profile, thinking)
    if as_json:
        rows = scored_rows(answers, PROFILES if every else (profile,), thinking)
        items = [row if every else row[profile] for row in rows]
        # ASCII, as answers may hold what a terminal cannot show.
        print(json.dumps({"summary": scores, "items": items}, allow_nan=False))
    else:
        as_table(scores, Console(), profiles_only=every)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="Run folders of blindspot evaluate, or answers.jsonl files.")
    ],
    profile: Annotated[
        str, typer.Option(help="Scoring profile; blindspot score --help lists them.")
    ] = "vlmevalkit-2025-09",
    details: Annotated[bool, typer.Option("--all", help="Every metric, not only the overall ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts: every metric.")] = False,
) -> None:
    """Compare runs on the questions that they share.

    Every later run is compared with the first: two models, a blind run with
    a sighted one, options in another order. Where one question stands for
    one picture the test is McNemar's, exact; elsewhere whole pictures or
    pairs are resampled. Holm's correction runs over all overall scores shown.
    Differences in prompts, settings or data are said, never passed over.

    [bold]Examples[/bold]

      [cyan]blindspot compare runs/eval/clip runs/eval/aimv2[/cyan]
      [cyan]blindspot compare runs/eval/clip runs/eval/clip-blind-grey --all[/cyan]
      [cyan]blindspot compare a/gqa/answers.jsonl b/gqa/answers.jsonl --profile official --json[/cyan]
    """
    from blindspot.evaluation.scores.compare import compare as compare_runs
    from blindspot.evaluation.scores.compare_show import print_comparison

    found = compare_runs(runs, profile)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_comparison(found, Console(), details)


def paper(as_json: Json = False) -> None:
    """Print the paper's tables with intervals, chance, and which differences exceed the noise.

    Needs no model and no data: everything follows from the printed numbers
    and the sizes of the benchmarks.

    [bold]Examples[/bold]

      [cyan]blindspot paper[/cyan]
      [cyan]blindspot paper --json[/cyan]
    """
    from blindspot.evaluation.paper.report import report
    from blindspot.evaluation.paper.show import print_report

    found = report()
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_report(found, Console())


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    batch: Batch = 32,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; by default the folder's.")] = None,
) -> None:
    """Serve a model to other programs, as OpenAI's chat completions.

    Questions that arrive together are answered in one batch, greedily. Pictures
    are taken as data URLs; nothing is fetched from elsewhere. What would change
    an answer and is not done here (sampling, tools, several turns) is refused.
    There is no key: keep it on this machine, or behind something that has one.

    Ctrl-C stops it when the batch under way is answered; twice, at once.

    [bold]Examples[/bold]

      [cyan]blindspot serve runs/miniature/models/clip-learned-seed0[/cyan]
      [cyan]blindspot serve llava-hf/llava-1.5-7b-hf --port 8001 --batch 32[/cyan]

    and from another terminal, or from any client of that protocol:

      [cyan]curl http://127.0.0.1:8000/v1/models[/cyan]
    """
    from blindspot.evaluation.serving.server import run

    run(model, host, port, batch, name)
