"""The inner half of the watchdog: whether the engine behind this router still lives."""
