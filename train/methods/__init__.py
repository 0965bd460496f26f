"""The training methods: `method_of(config)` returns the one that a config names.

Importing this loads no torch; a method imports it when it builds its trainer.
"""

from train.methods.interface import Method, TrainerInputs
from train.methods.table import METHODS, method_of

__all__ = ["METHODS", "Method", "TrainerInputs", "method_of"]
