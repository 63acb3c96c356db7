"""Training a variant on one process, several GPUs or several nodes: packed batches, FSDP2, exact resume."""
