"""The pages of adapters: a list that is searched on the server, one adapter, one version.

Owns what they show; everything but a version's attestations is read from memory. Invariant: no page holds
more than `ROWS` rows of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from registry.api import operations
from registry.api.documents import ReplicaDocument
from registry.views.view import AdapterView, no_adapter
from serve.console.acts import ACTS, done_by
from serve.console.forms import cut, search_text
from serve.console.pages.verdicts import verdicts
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer
from serve.control.handlers import brief_of


async def show_adapters(console: Console, request: Request, viewer: Viewer) -> Response:
    """List the adapters whose name holds what is searched for."""
    search, every = search_text(request), console.view.adapters
    found = sorted(name for name in every if search in name)
    names, pager = cut(found, request)
    rows = [(brief_of(every[name]), every[name]) for name in names]
    shown = {"here": "adapters", "search": search, "count": len(found), "all": len(every), "rows": rows}
    return page("adapters.html", {**viewer.context(), **shown, **pager})


async def show_adapter(console: Console, request: Request, viewer: Viewer) -> Response:
    """Show one adapter with its versions, the newest first."""
    one = _found(console, request)
    numbers, pager = cut(sorted(one.versions.keys() | one.quarantined.keys(), reverse=True), request)
    shown = {
        "here": "adapters",
        "one": one,
        "aliases": sorted(one.aliases.items()),
        "numbers": numbers,
        "by_number": {n: [a for a, at in sorted(one.aliases.items()) if at == n] for n in numbers},
        "residents": _residents(one.name, await _replicas(console, viewer)),
        "done": done_by(ACTS, request),
    }
    return page("adapter.html", {**viewer.context(), **shown, **pager})


async def show_version(console: Console, request: Request, viewer: Viewer) -> Response:
    """Show one version: what it is, and what was found out about it."""
    one, number = _found(console, request), request.path_params["number"]
    asked = {"name": one.name, "number": number}
    version = await viewer.asking(console.control).answer(operations.show_version, asked)
    shown = {
        "here": "adapters",
        "version": version,
        "verdicts": verdicts(version),
        "lineage": [told for told in version.attestations if told.kind == "lineage"],
        "residents": _residents(one.name, await _replicas(console, viewer)).get(number, []),
    }
    return page("version.html", {**viewer.context(), **shown})


def _found(console: Console, request: Request) -> AdapterView:
    name, every = request.path_params["name"], console.view.adapters
    if name not in every:
        raise no_adapter(name, every)
    return every[name]


async def _replicas(console: Console, viewer: Viewer) -> list[ReplicaDocument]:
    async def make() -> list[ReplicaDocument]:
        return (await viewer.asking(console.control).answer(operations.list_replicas, {})).replicas

    found: list[ReplicaDocument] = await console.remember("replicas", make)
    return found


def _residents(name: str, replicas: list[ReplicaDocument]) -> Mapping[int, list[str]]:
    """Return which servers hold which version of an adapter."""
    found: dict[int, list[str]] = {}
    for one in replicas:
        for resident in one.resident if one.live else ():
            adapter, _, number = resident.rpartition("@")
            if adapter == name and number.isdigit():
                found.setdefault(int(number), []).append(one.replica)
    return found
