"""The page of an adapter's last rollout: where it stands, both arms, every test, what is missing, and why."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve.console.acts import Act, FormField, done_by, show_form, take_form
from serve.console.entrance import HOME
from serve.console.forms import SentForm
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer
from serve.rollout import documents as doc
from serve.rollout.decision.states import RolloutState
from serve.rollout.operations import (
    abort_rollout,
    pause_rollout,
    promote_rollout,
    resume_rollout,
    show_rollout,
)

_WHY = FormField("why", "Why", hint="It is kept in the rollout's log.", required=False)


def _arguments(name: str, form: SentForm) -> dict[str, Any]:
    return {"name": name, "body": doc.WhyRequest(why=form.text("why"))}


def _command(word: str, name: str, form: SentForm) -> list[str]:
    return ["rollout", word, name, *(["--why", form.text("why")] if form.text("why") else [])]


def _act(word: str, title: str, effect: str, done: str, row: Any, *, danger: bool = False) -> Act:
    return Act(word, title, effect, done, (_WHY,), row, _arguments, partial(_command, word), danger)


ACTS = (
    _act("pause", "Pause the rollout", "The canary's share stays as it is; alarms stay armed.",
         "The rollout is paused.", pause_rollout),
    _act("resume", "Resume the rollout", "It goes on where it was paused.",
         "The rollout goes on.", resume_rollout),
    _act("promote", "Promote the canary", "It becomes stable now, whatever the evidence says.",
         "The canary is promoted.", promote_rollout),
    _act("abort", "Abort the rollout", "All traffic goes to stable, at once and for good.",
         "The rollout is aborted.", abort_rollout, danger=True),
)  # fmt: skip
"""Every act on a rollout."""


async def show_page(console: Console, request: Request, viewer: Viewer) -> Response:
    """Show the adapter's last rollout."""
    name = request.path_params["name"]

    async def make() -> doc.RolloutStatus:
        return await viewer.asking(console.control).answer(show_rollout, {"name": name})

    status: doc.RolloutStatus = await console.remember(f"rollout {name}", make)
    paused = status.state == RolloutState.PAUSED.value
    shown = {
        "here": "adapters",
        "status": status,
        "acts": [one for one in ACTS if one.word != ("pause" if paused else "resume")] if status.open else [],
        "done": done_by(ACTS, request),
        "arms": [(arm, status.arms[arm]) for arm in ("stable", "canary") if arm in status.arms],
    }
    return page("rollout.html", {**viewer.context(), **shown})


async def show_act(_: Console, request: Request, viewer: Viewer) -> Response:
    """Show an act's form."""
    return show_form(ACTS, _crumbs(request), request, viewer)


async def take_act(console: Console, request: Request, viewer: Viewer) -> Response:
    """Do it, or say why it was refused."""
    answer = await take_form(console, ACTS, _crumbs(request), request, viewer)
    console.forget(f"rollout {request.path_params['name']}")
    return answer


def _crumbs(request: Request) -> list[tuple[str, str]]:
    name = request.path_params["name"]
    return [(name, f"{HOME}/adapters/{name}"), ("Rollout", f"{HOME}/rollouts/{name}")]
