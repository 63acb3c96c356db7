"""From a run folder to numbers, tables, figures and one page; knows nothing of models."""

from blindspot.reporting.page import write_report
from blindspot.reporting.results import collect
from blindspot.reporting.tables import print_tables

__all__ = ["collect", "print_tables", "write_report"]
