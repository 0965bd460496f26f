"""The containers that rows lie in."""
