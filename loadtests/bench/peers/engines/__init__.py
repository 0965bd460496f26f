"""Bare vLLM and `wardrobe serve` beside each other, in turn."""
