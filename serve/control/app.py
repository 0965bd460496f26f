"""The admin API's application."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.api.group_operations import groups
from registry.api.key_operations import keys
from registry.api.operations import adapters, whole
from registry.store import Registry
from serve.control.caller import Control
from serve.control.handlers import OWN
from serve.control.layer import ApiLayer, add_handlers
from serve.control.routes import routes
from serve.control.schema import describe
from serve.control.state import ControlState
from serve.rollout.operations import rollouts

TABLES = (adapters, whole, rollouts, groups, keys)
"""The tables that have routes here."""


def control_schema() -> dict[str, Any]:
    """Return the OpenAPI document of the admin API, without a server or a root."""
    return application().openapi()


def build_control(registry: Registry, state: ControlState) -> ASGIApp:
    """Return the admin API of one server process, to be called by its router after authentication.

    The router puts who asks (a key's id, or `anonymous`) into `scope["state"]["who"]`; without it every
    request is refused with 401.
    """
    admin, control = application(), Control(registry, state)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {**scope.get("state", {}), "control": control}
        await admin(scope, receive, send)

    return answer


@cache  # The routes are the same for every server and take a tenth of a second to build.
def application() -> FastAPI:
    """Return the admin API itself; who asks it, and of which server, comes with each request."""
    app = FastAPI(
        title="Wardrobe admin API",
        version=version("wardrobe-llm"),
        openapi_url="/admin/openapi.json",
        docs_url=None,  # their pages load scripts from a foreign host
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    add_handlers(app)
    for table in TABLES:
        app.include_router(routes(table, OWN))
    app.add_middleware(ApiLayer)
    describe(app)
    return app
