"""Who asks, and may they: the key of a request against the key ring. No disk, no state of its own."""

from __future__ import annotations

from collections.abc import Mapping

from registry.entries.keys import KeyInfo, KeyRing, Scope
from registry.errors import Denied
from serve.errors import KeysUnknown, ScopeMissing

ANONYMOUS = "anonymous"
"""Who asks where no key was ever made."""

_REMEDY = "send `Authorization: Bearer KEY`; `wardrobe keys create` makes one"


def authorize(ring: KeyRing, headers: Mapping[bytes, bytes], scope: Scope | None) -> str:
    """Return the id of the request's key, or `anonymous` where keys are not in use; None = any scope.

    Anthropic's clients send `x-api-key` instead of a bearer token, Azure's `api-key`.

    Raises: Denied: no key, or not one of ours (401). ScopeMissing: 403. KeysUnknown: 503.
    """
    if not ring.enabled:
        return ANONYMOUS
    if ring.stale() and scope is not None:  # what asks for no scope watches, and must see this very state
        fact = f"could not be renewed for {ring.age():.0f} s, and one may have been revoked"
        raise KeysUnknown("keys", fact, "check that the server can read keys/api in its root")
    key = _find_key(ring, headers)
    if scope is not None and not key.allows(scope):
        raise ScopeMissing(f"key {key.id}", f"lacks the scope `{scope}`", "use a key that has it")
    return key.id


def _find_key(ring: KeyRing, headers: Mapping[bytes, bytes]) -> KeyInfo:
    value = headers.get(b"authorization", b"").decode("latin-1")
    kind, _, token = value.partition(" ")
    if kind.lower() != "bearer":
        token = (headers.get(b"x-api-key") or headers.get(b"api-key", b"")).decode("latin-1")
    if not token:
        raise Denied("key", "none was sent", _REMEDY)
    key = ring.check(token.strip())
    if key is None:
        raise Denied("key", "is unknown, expired or revoked", _REMEDY)
    return key
