"""What commands share: arguments and options, bars, and their end: an exit status, and one line of what went wrong."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID
from typer.core import TyperGroup

from blindspot.errors import UserError, shortage
from blindspot.text import clean

EXIT_BUG, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
STATUS = "Exit status: 0 done, 1 a bug of Blindspot, 2 something you can put right, 130 interrupted."


def option(said: str, *names: str, default: str = "", **more: Any) -> Any:
    """An option of a command; a default that depends on other things stands in words behind what is said of it."""
    shown = f" [dim]\\[default: {default}][/dim]" if default else ""
    return typer.Option(*names, help=said + shown, show_default=not default, **more)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder of any format, or a Hugging Face id.")]
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="Model folders of any format, or Hugging Face ids.")]
Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")]
DataRoot = Annotated[Path | None, option("Where benchmarks lie.", "--data", default="$BLINDSPOT_DATA, or data")]
TrustRemoteCode = Annotated[bool, option("Let code run that a checkpoint brings along (Molmo).", "--trust-remote-code")]
Thinking = Annotated[
    str,
    option(
        "Thoughts in answers (<think>...</think>): [bold]strip[/bold] takes them off before scoring, "
        "[bold]keep[/bold] does not, [bold]harness[/bold] does as the profile's harness and shows both scores."
    ),
]
Boxes = Annotated[
    str | None, option("The convention that boxes are answered in.", "--boxes", default="the model family's")
]
Batch = Annotated[int, option("Most questions that are computed at a time.", min=1)]
Plugins = Annotated[
    list[Path] | None,
    option("A file that adds benchmarks, rules, models and more (docs/plugins.md).", "--plugins", metavar="FILE.py"),
]
Json = Annotated[bool, option("Print JSON, for scripts.", "--json")]


def told(as_json: bool, found: Any, show: Callable[[Console], object]) -> None:
    """Print what was found: as JSON for scripts, else as ``show`` does on a console."""
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(Console())


def with_plugins(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for what users add to the registries."""

    @wraps(command)
    def called(*, plugins: list[Path] | None = None, **given: Any) -> None:
        if plugins:
            from blindspot.plugins import name_files

            name_files(plugins)
        command(**given)

    own = signature(command)
    option = Parameter("plugins", Parameter.KEYWORD_ONLY, default=None, annotation=Plugins)
    called.__signature__ = own.replace(parameters=[*own.parameters.values(), option])  # pyright: ignore[reportAttributeAccessIssue]
    return called


class Outermost(TyperGroup):
    """All commands: what goes wrong in one, in help or in writing to a full disk is one line."""

    def invoke(self, ctx: Any) -> Any:
        with one_line_errors():  # inside `main`, which does not tell an interruption from other ends
            return super().invoke(ctx)

    def main(self, *args: Any, **options: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal or a pipe in ASCII gets question marks
        try:
            with one_line_errors():
                try:
                    return super().main(*args, **options)
                finally:  # nothing is left for Python to try again at its end
                    try:
                        sys.stdout.flush()
                    except OSError as error:
                        with suppress(OSError):
                            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                        if isinstance(error, BrokenPipeError):
                            raise typer.Exit(EXIT_BUG) from None
                        raise
        except typer.Exit as end:
            sys.exit(end.exit_code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a command may raise into one line on standard error and an exit status."""
    try:
        yield
    except UserError as error:
        _end(f"error: {clean(str(error))}", EXIT_USER)
    except KeyboardInterrupt:
        _end("interrupted; the same command continues", EXIT_INTERRUPTED)
    except Exception as error:
        if "torch" in sys.modules and (strange := _of_torchvision(error)):
            _end(f"error: torchvision does not load ({strange}); `blindspot doctor` says what to do", EXIT_USER)
        if lacking := shortage(error):
            _end(f"error: {lacking}; free some or allow more, then repeat the command", EXIT_USER)
        engine = sys.modules.get("blindspot.studies.engine")
        if engine is None or not isinstance(error, engine.StepFailure):
            raise
        _end(f"error: {error}", EXIT_BUG)


@contextmanager
def bars(*columns: ProgressColumn, transient: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on the terminal for each thing that is counted: told what, how many are done, of how many, and fields."""
    begun: dict[str, TaskID] = {}
    terminal = Console(stderr=True)
    columns = (*Progress.get_default_columns(), *columns)
    with Progress(*columns, console=terminal, transient=transient, disable=not terminal.is_terminal) as progress:

        def show(what: str, done: int, total: int | None, **fields: Any) -> None:
            if what not in begun:
                begun[what] = progress.add_task(what, total=total, **fields)
            progress.update(begun[what], completed=done, total=total, **fields)

        yield show


def _end(line: str, status: int) -> NoReturn:
    with suppress(OSError):
        print(line, file=sys.stderr)
    raise typer.Exit(status) from None


def _of_torchvision(error: BaseException | None) -> str:
    """What torchvision, which transformers imports where it finds it, says of a torch that it was not built for."""
    while error is not None and "torchvision" not in str(error):
        error = error.__cause__ or error.__context__
    return clean(str(error), 200) if error else ""
