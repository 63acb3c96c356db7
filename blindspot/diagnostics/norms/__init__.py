"""Norms of image tokens, and whether their order matters."""
