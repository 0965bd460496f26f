"""The root's base as it lies on the disk now: still the one that the root was made for."""

from __future__ import annotations

from registry.errors import Conflict, NotFound
from registry.records import BaseModelInfo


def check_base(base: BaseModelInfo) -> None:
    """Refuse to work on another base than the root's.

    Raises: NotFound: when its folder is gone; Conflict: when it holds another model.
    """
    from registry.validation.base import read_base

    if not base.path.is_dir():
        raise NotFound(str(base.path), "the base model's folder is gone", "put it back where it was")
    found = read_base(base.path, base.name).fingerprint
    if found != base.fingerprint:
        fact = f"holds another model ({found}) than the root was made for ({base.fingerprint})"
        raise Conflict(str(base.path), fact, "put the recorded base model back")
