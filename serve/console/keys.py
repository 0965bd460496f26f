"""The page of keys and groups, from the ring in memory; a key is revoked here, and made at the root alone.

Invariant: no secret is ever here: the ring has hashes only, and none is put into a page.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from registry.api import key_operations
from registry.api.documents import KeyDocument
from registry.errors import NotFound, WardrobeError
from serve.console.acts import Act, command_line
from serve.console.entrance import HOME
from serve.console.forms import page_number
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer
from serve.control.layer import public

ROWS = 50
_LONGEST_SEARCH = 100
_FOLLOWS_SECONDS = 2.0
_REVOKE = Act(
    "revoke",
    "Revoke a key",
    "Servers refuse it within a second, and for good; what it made stays.",
    "The key is revoked.",
    (),
    key_operations.revoke_key,
    lambda key_id, _: {"key_id": key_id},
    lambda key_id, _: ["keys", "revoke", key_id],
    danger=True,
)


async def show_keys(console: Console, request: Request, viewer: Viewer) -> Response:
    """List the keys that hold what is searched for, the newest first, and groups."""
    ring, number, now = console.parts.keys, page_number(request), console.clock()
    search = request.query_params.get("q", "").strip().lower()[:_LONGEST_SEARCH]
    infos = ring.infos()
    found = [one for one in infos if search in f"{one.id} {one.group} {one.who} {one.note}".lower()]
    first = (number - 1) * ROWS
    active: dict[str, int] = {}
    for one in infos:
        if one.state(now) == "active":
            active[one.group] = active.get(one.group, 0) + 1
    groups = sorted(ring.groups.values(), key=lambda one: one.name)
    shown = {
        "here": "keys",
        "search": search,
        "all": len(infos),
        "count": len(found),
        "keys": [KeyDocument.of(one, now) for one in found[first : first + ROWS]],
        "groups": [(one, active.get(one.name, 0)) for one in groups[:ROWS]],
        "groups_left": max(0, len(groups) - ROWS),
        "page": number,
        "more": len(found) > first + ROWS,
        "done": _REVOKE.done if request.query_params.get("done") == _REVOKE.word else "",
        "making": command_line(["keys", "create", "--scope", "infer", "--expires", "90d", "--note", "TEXT"]),
    }
    return page("keys.html", {**viewer.context(), **shown})


async def show_revoke(console: Console, request: Request, viewer: Viewer) -> Response:
    """Ask whether a key shall be revoked."""
    viewer.check_acts()
    key_id = request.path_params["key_id"]
    if key_id not in {one.id for one in console.parts.keys.infos()}:
        raise NotFound(f"key {key_id}", "does not exist", "see the list of keys")
    return _form(viewer, key_id)


async def take_revoke(console: Console, request: Request, viewer: Viewer) -> Response:
    """Revoke a key, or say why that was refused."""
    viewer.check_acts()
    key_id = request.path_params["key_id"]
    try:
        await viewer.asking(console.control).answer(key_operations.revoke_key, {"key_id": key_id})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told above the form
        return _form(viewer, key_id, public(error))
    await _followed(console, key_id)
    return RedirectResponse(f"{HOME}/keys?done={_REVOKE.word}", 303, {"cache-control": "no-store"})


async def _followed(console: Console, key_id: str) -> None:
    """Wait until this process knows of the revocation too, so that the list that follows shows it."""
    deadline = time.monotonic() + _FOLLOWS_SECONDS
    while console.parts.keys.caller(key_id) is not None and time.monotonic() < deadline:  # noqa: ASYNC110  the ring tells nobody
        await asyncio.sleep(0.05)


def _form(viewer: Viewer, key_id: str, error: WardrobeError | None = None) -> Response:
    shown = {
        "here": "keys",
        "act": _REVOKE,
        "name": key_id,
        "error": error,
        "values": {},
        "command": command_line(["keys", "revoke", key_id]),
        "crumbs": [("Keys", f"{HOME}/keys")],
        "address": f"{HOME}/keys/{key_id}/do/revoke",
    }
    return page("act.html", {**viewer.context(), **shown}, 200 if error is None else error.http_status)
