"""The page of keys and groups, from the ring in memory; a key is revoked here, and made at the root alone.

Invariant: no secret is ever here: the ring has hashes only, and none is put into a page.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response

from registry.api import key_operations
from registry.api.documents import KeyDocument
from registry.errors import NotFound
from serve.console.acts import DONE, Act, command_line, done_by, show_form, take_form
from serve.console.entrance import HOME
from serve.console.forms import ROWS, cut, search_text
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer

_FOLLOWS_SECONDS = 2.0
ACTS = (
    Act(
        "revoke", "Revoke a key",
        "Servers refuse it within a second, and for good; what it made stays.",
        "The key is revoked.",
        (), key_operations.revoke_key,
        lambda key_id, _: {"key_id": key_id},
        lambda key_id, _: ["keys", "revoke", key_id],
        danger=True,
    ),
)  # fmt: skip
"""Every act on a key."""
_CRUMBS = (("Keys", f"{HOME}/keys"),)


async def show_keys(console: Console, request: Request, viewer: Viewer) -> Response:
    """List the keys that hold what is searched for, the newest first, and groups."""
    ring, now, search = console.parts.keys, console.clock(), search_text(request)
    infos = ring.infos()
    found = [one for one in infos if search in f"{one.id} {one.group} {one.who} {one.note}".lower()]
    rows, pager = cut(found, request)
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
        "keys": [KeyDocument.of(one, now) for one in rows],
        "groups": [(one, active.get(one.name, 0)) for one in groups[:ROWS]],
        "groups_left": max(0, len(groups) - ROWS),
        "done": done_by(ACTS, request),
        "making": command_line(["keys", "create", "--scope", "infer", "--expires", "90d", "--note", "TEXT"]),
    }
    return page("keys.html", {**viewer.context(), **shown, **pager})


async def show_revoke(console: Console, request: Request, viewer: Viewer) -> Response:
    """Ask whether a key shall be revoked."""
    viewer.check_acts()
    key_id = request.path_params["name"]
    if key_id not in {one.id for one in console.parts.keys.infos()}:
        raise NotFound(f"key {key_id}", "does not exist", "see the list of keys")
    return show_form(ACTS, _CRUMBS, request, viewer, "keys")


async def take_revoke(console: Console, request: Request, viewer: Viewer) -> Response:
    """Revoke a key, or say why that was refused."""
    answer = await take_form(console, ACTS, _CRUMBS, request, viewer, "keys")
    if answer.status_code == DONE:
        await _followed(console, request.path_params["name"])
    return answer


async def _followed(console: Console, key_id: str) -> None:
    """Wait until this process knows of the revocation too, so that the list that follows shows it."""
    deadline = time.monotonic() + _FOLLOWS_SECONDS
    while console.parts.keys.caller(key_id) is not None and time.monotonic() < deadline:  # noqa: ASYNC110  the ring tells nobody
        await asyncio.sleep(0.05)
