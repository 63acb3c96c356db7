"""The command line."""

from blindspot.cli.commands import app

__all__ = ["app"]
