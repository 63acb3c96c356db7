"""What a command's end looks like to a shell: an exit status, and one line where something went wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from blindspot.errors import UserError
from blindspot.text import clean

EXIT_BUG, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
STATUS = "Exit status: 0 done, 1 a bug of Blindspot, 2 something you can put right, 130 interrupted."


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a command may raise into one line on standard error and an exit status."""
    try:
        yield
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        raise typer.Exit(EXIT_USER) from None
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if strange := _of_torchvision(error):
            print(f"error: torchvision does not load ({strange}); `blindspot doctor` says what to do", file=sys.stderr)
            raise typer.Exit(EXIT_USER) from None
        from blindspot.studies.crew import StepFailure

        if not isinstance(error, StepFailure):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BUG) from None


def _of_torchvision(error: BaseException | None) -> str:
    """What torchvision, which transformers imports where it finds it, says of a torch that it was not built for."""
    while error is not None and "torchvision" not in str(error):
        error = error.__cause__ or error.__context__
    return clean(str(error), 200) if error else ""
