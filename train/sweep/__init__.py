"""Sweeps: many short trials of one config, the better ones longer, within a budget of steps."""
