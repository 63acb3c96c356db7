"""Parts of the counterfactuals: rearrangements of places, and what answers then follow."""
