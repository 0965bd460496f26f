"""Connections and their limits, below HTTP's requests: heads, idle and slow ones, how many, and whose."""
