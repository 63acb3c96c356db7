"""The page of a diagnosis: one file a section, from tables and pictures that diagnostics left."""

from blindspot.reporting.diagnosis.arms import stage_figure_of_arms
from blindspot.reporting.diagnosis.data import load_diagnosis
from blindspot.reporting.diagnosis.page import is_diagnosis, write_diagnosis

__all__ = ["is_diagnosis", "load_diagnosis", "stage_figure_of_arms", "write_diagnosis"]
