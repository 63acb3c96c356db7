"""Where spatial information is lost: one file per diagnostic; each takes a model and pictures, and returns tables."""
