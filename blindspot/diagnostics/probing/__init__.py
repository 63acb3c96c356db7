"""Parts of the probes: stages, targets, read-outs, scores."""
