"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder of any format, or a Hugging Face id.")]
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="Model folders of any format, or Hugging Face ids.")]
Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Where benchmarks lie. [dim]\\[default: $BLINDSPOT_DATA, or data][/dim]", show_default=False
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let code run that a checkpoint brings along (Molmo).")
]
Thinking = Annotated[
    str,
    typer.Option(
        help="Thoughts in answers (<think>...</think>): [bold]strip[/bold] takes them off before scoring, "
        "[bold]keep[/bold] does not, [bold]harness[/bold] does as the profile's harness and shows both scores."
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option(
        "--boxes",
        help="The convention that boxes are answered in. [dim]\\[default: the model family's][/dim]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
