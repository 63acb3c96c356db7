"""Data sets in LLaVA's JSON form: rows by number, their pictures, and what is wrong with them."""

from blindspot.training.llava.index import LlavaRows, Row, index_rows
from blindspot.training.llava.pictures import open_picture

__all__ = ["LlavaRows", "Row", "index_rows", "open_picture"]
