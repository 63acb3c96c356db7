"""Families of published models: templates, settings, conventions."""
