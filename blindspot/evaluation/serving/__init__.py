"""Models for other programs: an OpenAI-compatible server, and a plugin of lmms-eval."""
