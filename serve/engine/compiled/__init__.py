"""Compiled code that is made beside the serving, and found again by the next start."""
