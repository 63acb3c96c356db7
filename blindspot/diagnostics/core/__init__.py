"""What every diagnostic stands on: a model read and changed at every site, and pictures whose truth is known."""
