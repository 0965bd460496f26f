"""`DELETE /v1/models/ft:…`: takes the name of a tuned model out of use.

The version that answered by it stays, as do its aliases and its history: it may be anybody's `stable` by now.
Invariant: what another key made, or what does not exist for a key's group, is answered as what never was,
unless the key is an administrator's.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from registry.entries.keyring import Caller
from registry.entries.rights import Scope
from registry.errors import NotFound, StorageFailed, UsageError
from registry.names import TUNED_PREFIX
from registry.storage.reserve import urgently
from serve.errors import ModelNotFound
from serve.groups.sight import EVERYTHING, Sight
from serve.router.runtime import Runtime


async def delete_model(runtime: Runtime, caller: Caller, name: str) -> bytes:
    """Delete the name, and return the answer's body.

    Raises: ModelNotFound: it is not there, or another key's; UsageError: the base, an
    adapter or a version of one; StorageFailed.
    """
    rules = caller.allows(Scope.ADMIN)
    sight = EVERYTHING if rules else runtime.access.of(caller).sight
    if not name.startswith(TUNED_PREFIX):
        _refuse_other(runtime, sight, name)
    mine = None if rules else caller.who
    await asyncio.to_thread(_remove, runtime, name, sight, mine, caller.who)
    return msgspec.json.encode({"id": name, "object": "model", "deleted": True})


def _remove(runtime: Runtime, name: str, sight: Sight, mine: str | None, who: str) -> None:
    tuned = runtime.registry.catalogue.tuned
    try:
        if mine is not None:
            found = tuned.find(name)
            if found.who != mine or not sight.sees(found.adapter):
                raise _unknown(name)
        urgently(runtime.registry.root, lambda: tuned.remove(name, who=who))
    except NotFound:
        raise _unknown(name) from None
    with contextlib.suppress(StorageFailed):  # then the watcher finds it at its next turn
        runtime.watcher.refresh()


def _refuse_other(runtime: Runtime, sight: Sight, name: str) -> None:
    adapter = name.partition("@")[0]
    is_base = sight.base and name == runtime.engine.base_name
    if not is_base and adapter not in sight.view(runtime.watcher.view).adapters:
        raise _unknown(name)
    remedy = "delete a version with `wardrobe delete NAME@N`"
    raise UsageError(name, "is not the name of a tuned model (ft:…)", remedy, param="model")


def _unknown(name: str) -> ModelNotFound:
    return ModelNotFound(name, "there is no such tuned model", "ask GET /v1/models", param="model")
