"""The identity of a version: what its digest is made of. Pure.

Invariant: no name, number, time, note or lineage goes in, so the same content has the same digest anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from registry.records import FileEntry
from registry.validation.canonical import canonical_json, sha256_hex
from registry.validation.chat_template import TEMPLATE_NAME
from registry.validation.peft import CONFIG_NAME

if TYPE_CHECKING:
    from pydantic import JsonValue

WEIGHTS_NAME = "adapter_model.safetensors"
# The files that a digest is made of; a README is kept and may change nothing.
HASHED = frozenset({WEIGHTS_NAME, CONFIG_NAME, TEMPLATE_NAME})


def digest(files: Iterable[FileEntry], base_fingerprint: str, template_sha256: str | None) -> str:
    """Return a version's identity, `sha256:…`; files that are not part of it (README.md) are passed over."""
    entries: list[JsonValue] = [
        {"path": file.path, "size": file.size, "sha256": file.sha256}
        for file in sorted(files, key=lambda file: file.path)
        if file.path in HASHED
    ]
    identity: dict[str, JsonValue] = {
        "files": entries,
        "base": base_fingerprint,
        "chat_template": template_sha256,
    }
    return f"sha256:{sha256_hex(canonical_json(identity))}"
