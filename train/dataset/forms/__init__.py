"""The written forms of a row: which one it is, and what it says."""

from train.dataset.forms.mapping import PLAIN, RowMapping
from train.dataset.forms.reading import read_prompt, read_sample, understand
from train.dataset.forms.writing import canonical

__all__ = ["PLAIN", "RowMapping", "canonical", "read_prompt", "read_sample", "understand"]
