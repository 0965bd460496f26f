"""Whether a proof by one shared step says what a proof in turn says, over hundreds of adapters."""
