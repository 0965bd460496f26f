"""Which methods a path of an API has."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from serve.control.app import application


def control_methods(path: str) -> tuple[str, ...]:
    """Return the methods of a path of the admin API, sorted; none for a path that is not served."""
    return methods_of(application(), path)


def methods_of(app: FastAPI, path: str) -> tuple[str, ...]:
    """Return the methods of a path of `app`, sorted; none for a path that is not served."""
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, APIRoute):
            if route.path_regex.match(path):
                found |= route.methods
        elif getattr(route, "path", None) == path:
            found |= getattr(route, "methods", None) or set()  # the OpenAPI document
    return tuple(sorted(found))
