"""``blindspot evaluate``, ``score``, ``compare``, ``paper`` and ``serve``: answers and what they are worth."""

import json
import os
from collections.abc import Sequence
from functools import partial
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
    from blindspot.evaluation.run.opening import Opened

_CHECKED = 64
"""Questions of each benchmark that ``--check-batch`` asks twice."""


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
    from blindspot.evaluation.prompts import PROFILES
    from blindspot.evaluation.run.folder import default_folder
    from blindspot.evaluation.run.opening import open_model
    from blindspot.evaluation.run.questions import Condition
    from blindspot.evaluation.run.runner import prepare, why_unanswered
    from blindspot.evaluation.run.terminal import bars, show_plan

    rules = scoring_profile(profile, thinking).rules
    one_of(prompts, ("auto", *PROFILES), "--prompts", "prompt profile")
    if boxes is not None:
        one_of(boxes, CONVENTIONS, "--boxes", "convention")
    condition = Condition(blind, swap_options, likelihood)
    if profile == "likelihood" and not likelihood:
        raise UserError("--profile likelihood reads likelihoods, which are only asked for with --likelihood")
    chosen = select(benchmarks)
    if not any(benchmark.name in rules for benchmark in chosen):
        raise UserError(f"none of --benchmarks {benchmarks} is defined in {profile}; choose another --profile")

    folder = out or default_folder(served or model, prompts, condition, limit)
    first = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=as_json, quiet=not first)
    server = {"key_env": key_env, "concurrency": concurrency, "per_minute": rate}
    local = {"dtype": dtype, "device": device, "batch": batch, "trust_remote_code": trust_remote_code}
    opening = partial(open_model, model, chosen, recorded, served, adapter, boxes, server, local)
    with console.status("reading the benchmarks, opening the model"):
        evaluation = prepare(chosen, data_root(data), opening, prompts, condition, limit)
    if show_prompts or check_batch:
        show = _show_prompts if show_prompts else _check_batch
        for asked in evaluation.preview(show_prompts or _CHECKED):
            show(console, evaluation.opened, asked)
        return
    if first:
        show_plan(console, evaluation, profile, folder)
    with bars(console) as report:
        unanswered = evaluation.run(folder, report)
    if first:
        _print_scores(folder, profile, thinking, as_json)
        if unanswered:
            raise UserError(why_unanswered(folder, unanswered))


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


def _print_scores(folder: Path, profile: str, thinking: str, as_json: bool) -> None:
    from blindspot.evaluation.scores.report import score_run
    from blindspot.evaluation.scores.show import print_scores

    if any(folder.glob("*/answers.jsonl")):
        scores = score_run(folder, profile, thinking)
        if as_json:
            print(json.dumps(scores, indent=1, ensure_ascii=False))
        else:
            print_scores(scores, Console())


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
    from blindspot.evaluation.scores.answers import scored_rows
    from blindspot.evaluation.scores.report import score as score_answers
    from blindspot.evaluation.scores.show import print_scores

    every = profile == "all"
    scores = score_answers(answers, DEFAULT if every else profile, thinking)
    if as_json:
        rows = scored_rows(answers, PROFILES if every else (profile,), thinking)
        items = [row if every else row[profile] for row in rows]
        # ASCII, as answers may hold what a terminal cannot show.
        print(json.dumps({"summary": scores, "items": items}, allow_nan=False))
    else:
        print_scores(scores, Console(), profiles_only=every)


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
    from blindspot.evaluation.scores.show import print_comparison

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
    from blindspot.evaluation.paper import report
    from blindspot.evaluation.scores.show import print_paper

    found = report()
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_paper(found, Console())


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
