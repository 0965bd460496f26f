"""Replicas under Ray Serve: each is `wardrobe serve` as it is, in a process of its own."""
