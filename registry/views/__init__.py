"""What the store looks like now: the catalogue, one view for the hot path, history and audit."""
