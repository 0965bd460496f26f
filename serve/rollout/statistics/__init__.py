"""Valid tests on counts: pure functions, in log space."""
