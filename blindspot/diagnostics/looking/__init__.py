"""Parts of the attention diagnostic: what heads look at, and making them look elsewhere."""
