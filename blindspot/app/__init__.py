"""A local web page: one picture and one question, several models, and where in them the answer comes from."""
