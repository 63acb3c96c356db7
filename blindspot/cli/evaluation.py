"""``blindspot evaluate``, ``score``, ``compare``, ``audit``, ``paper``, ``serve``: answers and what they are worth."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from blindspot.cli.common import Batch, Boxes, DataRoot, Json, Model, Thinking, TrustRemoteCode, bars, option, told
from blindspot.errors import UserError, one_of
from blindspot.text import clean

if TYPE_CHECKING:
    from blindspot.benchmarks.base import Collection
    from blindspot.evaluation.base import Asked
    from blindspot.evaluation.run.opening import Opened

_CHECKED = 64
"""Questions of each benchmark that ``--check-batch`` asks twice."""
_SCENES = 400
"""Questions of each column of the drawn scenes that are audited."""


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
        option(
            "Names, comma-separated, and sets: [bold]spatial[/bold], [bold]general[/bold], [bold]paper[/bold], "
            "[bold]all[/bold]; blindspot benchmarks lists them. Or a file of your own questions (my.jsonl)."
        ),
    ] = "spatial",
    data: DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; by default runs/eval/MODEL, or -CONDITION behind it.", show_default=False),
    ] = None,
    prompts: Annotated[
        str,
        option(
            "[bold]auto[/bold] (the model family's own), [bold]llava[/bold] (its official evaluation), "
            "[bold]paper[/bold] (what the paper's code sent), [bold]plain[/bold], or a family's name."
        ),
    ] = "auto",
    profile: Annotated[
        str, option("Rules that answers are scored by; the table shows all side by side, this one first.")
    ] = "vlmevalkit-2025-09",
    thinking: Thinking = "harness",
    limit: Annotated[
        int | None, option("Only so many questions of each benchmark, drawn by a fixed seed.", min=1)
    ] = None,
    batch: Batch = 32,
    check_batch: Annotated[bool, option("Only compare batches with one by one.", "--check-batch")] = False,
    show_prompts: Annotated[
        int | None, option("Only print so many prompts of each benchmark, as the model gets them.", min=1)
    ] = None,
    blind: Annotated[
        str | None,
        option(
            "Without the picture: [bold]none[/bold] at all, a [bold]grey[/bold] one of its size, or "
            "[bold]shuffled[/bold], another question's."
        ),
    ] = None,
    swap_options: Annotated[bool, option("Reverse the order of lettered options.", "--swap-options")] = False,
    max_tokens: Annotated[
        int | None, option("Most tokens of an answer.", default="what the prompts' harness allows", min=1)
    ] = None,
    temperature: Annotated[
        float | None, option("Draw answers at this temperature.", default="the likeliest token each time")
    ] = None,
    top_p: Annotated[float | None, option("Draw from the likeliest tokens that together are so likely.")] = None,
    samples: Annotated[
        int | None, option("Answers drawn for each question: their mean, pass@N and majority.", min=1)
    ] = None,
    seed: Annotated[int, option("Of answers and benchmarks that are drawn, and of [bold]--blind shuffled[/bold].")] = 0,
    think: Annotated[
        str | None,
        option("[bold]on[/bold] or [bold]off[/bold]: think before answering.", default="as the model's template"),
    ] = None,
    tiles: Annotated[
        str | None,
        option(
            "[bold]on[/bold] or [bold]off[/bold]: cut pictures into tiles, which Gemma 3 calls pan and scan.",
            *("--tiles", "--pan-and-scan"),
            default="as the model's processor",
        ),
    ] = None,
    size: Annotated[
        int | None, option("Of benchmarks that are drawn: pixels along a side; by default 448.", min=1)
    ] = None,
    cue: Annotated[
        str | None,
        option(
            "Of benchmarks that are drawn: what tells depth, [bold]shadow[/bold] (the default), size, occlusion, "
            "[bold]none[/bold] (a control) or naive."
        ),
    ] = None,
    adapter: Annotated[
        str | None, option("The family that MODEL is asked as; by default that of its model_type or name.")
    ] = None,
    boxes: Boxes = None,
    likelihood: Annotated[
        bool, option("Ask how likely each allowed answer is, where they are few.", "--likelihood")
    ] = False,
    dtype: Annotated[
        str,
        option("auto (on a GPU what the family is published with, else the checkpoint's), bfloat16, ..."),
    ] = "auto",
    device: Annotated[str | None, option("cpu, cuda, cuda:1, ...; by default a GPU if there is one.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    served: Annotated[str | None, option("Of a server: the model's name there.", "--model")] = None,
    more_servers: Annotated[
        list[str] | None, option("Of a server: a further address of the same model.", "--server")
    ] = None,
    engine: Annotated[
        str | None,
        option("Of a server: [bold]vllm[/bold] or [bold]sglang[/bold], for options of their own."),
    ] = None,
    guided: Annotated[
        bool, option("Of an engine: let it say one of the allowed answers, where they are few.", "--guided")
    ] = False,
    max_pixels: Annotated[
        int | None, option("Of vLLM: most pixels that its processor leaves of a picture.", min=1)
    ] = None,
    pictures_first: Annotated[bool, option("Of a server: send pictures before all words.", "--pictures-first")] = False,
    concurrency: Annotated[int, option("Of a server: most requests under way.", min=1)] = 16,
    rate: Annotated[float | None, option("Of a server: most requests a minute.")] = None,
    key_env: Annotated[str, option("Of a server: the environment variable of its key.")] = "OPENAI_API_KEY",
    recorded: Annotated[bool, option("MODEL is a file of answers to one benchmark.", "--recorded")] = False,
    as_json: Json = False,
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
      [cyan]blindspot evaluate MODEL --benchmarks solid --cue none --seed 1[/cyan]
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
    from blindspot.evaluation.run.terminal import bars as question_bars
    from blindspot.evaluation.run.terminal import show_plan

    rules = scoring_profile(profile, thinking).rules
    one_of(prompts, ("auto", *PROFILES), "--prompts", "prompt profile")
    if boxes is not None:
        one_of(boxes, CONVENTIONS, "--boxes", "convention")
    generation = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "samples": samples}
    switches = {"think": think, "tiles": tiles, "guided": guided or None}
    condition = Condition(blind, swap_options, likelihood, seed, **generation, **switches, size=size, cue=cue)
    if (samples or top_p) and temperature is None and not recorded:
        raise UserError("--samples and --top-p are about answers that are drawn; say at which --temperature, as 0.7")
    if profile == "likelihood" and not likelihood:
        raise UserError("--profile likelihood reads likelihoods, which are only asked for with --likelihood")
    chosen = select(benchmarks)
    if not any((benchmark.name if benchmark.place is None else "text") in rules for benchmark in chosen):
        raise UserError(f"none of --benchmarks {benchmarks} is defined in {profile}; choose another --profile")
    folder = out or default_folder(served or model, prompts, condition, limit)
    first = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=as_json, quiet=not first)
    server = {"key_env": key_env, "concurrency": concurrency, "per_minute": rate, "others": more_servers or ()}
    server |= {"engine": engine, "guided": guided, "pictures_first": pictures_first}
    server["processor"] = {"max_pixels": max_pixels} if max_pixels else {}
    if not model.startswith(("http://", "https://")) and (
        more_servers or engine or guided or max_pixels or pictures_first
    ):
        raise UserError("--server, --engine, --guided, --max-pixels and --pictures-first are of servers; MODEL is none")
    local = {"dtype": dtype, "device": device, "batch": batch, "trust_remote_code": trust_remote_code}
    local |= {"tiles": tiles, "think": think}
    opening = partial(open_model, model, chosen, recorded, served, adapter, boxes, server, local, samples or 1)
    with console.status("reading the benchmarks, opening the model"):
        evaluation = prepare(chosen, data_root(data), opening, prompts, condition, limit)
    if show_prompts or check_batch:
        show = _show_prompts if show_prompts else _check_batch
        for asked in evaluation.preview(show_prompts or _CHECKED):
            show(console, evaluation.opened, asked)
        return
    if first:
        show_plan(console, evaluation, profile, folder)
    with question_bars(console) as report:
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
        str, option("Whose rules: a profile's name, or [bold]all[/bold] for all of them side by side.")
    ] = "vlmevalkit-2025-09",
    thinking: Thinking = "harness",
    as_json: Annotated[bool, option("Print one JSON object: a summary and every score.", "--json")] = False,
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
    profile: Annotated[str, option("Scoring profile; blindspot score --help lists them.")] = "vlmevalkit-2025-09",
    details: Annotated[bool, option("Every metric, not only the overall ones.", "--all")] = False,
    as_json: Annotated[bool, option("Print JSON, for scripts: every metric.", "--json")] = False,
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
    told(as_json, found, lambda console: print_comparison(found, console, details))


def audit(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK",
            help="A benchmark, or [bold]scenes[/bold], the drawn ones; or a published table: TABLE.csv, models by "
            "benchmarks.",
        ),
    ],
    data: Annotated[
        Path | None,
        option("Where benchmarks lie, or the benchmark's own file or folder.", default="$BLINDSPOT_DATA, or data"),
    ] = None,
    out: Annotated[
        Path | None,
        option("Where results and page go; of a table page and LaTeX.", default="runs/audit/BENCHMARK; a table: none"),
    ] = None,
    together: Annotated[
        str,
        option(
            "What no two folds share: [bold]pictures[/bold], or [bold]templates[/bold], for what holds of new ones."
        ),
    ] = "pictures",
    model: Annotated[
        str | None,
        option(
            "A model's folder or Hugging Face id, of text alone or of pictures too: how far it gets without pictures "
            "and without learning.",
            default="none",
        ),
    ] = None,
    baseline: Annotated[
        str | None, option("Of a table: the model that others are compared with.", default="every pair")
    ] = None,
    n: Annotated[
        str, option("Of a table: questions by column, [bold]NAME=NUMBER,...[/bold]; a row named n does too.", "--n")
    ] = "",
    design_effect: Annotated[
        float, option("Of a table: how many questions of a benchmark that is not known here are one.", min=1)
    ] = 1,
    as_json: Json = False,
) -> None:
    """Say how far the words of a benchmark go without its pictures; or what a published table can tell apart.

    Rules that see questions and options alone are learned on four fifths of
    its questions and scored on the last fifth: which answer is right most
    often, overall, in a template, of an option; a random forest; and the
    likeliest answers of a language model, where --model names one. Each has an
    interval; with permuted answers all must come out at chance. Needs no
    picture and no GPU. Broken off, the same command continues.

    Of a table: which differences exceed the sample of questions after Holm's
    correction, with bounds for what it does not say (which questions share a
    picture, which of them two models both answer).

    [bold]Examples[/bold]

      [cyan]blindspot audit vsr --data ~/benchmarks[/cyan]
      [cyan]blindspot audit mmsi --together templates[/cyan]
      [cyan]blindspot audit scenes[/cyan]
      [cyan]blindspot audit blink --model Qwen/Qwen2.5-0.5B-Instruct[/cyan]
      [cyan]blindspot audit table.csv --baseline LLaVA-1.5 --n MyBench=800 --out audited[/cyan]
    """
    from blindspot.evaluation.audit import TOGETHER, ask_blind
    from blindspot.evaluation.audit import audit as audit_benchmark
    from blindspot.evaluation.scores.show import print_audit
    from blindspot.reporting.audit import write_audit

    if benchmark.endswith(".csv"):
        if (data, together, model) != (None, TOGETHER[0], None):
            raise UserError(f"audit {benchmark}: --data, --together and --model are of a benchmark; leave them out")
        _audit_table(Path(benchmark), n, design_effect, baseline, out, as_json)
        return
    if (baseline, n, design_effect) != (None, "", 1):
        raise UserError("--baseline, --n and --design-effect are of a published table, TABLE.csv; leave them out")
    one_of(together, TOGETHER, "--together", "grouping")
    collection = _blind(benchmark, data)
    words = [benchmark, *([together] if together != TOGETHER[0] else ())]
    if model:
        from blindspot.evaluation.run.folder import default_folder
        from blindspot.evaluation.run.questions import AS_PUBLISHED

        words.append(default_folder(model, "auto", AS_PUBLISHED, None).name)
    folder = out or Path("runs") / "audit" / "-".join(words)
    with bars(transient=True) as show:
        said = ask_blind(collection, model, folder / "asked", show) if model else None
        metrics = collection.benchmark.metrics
        found = audit_benchmark(benchmark, collection.questions, metrics, folder, together, show, said)
    page = write_audit(folder, found)
    told(as_json, found, lambda console: print_audit(found, console))
    if not as_json:
        print(f"The page: {page}")


def _audit_table(
    path: Path, n: str, design_effect: float, baseline: str | None, out: Path | None, as_json: bool
) -> None:
    from blindspot.evaluation.published import audit_table
    from blindspot.evaluation.scores.show import print_table_audit
    from blindspot.reporting.audit import write_table_audit

    pairs = [each.rpartition("=") for each in n.split(",") if each.strip()]
    if wrong := [
        name or count for name, _, count in pairs if not name or not count.strip().isdigit() or int(count) < 1
    ]:
        raise UserError(f"--n {wrong[0]}: expected is NAME=NUMBER, several of them separated by commas")
    found = audit_table(path, {name.strip(): int(count) for name, _, count in pairs}, design_effect, baseline)
    page = write_table_audit(out, found) if out else None
    told(as_json, found, lambda console: print_table_audit(found, console))
    if page and not as_json:
        print(f"The page: {page}")


def _blind(name: str, data: Path | None) -> "Collection":
    """A benchmark, or the drawn scenes as one, without need of its pictures."""
    from blindspot.benchmarks.base import Benchmark, Collection, Metric, Pictures, Term
    from blindspot.benchmarks.registry import BENCHMARKS
    from blindspot.benchmarks.sources.download import data_root, locate
    from blindspot.scenes.sampling import test_questions

    one_of(name, (*BENCHMARKS, "scenes"), "audit", "benchmark")
    if name == "scenes":
        if data is not None:
            raise UserError("audit scenes --data: the scenes are drawn; leave --data out")
        _, drawn = test_questions("iid", _SCENES, 0)
        drawn = [replace(one, groups={**one.groups, "column": one.benchmark}) for one in drawn]
        columns = dict.fromkeys(one.benchmark for one in drawn)
        metrics = [Metric(column, (Term({"column": column}),), None) for column in columns]
        scenes = Benchmark(name, "drawn scenes", "", "", (), (Metric("overall", (Term(),), None), *metrics))
        return Collection(scenes, "drawn", tuple(drawn), Pictures(Path.read_bytes), (), f"{_SCENES} a column, seed 0")
    benchmark, root = BENCHMARKS[name], data_root(data)
    place = root if root.is_file() else locate(benchmark, root) or root
    return benchmark.read(place, blind=True)


def paper(
    runs: Annotated[
        Path | None,
        option("A miniature's run folder: how many seeds the differences need if training is as noisy.", "--runs"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the paper's tables with intervals, chance, and which differences exceed the noise.

    Needs no model and no data: everything follows from the printed numbers
    and the sizes of the benchmarks. With --runs also from a miniature's noise.

    [bold]Examples[/bold]

      [cyan]blindspot paper[/cyan]
      [cyan]blindspot paper --json[/cyan]
      [cyan]blindspot paper --runs runs/miniature[/cyan]
    """
    from blindspot.evaluation.paper import report
    from blindspot.evaluation.scores.show import print_paper

    if runs is not None:
        from blindspot.reporting.power import print_signs, signs_told

        found, show = signs_told(runs), print_signs
    else:
        found, show = report(), print_paper
    told(as_json, found, lambda console: show(found, console))


def serve(
    model: Model,
    host: Annotated[str, option("Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, option("0: any that is free.", min=0, max=65535)] = 8000,
    batch: Batch = 32,
    name: Annotated[str | None, option("The model's name for clients; by default the folder's.")] = None,
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
