"""The application of the platform endpoints: files, uploads and what the router adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.control.layer import ApiLayer
from serve.openai import files, uploads
from serve.openai.asker import Platform
from serve.openai.errors import add_refusals, answer_error


def build_platform(platform: Platform, app: ASGIApp) -> ASGIApp:
    """Return the endpoints `app` of one server process, to be called by its router after authentication.

    The router puts who asks into `scope["state"]["who"]`, and into `sees_all` whether it sees what others
    made; without them every request is refused with 401.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {**scope.get("state", {}), "platform": platform}
        await app(scope, receive, send)

    return answer


def platform_application(more: Sequence[APIRouter]) -> FastAPI:
    """Return the application itself with `more` routers; who asks, and which server, comes with a request."""
    app = FastAPI(
        title="Wardrobe platform API",
        version=version("wardrobe-llm"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    add_refusals(app)
    for router in (files.router, uploads.router, *more):
        app.include_router(router)
    app.add_middleware(ApiLayer, reads_itself=_reads_itself, answer=answer_error)
    return app


def _reads_itself(method: str, path: str) -> bool:
    """Return True for a route that streams its body to the disk."""
    parts = path.split("/")[2:]
    return method == "POST" and (parts == ["files"] or (parts[:1] == ["uploads"] and parts[2:] == ["parts"]))
