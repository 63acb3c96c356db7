"""Data sets in LLaVA's JSON form: rows by number, their pictures, and what is wrong with them."""

from blindspot.training.data.index import index_rows
from blindspot.training.data.pictures import open_picture
from blindspot.training.data.rows import LlavaRows, Row

__all__ = ["LlavaRows", "Row", "index_rows", "open_picture"]
