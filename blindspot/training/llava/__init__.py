"""Data sets in LLaVA's JSON form: rows by number, rows as samples, and what is wrong with a data set."""
