"""The base model and the adapter in memory: which modules, which weights, does it fit."""
