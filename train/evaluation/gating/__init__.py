"""The goal of a version, the gate that judges it, and the run that asks for both."""
