"""`from: nearest`: the version that knows most of the new rows already, to start a run with."""
