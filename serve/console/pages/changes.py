"""The page of changes: who did what, when and why, filtered and cut by the registry itself."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from registry.api import operations
from serve.console.acts import command_line
from serve.console.entrance import HOME
from serve.console.forms import ROWS, SentForm, read_query
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer

ACTIONS = ("publish", "alias", "rollback", "delete", "quarantine", "attest", "rollout", "group", "unreadable")
_FILTERS = ("adapter", "who", "action")


async def show_audit(console: Console, request: Request, viewer: Viewer) -> Response:
    """Show the last changes, those before a moment where the address names one."""
    form = read_query(request)
    filters = {name: form.text(name) for name in _FILTERS}
    asked = {
        "before": _moment(form),
        "adapter": filters["adapter"] or None,
        "who": filters["who"],
        "action": filters["action"],
        "limit": ROWS,
    }
    found = await viewer.asking(console.control).answer(operations.show_newest_changes, asked)
    older = ""
    if len(found.entries) >= ROWS:
        given = {name: text for name, text in filters.items() if text}
        older = f"{HOME}/audit?{urlencode({**given, 'before': repr(found.entries[-1].at)})}"
    shown = {
        "here": "audit",
        "filters": filters,
        "actions": ACTIONS,
        "entries": found.entries,
        "reached": found.reached,
        "older": older,
        "later": form.text("before") != "",
        "command": command_line(["history", filters["adapter"]]) if filters["adapter"] else "",
    }
    return page("audit.html", {**viewer.context(), **shown})


def _moment(form: SentForm) -> float | None:
    """Return the moment that an address names; None where it names none that there is."""
    try:
        at = float(form.text("before"))
    except ValueError:
        return None
    return at if 0 <= at < 1e12 else None
