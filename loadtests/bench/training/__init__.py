"""Training against a plain TRL script and TRL's defaults."""
