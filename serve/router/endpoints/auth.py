"""Who asks, and may they: the key of a request against the key ring. No disk, no state of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from registry.entries.keyring import Caller, KeyRing
from registry.entries.rights import Scope, implied
from registry.errors import Denied
from serve.errors import KeysUnknown, ScopeMissing

_REMEDY = "send `Authorization: Bearer KEY`; `wardrobe keys create` makes one"


def authorize(ring: KeyRing, headers: Mapping[bytes, bytes], needed: Collection[Scope]) -> Caller:
    """Return who asks, `ring.anonymous` where keys are not in use.

    Of the scopes that are `needed` one is enough; where none is, any key does. Anthropic's clients send
    `x-api-key` instead of a bearer token, Azure's `api-key`.

    Raises: Denied: no key, or not one of ours (401). ScopeMissing: 403. KeysUnknown: 503.
    """
    if not ring.enabled:
        caller = ring.anonymous
    else:
        if ring.stale() and needed:  # what asks for no scope watches, and must see this very state
            fact = f"could not be renewed for {ring.age():.0f} s, and one may have been revoked"
            raise KeysUnknown("keys", fact, "check that the server can read keys/api and groups in its root")
        caller = _find_caller(ring, headers)
    if needed and caller.scopes.isdisjoint(needed):
        raise _missing(caller, needed)
    return caller


def _find_caller(ring: KeyRing, headers: Mapping[bytes, bytes]) -> Caller:
    value = headers.get(b"authorization", b"").decode("latin-1")
    kind, _, token = value.partition(" ")
    if kind.lower() != "bearer":
        token = (headers.get(b"x-api-key") or headers.get(b"api-key", b"")).decode("latin-1")
    if not token:
        raise Denied("key", "none was sent", _REMEDY)
    caller = ring.check(token.strip())
    if caller is None:
        raise Denied("key", "is unknown, expired or revoked", _REMEDY)
    return caller


def _missing(caller: Caller, needed: Collection[Scope]) -> ScopeMissing:
    scope = " or ".join(f"`{one}`" for one in Scope if one in needed)
    if caller.key is None:
        subject, fact = "server", f"does not give the scope {scope} to the group `{caller.group.name}`"
        return ScopeMissing(subject, fact, "use a key whose group has it")
    if not implied(caller.key.scopes).isdisjoint(needed):
        fact = f"is of the group `{caller.group.name}`, which lacks the scope {scope}"
        return ScopeMissing(f"key {caller.who}", fact, "use a key of a group that has it")
    return ScopeMissing(f"key {caller.who}", f"lacks the scope {scope}", "use a key that has it")
