"""Between the first step and the last: measuring, keeping checkpoints, stopping."""
