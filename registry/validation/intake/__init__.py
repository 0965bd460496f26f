"""Adapters as they are in the world: what people really hand in, read as it was meant, or told what it is."""
