"""Where a model says that something is: answers of every convention as boxes in the picture's own pixels."""

from blindspot.benchmarks.boxes.conventions import CONVENTIONS, Convention
from blindspot.benchmarks.boxes.geometry import Box, Point, View, shown, spelt
from blindspot.benchmarks.boxes.located import Located, Place, locate

__all__ = ["CONVENTIONS", "Box", "Convention", "Located", "Place", "Point", "View", "locate", "shown", "spelt"]
