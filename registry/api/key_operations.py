"""The table of operations on keys. They are made at the root alone: see `serve/control/README.md`.

Owns no rule: what a key is, is `registry.entries.keys`' decision.
"""

from __future__ import annotations

from registry.api import documents as doc
from registry.api.operation import LocalClient, OperationTable
from registry.entries.keys import KeyStore

keys = OperationTable("keys")


@keys.add("GET", "/keys")
def list_keys(local: LocalClient) -> doc.KeyList:
    """List every key that was ever made, oldest first; secrets are not stored."""
    now = local.registry.catalogue.clock()
    return doc.KeyList(keys=[doc.KeyDocument.of(info, now) for info in _store(local).list()])


@keys.add("POST", "/keys/{key_id}/revoke")
def revoke_key(local: LocalClient, key_id: str) -> doc.KeyDocument:
    """Take a key out of use for good; servers refuse it within a second."""
    return doc.KeyDocument.of(_store(local).revoke(key_id), local.registry.catalogue.clock())


def _store(local: LocalClient) -> KeyStore:
    return KeyStore(local.registry.root, clock=local.registry.catalogue.clock)
