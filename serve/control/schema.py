"""The OpenAPI document of the admin API, so that generators make a client that works.

FastAPI writes it; here it gets what FastAPI does not know (keys, servers, what a tag is about) and loses what
generators trip over. Invariant: what is taken away was a word for people, never a rule.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from registry.api.operation import SCOPE
from registry.names import NAME_PATTERN
from serve.control.errors import keep_own_refusals

NAME = {"pattern": f"^{NAME_PATTERN}$"}
"""An adapter's name, for the document; requests are told by `registry.names`, with a reason."""

ALIAS = {"pattern": "^([a-z][a-z0-9._-]*|[0-9]+[a-z._-][a-z0-9._-]*)$", "maxLength": 63}
"""The same for an alias, which is never all digits; without look-ahead, which not every generator knows."""

TAGS = [
    {"name": "adapters", "description": "What there is, new versions by upload, aliases, deletion."},
    {
        "name": "rollouts",
        "description": "Canary rollouts: start, watch, steer, explain; alerts that end them.",
    },
    {"name": "groups", "description": "Whom keys belong to, what they may do, and what they used."},
    {"name": "keys", "description": "The keys there are, and taking one out of use."},
    {"name": "operations", "description": "The whole: status, replicas, drain, audit, verify, collection."},
]

EXAMPLES: dict[str, dict[str, Any]] = {
    "MoveRequest": {"version": 3},
    "VerifyRequest": {"adapter": "support", "version": 3},
    "GcRequest": {"apply": True},
    "DrainRequest": {"draining": True},
    "StartRequest": {"version": 3, "policy": "fast"},
    "NewGroupRequest": {"group": "legal", "adapters": ["legal-*"], "limits": {"requests_per_minute": 60}},
    "GroupRequest": {"adapters": ["legal-*", "support"], "limits": {"tokens_per_day": 1_000_000}},
    "WhyRequest": {"why": "not today"},
}
"""A body for each kind of request."""

_ABOUT = (
    f"Adapters, versions, aliases and rollouts of a Wardrobe server. Needs a key with the scope `{SCOPE}` "
    "once any key exists (`wardrobe keys create`). Every refusal is an `ErrorDocument`."
)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": f"A key with the scope `{SCOPE}`."},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same, in a header."},
}
_SERVERS = [
    {"url": "/", "description": "The server that gave this document"},
    {
        "url": "http://{host}:{port}",
        "description": "A server of your own",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "8000"}},
    },
]


def describe(app: FastAPI) -> None:
    """Let `app` give the whole document from now on."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(plain())
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    document["info"]["description"] = _ABOUT
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    document["servers"] = _SERVERS
    document["tags"] = TAGS
    document["components"]["securitySchemes"] = _SCHEMES
    # The last one: a server without keys, which listens on its own machine only.
    document["security"] = [{"bearer": []}, {"key": []}, {}]
    schemas = document["components"]["schemas"]
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    schemas["VerifyRequest"]["properties"]["adapter"] |= NAME
    _drop_object_defaults(schemas)
    keep_own_refusals(document)
    return document


def _drop_object_defaults(node: object) -> None:
    """Take away defaults that are objects: their fields have the same ones.

    NOTE: openapi-python-client drops a model for one on `anyOf [$ref, null]` and ends with 0. Remove when it
    does not (0.29).
    """
    if isinstance(node, dict):
        if isinstance(node.get("default"), dict):
            del node["default"]
        for value in node.values():
            _drop_object_defaults(value)
    elif isinstance(node, list):
        for value in node:
            _drop_object_defaults(value)
