"""``blindspot doctor``: what is installed and what is missing."""

import typer
from rich.console import Console

from blindspot.cli.options import Json
from blindspot.cli.status import EXIT_USER, one_line_errors


def doctor(
    as_json: Json = False,
) -> None:
    """Look at what is installed, at the devices and the disk; say what is missing and how to mend it."""
    with one_line_errors():
        import json

        from blindspot import doctor

        checks = doctor.report()
        if as_json:
            print(json.dumps(doctor.as_json(checks), indent=1))
        else:
            Console().print(doctor.as_table(checks))
        if not doctor.works(checks):
            raise typer.Exit(EXIT_USER)
