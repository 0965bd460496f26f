"""Wardrobe beside its peers: each peer in an environment of its own, from pins that the repository keeps."""
