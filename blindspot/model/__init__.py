"""A variant: encoder, connector, language model and positions, in formats that transformers loads."""
