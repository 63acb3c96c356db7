"""A page about training runs of real size: curves of loss and throughput, what it cost, what was left out."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blindspot.errors import UserError
from blindspot.files import write_text
from blindspot.reporting.figure_style import GREY, HUES, LIGHT, new_figure, save, style
from blindspot.reporting.text import clean

LOG, RECORD = "log.jsonl", "run.json"
DRAWN_POINTS = 400
"""Points of a curve; with more rows, each is the mean of its neighbours."""
_PANELS = (("loss", "loss, nats a token"), ("tokens_per_second", "tokens a second"), ("grad_norm", "gradient norm"))
_COLUMNS = (
    "step", "loss", "lr", "grad_norm", "tokens", "supervised_tokens", "seconds", "data_seconds", "tokens_per_second",
    "padding", "tflops_per_device", "mfu", "memory_gib",
)  # fmt: skip
_RECIPE = ("arm", "stage", "seed", "batch", "lr", "encoder_lr", "frozen", "precision", "batching", "data", "samples")
_SHOWN_ROWS = 50


@dataclass(frozen=True)
class Trained:
    """One log.

    Attributes:
        name: its folder below the run folder.
        record: ``run.json``.
        rows: of the log, a step each.
    """

    name: str
    record: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The rows of the data that were not trained on, each once."""
        found = {one["row"]: one for row in self.rows for one in row.get("skipped", [])}
        return [found[number] for number in sorted(found)]

    def summary(self) -> dict[str, Any]:
        """Numbers of the whole run; ``loss`` is the mean of the last twentieth of its steps."""
        rows, last = self.rows, self.rows[-1]
        late = rows[-max(1, len(rows) // 20) :]
        seconds = sum(row["seconds"] for row in rows)
        mfu = [row["mfu"] for row in rows if row["mfu"] is not None]
        return {
            "name": self.name,
            "step": last["step"],
            "steps": last["steps"],
            "loss": sum(row["loss"] for row in late) / len(late),
            "tokens_per_second": median(row["tokens_per_second"] for row in rows),
            "supervised_per_second": sum(row["supervised_tokens"] for row in rows) / seconds,
            "padding": 1 - sum(row["tokens"] for row in rows) / max(sum(map(_room, rows)), 1),
            "waiting": sum(row["data_seconds"] for row in rows) / seconds,
            "mfu": median(mfu) if mfu else None,
            "memory_gib": max(row["memory_gib"] for row in rows),
            "hours": seconds / 3600,
            "hours_left": last["seconds_left"] / 3600,
            "skipped": len(self.skipped),
        }


def is_training_run(run: Path) -> bool:
    """Whether ``run`` is what ``blindspot train`` writes: a stage's folder, an arm's, or that of a study's arms."""
    return bool(_records(run))


def write_training_page(run: Path) -> Path:
    """Write ``report/index.html``, ``report/curves.csv`` and ``report/figures/training.svg`` (and ``.pdf``).

    Runs that are still going on are shown as far as they are.

    Args:
        run: see `is_training_run`.

    Returns:
        The page.

    Raises:
        UserError: if there is no log with a row, or a file cannot be written.
    """
    trained = [one for path in _records(run) if (one := _read(run, path)).rows]
    if not trained:
        raise UserError(f"{run} has no training log with a step in it ({LOG} beside {RECORD}); train something first")
    folder = run / "report"
    write_text(folder / "curves.csv", _as_csv(trained))
    figure = _draw(trained, folder / "figures").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("training.html.j2").render(
        title=clean(run.resolve().name),
        runs=[one.summary() for one in trained],
        recipes=[{"name": one.name, **{key: _plain(one.record.get(key)) for key in _RECIPE}} for one in trained],
        recipe_keys=_RECIPE,
        figure=figure[figure.index("<svg") :],
        hues=[HUES[number % len(HUES)] for number in range(len(trained))],
        skipped=[{"name": one.name, **_said(row)} for one in trained for row in one.skipped[:_SHOWN_ROWS]],
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _records(run: Path) -> list[Path]:
    folders = [run, *sorted(run.glob("*")), *sorted(run.glob("*/*"))]
    return [folder for folder in folders if (folder / LOG).is_file() and (folder / RECORD).is_file()]


def _read(run: Path, folder: Path) -> Trained:
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the training run in {folder}: {error}") from error
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # being written, or cut off by a kill
            break
    name = str(folder.relative_to(run))
    return Trained(clean(run.resolve().name if name == "." else name), record, rows)


def _as_csv(trained: Sequence[Trained]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", *_COLUMNS))
    for one in trained:
        writer.writerows((one.name, *(row[column] for column in _COLUMNS)) for row in one.rows)
    return text.getvalue()


def _draw(trained: Sequence[Trained], folder: Path) -> Path:
    with style():
        figure = new_figure(9, 7.4, "Training", "light: each step; dark: mean of neighbouring steps")
        axes = figure.subplots(len(_PANELS), 1, sharex=True)
        figure.subplots_adjust(left=0.1, right=0.98, top=0.9, bottom=0.07, hspace=0.14)
        for panel, (key, words) in zip(axes, _PANELS, strict=True):
            panel.set_ylabel(words)
            panel.grid(axis="y", color=LIGHT, linewidth=0.6)
            for number, one in enumerate(trained):
                hue = HUES[number % len(HUES)]
                steps, values = ([row[name] for row in one.rows] for name in ("step", key))
                if len(values) <= DRAWN_POINTS:
                    panel.plot(steps, values, color=hue, alpha=0.3, linewidth=0.8)
                panel.plot(*_thinned(steps, values), color=hue, linewidth=1.5, label=one.name)
        axes[1].set_ylim(bottom=0)
        axes[2].set_yscale("log")
        axes[-1].set_xlabel("optimiser step", color=GREY)
        if len(trained) > 1:
            axes[0].legend(frameon=False, fontsize=8.5)
        return save(figure, folder, "training")[0]


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of at least ten, or as many as make `DRAWN_POINTS`, neighbours; fewer where there are few rows."""
    size = max(-(-len(values) // DRAWN_POINTS), min(10, max(1, len(values) // 10)))
    parts = [slice(start, start + size) for start in range(0, len(values), size)]
    return ([_mean(steps[part]) for part in parts], [_mean(values[part]) for part in parts])


def _room(row: dict[str, Any]) -> float:
    """Tokens that a step computed, padding included."""
    return row["tokens"] / (1 - row["padding"]) if row["tokens"] else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return clean(", ".join(map(str, value)) if isinstance(value, list) else str(value), 120)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    return {"row": row["row"], "id": clean(str(row.get("id", "")), 60), "why": clean(str(row["why"]), 200)}
