"""Worlds with depth: solids on a ground, seen by a camera, once or several times. The scene graph is the truth."""
