"""Parts of the patching diagnostic: exchanged pairs, knockout, spatial ids, steering."""
