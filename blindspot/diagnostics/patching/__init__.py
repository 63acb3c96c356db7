"""Which tokens carry the answer: exchanged pairs, knockout, spatial ids, steering."""
