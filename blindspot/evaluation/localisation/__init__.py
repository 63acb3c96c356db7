"""Where is it: models asked for a phrase, their answers brought back to the picture's pixels, and drawn."""
