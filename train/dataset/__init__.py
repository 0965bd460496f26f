"""Data sets: every form of rows, their checks, splits and reports."""

from train.dataset.forms import canonical, read_sample
from train.dataset.records import CanonicalRow, Conversation, RowForm, RowKind, RowMessage

__all__ = ["CanonicalRow", "Conversation", "RowForm", "RowKind", "RowMessage", "canonical", "read_sample"]
