"""Answerers: a model on this machine, a server, recorded answers."""
