"""The procedural world: scene graphs, their pictures, descriptions and questions. Knows nothing of models."""
