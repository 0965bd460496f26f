"""Canary rollouts: routing's evidence, valid statistics, and the decisions taken on them."""
