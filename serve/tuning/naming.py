"""The names that a fine-tuning job gives: the adapter whose next version it makes, and the model's own. Pure.

Owns `ft:BASE:ORGANIZATION:SUFFIX:ID`, OpenAI's form. Invariant: a model's name holds nothing that a path of
the API could not carry: letters, digits and `. _ - / :`.
"""

from __future__ import annotations

import re

from registry.names import NAME_PATTERN, TUNED_PREFIX

ID_CHARACTERS = 8
"""Of the job's id, at the end of the model's name."""
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_OTHER_OF_BASE = re.compile(r"[^A-Za-z0-9._/-]+")
_MAX_BASE = 255
_MAX_ADAPTER = 63


def tuned_name(base: str, organization: str, suffix: str | None, job: str) -> str:
    """Return the name of the model that a job makes."""
    plain_base = _OTHER_OF_BASE.sub("-", base)[:_MAX_BASE]
    plain_suffix = _OTHER.sub("-", suffix or "")
    return f"{TUNED_PREFIX}{plain_base}:{organization}:{plain_suffix}:{job[-ID_CHARACTERS:]}"


def adapter_name(suffix: str | None, job: str) -> str:
    """Return the adapter that gets a job's version where none is named: the suffix, else one of its own."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", (suffix or "").lower()).strip("-._")[:_MAX_ADAPTER]
    return slug if re.fullmatch(NAME_PATTERN, slug) else f"ft-{job[-ID_CHARACTERS:].lower()}"
