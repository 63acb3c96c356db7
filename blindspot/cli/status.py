"""What a command's end looks like to a shell: an exit status, and one line where something went wrong."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from blindspot.errors import UserError, shortage
from blindspot.text import clean

EXIT_BUG, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
STATUS = "Exit status: 0 done, 1 a bug of Blindspot, 2 something you can put right, 130 interrupted."


class Outermost(TyperGroup):
    """All commands: what goes wrong outside of them, in help and in writing to a full disk, is one line too."""

    def main(self, *args: Any, **options: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal or a pipe in ASCII gets question marks
        try:
            with one_line_errors():
                try:
                    return super().main(*args, **options)
                finally:
                    _flush()
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
        if strange := _of_torchvision(error):
            _end(f"error: torchvision does not load ({strange}); `blindspot doctor` says what to do", EXIT_USER)
        if lacking := shortage(error):
            _end(f"error: {lacking}; free some or allow more, then repeat the command", EXIT_USER)
        crew = sys.modules.get("blindspot.studies.crew")
        if crew is None or not isinstance(error, crew.StepFailure):
            raise
        _end(f"error: {error}", EXIT_BUG)


def _end(line: str, status: int) -> NoReturn:
    with suppress(OSError):
        print(line, file=sys.stderr)
    raise typer.Exit(status) from None


def _flush() -> None:
    """Write what is left of the output; where that fails nothing is left for Python to try again at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(EXIT_BUG) from None
        raise


def _of_torchvision(error: BaseException | None) -> str:
    """What torchvision, which transformers imports where it finds it, says of a torch that it was not built for."""
    while error is not None and "torchvision" not in str(error):
        error = error.__cause__ or error.__context__
    return clean(str(error), 200) if error else ""
