"""Tools: whether a chat template shows them, and what an answer calls."""
