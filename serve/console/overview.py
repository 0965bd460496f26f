"""The first page: is it well, and if not, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from registry.api import operations
from registry.tuning.machine import JobState
from serve.console.attention import matters
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer

SHOWN = 50
"""How many rows of one kind are shown at once."""

_AT_WORK = (JobState.RUNNING, JobState.PAUSED, JobState.QUEUED, JobState.VALIDATING)


async def show_overview(console: Console, _: Request, viewer: Viewer) -> Response:
    """Show the page."""
    shown = {"here": "overview", "base": console.parts.registry.base.name, "traffic": _traffic(console)}
    return page("overview.html", {**viewer.context(), **shown, **await _live(console, viewer)})


async def show_live(console: Console, _: Request, viewer: Viewer) -> Response:
    """Show the part that changes by itself."""
    return page("overview_live.html", {**viewer.context(), **await _live(console, viewer)})


async def show_traffic(console: Console, _: Request, viewer: Viewer) -> Response:
    """Show what was served in the last hour."""
    return page("overview_traffic.html", {**viewer.context(), "traffic": _traffic(console)})


async def show_pulse(console: Console, _: Request, viewer: Viewer) -> Response:  # noqa: ARG001
    """Say that the server is there, and since when: a page that saw another one loads itself anew."""
    return Response(status_code=204, headers={"cache-control": "no-store", "x-wardrobe-since": console.since})


async def _live(console: Console, viewer: Viewer) -> Mapping[str, Any]:
    async def make() -> Mapping[str, Any]:
        asking = viewer.asking(console.control)
        replicas = (await asking.answer(operations.list_replicas, {})).replicas
        jobs = await console.control.run(lambda: console.jobs.in_state(*_AT_WORK))
        view = console.view
        rollouts = [one.rollout for one in view.adapters.values() if one.rollout is not None]
        return {
            "now": console.clock(),
            "adapters": len(view.adapters),
            "versions": sum(len(one.versions) for one in view.adapters.values()),
            "replicas": replicas,
            "matters": matters(view, replicas, keys_in_use=viewer.keys_in_use),
            "rollouts": sorted(rollouts, key=lambda one: -one.at)[:SHOWN],
            "rollouts_open": len(rollouts),
            "jobs": [(job.request, job.last()) for job in jobs[:SHOWN]],
            "jobs_at_work": len(jobs),
        }

    found: Mapping[str, Any] = await console.remember("live", make)
    return found


def _traffic(console: Console) -> Mapping[str, Any]:
    minutes, adapters = console.parts.traffic.minutes(), console.parts.traffic.adapters()
    requests = sum(one.requests for one in minutes)
    failed = sum(one.failed for one in minutes)
    return {
        "adapters": adapters[:SHOWN],
        "left": max(0, len(adapters) - SHOWN),
        "requests": requests,
        "failed": failed,
        "replica": console.parts.state.replica,
        "plot": [
            [one.at for one in minutes],
            [one.requests for one in minutes],
            [one.failed for one in minutes],
        ],
    }
