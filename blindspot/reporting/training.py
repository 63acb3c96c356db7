"""A page about training runs of real size: curves of loss and throughput, what it cost, what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, PositiveFloat, ValidationError

from blindspot.errors import UserError, objection
from blindspot.files import LOG, parse_json, write_text
from blindspot.plots import HUES, Figure, Key, Lines, Panel, Series, stroke
from blindspot.reporting.drawing import write_figures
from blindspot.reporting.page import render
from blindspot.reporting.tables import as_csv
from blindspot.text import clean

RECORD = "run.json"
DRAWN_POINTS = 400
"""Points of a curve; with more rows, each is the mean of its neighbours."""
_PANELS = (("loss", "loss, nats a token"), ("tokens_per_second", "tokens a second"), ("grad_norm", "gradient norm"))
_RECIPE = ("arm", "stage", "seed", "batch", "lr", "encoder_lr", "frozen", "precision", "batching", "data", "samples")
_SHOWN_ROWS = 50
_MOST_TOLD = 3


class LeftOut(BaseModel):
    """A row of the data that was not trained on."""

    row: int
    id: Any = ""
    why: str


class LoggedStep(BaseModel):
    """A row of the log; what is not for ``curves.csv`` stands last."""

    step: int
    loss: FiniteFloat
    lr: float
    grad_norm: FiniteFloat
    tokens: int
    supervised_tokens: int
    seconds: PositiveFloat
    data_seconds: float
    tokens_per_second: float
    padding: float
    tflops_per_device: float
    mfu: float | None
    memory_gib: float
    steps: int = Field(exclude=True)
    seconds_left: float = Field(exclude=True)
    skipped: list[LeftOut] = Field(default_factory=list, exclude=True)


@dataclass(frozen=True)
class Trained:
    """One log: its folder below the run folder, ``run.json``, and its rows."""

    name: str
    record: dict[str, Any]
    rows: list[LoggedStep]

    @property
    def skipped(self) -> list[LeftOut]:
        """The rows of the data that were not trained on, each once."""
        found = {one.row: one for row in self.rows for one in row.skipped}
        return [found[number] for number in sorted(found)]

    @property
    def loss(self) -> float:
        """The mean of the last twentieth of the steps."""
        return fmean(row.loss for row in self.rows[-max(1, len(self.rows) // 20) :])

    def summary(self) -> dict[str, Any]:
        """Numbers of the whole run."""
        rows, last = self.rows, self.rows[-1]
        seconds = sum(row.seconds for row in rows)
        computed = sum(row.tokens / (1 - row.padding) if row.padding < 1 else 0.0 for row in rows)
        mfu = [row.mfu for row in rows if row.mfu is not None]
        return {
            "name": self.name,
            "step": last.step,
            "steps": last.steps,
            "loss": self.loss,
            "tokens_per_second": median(row.tokens_per_second for row in rows),
            "supervised_per_second": sum(row.supervised_tokens for row in rows) / seconds,
            "padding": 1 - sum(row.tokens for row in rows) / max(computed, 1),
            "waiting": sum(row.data_seconds for row in rows) / seconds,
            "mfu": median(mfu) if mfu else None,
            "memory_gib": max(row.memory_gib for row in rows),
            "hours": seconds / 3600,
            "hours_left": last.seconds_left / 3600,
            "skipped": len(self.skipped),
        }


def is_training_run(run: Path) -> bool:
    """Whether ``run`` is what ``blindspot train`` writes: a stage's folder, an arm's, or that of a study's arms."""
    return bool(_folders(run))


