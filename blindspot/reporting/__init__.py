"""From a run folder to numbers, tables, figures and one page; knows nothing of models."""

from blindspot.reporting.collect import collect
from blindspot.reporting.report import write_report
from blindspot.reporting.terminal import print_tables

__all__ = ["collect", "print_tables", "write_report"]
