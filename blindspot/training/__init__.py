"""Training: objectives, packing, the loop and the stages of an arm."""
