"""Writes docs/reference from what it describes: commands, HTTP, settings, metrics, the format on disk."""
