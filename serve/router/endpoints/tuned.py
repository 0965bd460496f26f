"""`DELETE /v1/models/ft:…`: takes the name of a tuned model out of use.

The version that answered by it stays, as do its aliases and its history: it may be anybody's `stable` by now.
Invariant: what another key made is answered as what never was, unless the key is an administrator's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec

from registry.entries.rights import Scope
from registry.errors import NotFound, StorageFailed, UsageError
from registry.names import TUNED_PREFIX
from registry.storage.reserve import urgently
from serve.errors import ModelNotFound
from serve.router.endpoints.auth import authorize
from serve.router.runtime import Runtime


async def delete_model(runtime: Runtime, headers: Mapping[bytes, bytes], name: str) -> bytes:
    """Delete the name, and return the answer's body.

    Raises: Denied; ScopeMissing; ModelNotFound: it is not there, or another key's; UsageError: the base, an
    adapter or a version of one; StorageFailed.
    """
    caller = authorize(runtime.keys, headers, Scope.TUNE)
    if not name.startswith(TUNED_PREFIX):
        _refuse_other(runtime, name)
    mine = None if caller.allows(Scope.ADMIN) else caller.who
    await asyncio.to_thread(_remove, runtime, name, mine, caller.who)
    return msgspec.json.encode({"id": name, "object": "model", "deleted": True})


def _remove(runtime: Runtime, name: str, mine: str | None, who: str) -> None:
    tuned = runtime.registry.catalogue.tuned
    try:
        if mine is not None and tuned.find(name).who != mine:
            raise _unknown(name)
        urgently(runtime.registry.root, lambda: tuned.remove(name, who=who))
    except NotFound:
        raise _unknown(name) from None
    with contextlib.suppress(StorageFailed):  # then the watcher finds it at its next turn
        runtime.watcher.refresh()


def _refuse_other(runtime: Runtime, name: str) -> None:
    adapter = name.partition("@")[0]
    if name != runtime.engine.base_name and adapter not in runtime.watcher.view.adapters:
        raise _unknown(name)
    remedy = "delete a version with `wardrobe delete NAME@N`"
    raise UsageError(name, "is not the name of a tuned model (ft:…)", remedy, param="model")


def _unknown(name: str) -> ModelNotFound:
    return ModelNotFound(name, "there is no such tuned model", "ask GET /v1/models", param="model")
