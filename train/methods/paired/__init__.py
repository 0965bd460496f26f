"""Methods that learn from pairs or ratings of answers: DPO, ORPO, KTO."""
