"""Data sets: every form of rows, their checks, splits and reports."""

from train.dataset.forms import canonical, read_sample
from train.dataset.records import Form, Kind, Message, Row, Sample

__all__ = ["Form", "Kind", "Message", "Row", "Sample", "canonical", "read_sample"]
