"""Proving: that the server answers with what was trained, and is asked with what was trained on."""