def write_training_page(run: Path) -> Path:
    """Write ``report/index.html``, which is returned, ``curves.csv`` and ``figures/training.svg`` (``.pdf``, ``.csv``).

    Runs that are still going on are shown as far as they are.
    """
    trained = [one for folder in _folders(run) if (one := _read(run, folder)).rows]
    if not trained:
        raise UserError(f"{run} has no training log with a step in it ({LOG} beside {RECORD}); train something first")
    folder = run / "report"
    rows = [{"run": one.name} | row.model_dump() for one in trained for row in one.rows]
    write_text(folder / "curves.csv", as_csv(rows))
    recipes = []
    for one in trained:
        said = {key: one.record.get(key) for key in _RECIPE}
        lists = {key: ", ".join(map(str, value)) for key, value in said.items() if isinstance(value, list)}
        texts = {key: "" if value is None else clean(str(value), 120) for key, value in (said | lists).items()}
        recipes.append({"name": one.name} | texts)
    skipped = [
        {"name": one.name, "row": row.row, "id": clean(str(row.id), 60), "why": clean(row.why, 200)}
        for one in trained
        for row in one.skipped[:_SHOWN_ROWS]
    ]
    page = render(
        "training.html.j2",
        title=clean(run.resolve().name),
        runs=[one.summary() for one in trained],
        recipes=recipes,
        recipe_keys=_RECIPE,
        drawn=write_figures([_figure(trained)], folder / "figures")["training"],
        hues=[HUES[number % len(HUES)] for number in range(len(trained))],
        skipped=skipped,
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _folders(run: Path) -> list[Path]:
    folders = [run, *sorted(run.glob("*")), *sorted(run.glob("*/*"))]
    return [folder for folder in folders if (folder / LOG).is_file() and (folder / RECORD).is_file()]


def _read(run: Path, folder: Path) -> Trained:
    try:
        record = dict(parse_json((folder / RECORD).read_text(encoding="utf-8")))
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the training run in {folder}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(LoggedStep.model_validate(parse_json(line)))
        except ValidationError as error:
            told = f"{folder / LOG}:{number}: {objection(error, 'the row')}; train it again"
            raise UserError(told) from error
        except ValueError:  # being written, or cut off by a kill
            break
    return Trained(clean(run.resolve().name if folder == run else str(folder.relative_to(run))), record, rows)


def _figure(trained: Sequence[Trained]) -> Figure:
    panels: list[list[Panel]] = []
    behind: list[dict[str, Any]] = []
    for number, (key, words) in enumerate(_PANELS):
        series = []
        for which, one in enumerate(trained):
            steps, values = [row.step for row in one.rows], [getattr(row, key) for row in one.rows]
            if len(values) <= DRAWN_POINTS:
                series.append(Series(steps, values, alpha=0.3, width=0.8, **stroke(which)))
            # Means of at least ten neighbours, or as many as make DRAWN_POINTS; of fewer where there are few rows.
            size = max(-(-len(values) // DRAWN_POINTS), min(10, max(1, len(values) // 10)))
            parts = [slice(start, start + size) for start in range(0, len(values), size)]
            thinned = [(fmean(steps[part]), fmean(values[part])) for part in parts]
            series.append(Series([x for x, _ in thinned], [y for _, y in thinned], width=1.5, **stroke(which)))
            behind += [{"run": one.name, "what": words, "step": x, "mean": y} for x, y in thinned]
        last = number == len(_PANELS) - 1
        panels.append([Lines(series=series, y_label=words, y_limits=(0 if number == 1 else None, None), grid="y",
                             log=last, x_label="optimiser step" if last else "")])  # fmt: skip
    fell = "fell" if all(one.loss < one.rows[0].loss for one in trained) else "went"
    moves = [f"from {one.rows[0].loss:.2f} to {one.loss:.2f}" for one in trained]
    if len(trained) > 1:
        moves = [f"{move} ({one.name})" for move, one in zip(moves, trained, strict=True)]
    title = f"Loss {fell} {' and '.join(moves)}"
    if len(trained) > _MOST_TOLD:
        low, high = (pick(trained, key=lambda one: one.loss) for pick in (min, max))
        ends = f"lowest in {low.name} ({low.loss:.2f}), highest in {high.name} ({high.loss:.2f})"
        title = f"Of {len(trained)} runs, loss is {ends}"
    legend = [Key(one.name, **stroke(number)) for number, one in enumerate(trained)]
    return Figure("training", title, "Light: each step; dark: mean of neighbouring steps.", panels, behind, 6.7,
                  share="x", legend=legend, legend_columns=3)  # fmt: skip
