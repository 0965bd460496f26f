"""The allow-list: every path that a client may reach, and nothing else.

Owns which raw path means what, and what a key needs for each of its methods; a path that is not here never
reaches vLLM. Paths are compared as the bytes that came over the wire, so `//v1`, `%61dapters`, dots and
trailing slashes match nothing.
Invariant: what is forwarded is the template's own path, never a path that a client wrote.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import NamedTuple

from registry.entries.rights import Scope
from serve.protocol.fields import watched


class PathKind(Enum):
    """What the router does with a path."""

    INFERENCE = "inference"  # a JSON body with `model`, forwarded
    UNSERVED = "unserved"  # one that the base model cannot answer
    STORED = "stored"  # a response by its id, answered here
    MODELS = "models"  # answered here, from the view
    FEEDBACK = "feedback"  # answered here
    LIVE = "live"
    READY = "ready"
    METRICS = "metrics"  # forwarded to the server's own exposition
    ADMIN = "admin"  # forwarded to the control API
    PLATFORM = "platform"  # forwarded to the platform endpoints: files, batches, fine-tuning
    CONSOLE = "console"  # forwarded to the console, which has a login of its own


class Dialect(StrEnum):
    """Whose protocol a path speaks: it decides how a stream ends and how an error looks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Grant(NamedTuple):
    """A method of a path, and the scopes of which a key needs one; empty: any key, None: no key at all."""

    method: str
    scopes: frozenset[Scope] | None


_INFER, _TUNE = frozenset({Scope.INFER}), frozenset({Scope.TUNE})
_ADMINISTER, _RATE = frozenset({Scope.ADMIN}), frozenset({Scope.FEEDBACK})
_LIST, _LOOK, _LOOK_AT_OWN = _INFER | {Scope.READ}, frozenset({Scope.READ}), _TUNE | {Scope.READ}
_ANY_KEY: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of the allow-list.

    `grants` says what a key needs, by method. `operation` is a metric label (a closed set); `inner_path` is
    the server's own path where it differs from ours; `item` is what a path's variable part held, `part` what
    is asked of it; `cap_fields` are the fields by which vLLM caps an answer's tokens, none where none is
    capped; `proves` is False where no version answers but the tokenizer, so that the outcome is evidence of
    nothing; `renders` is True where the body is always a conversation, which the chat template turns into a
    prompt; `gives` is what a base model must give to answer it; `watched` are the fields that are looked at
    before any version is; `model` is what `/a/NAME` before the path named.
    """

    kind: PathKind
    operation: str
    grants: tuple[Grant, ...] = (Grant("POST", _INFER),)
    dialect: Dialect = Dialect.OPENAI
    inner_path: str | None = None
    cap_fields: tuple[str, ...] = ()
    item: str = ""
    part: str = ""
    proves: bool = True
    renders: bool = False
    gives: str = "text"
    watched: frozenset[str] = frozenset()
    model: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that it has."""
        return tuple(one.method for one in self.grants)

    def needs(self, method: str) -> frozenset[Scope] | None:
        """Return the scopes of which a key needs one, none: any key does; None: no key is looked at."""
        return next(one.scopes for one in self.grants if one.method == method)


def _inference(
    operation: str,
    cap_fields: tuple[str, ...] = (),
    dialect: Dialect = Dialect.OPENAI,
    *,
    renders: bool = False,
    proves: bool = True,
    gives: str = "text",
) -> Endpoint:
    return Endpoint(
        PathKind.INFERENCE,
        operation,
        dialect=dialect,
        cap_fields=cap_fields,
        renders=renders,
        proves=proves,
        gives=gives,
        watched=watched(dialect.value),
    )


def _tokenizer(operation: str, inner_path: str) -> Endpoint:
    return Endpoint(PathKind.INFERENCE, operation, inner_path=inner_path, proves=False, gives="")


_CHAT_CAPS = ("max_completion_tokens", "max_tokens")


def _grants(scopes: frozenset[Scope] | None, *methods: str) -> tuple[Grant, ...]:
    return tuple(Grant(method, scopes) for method in methods)


_LISTED = _grants(_LIST, "GET", "HEAD")
_NO_KEY = _grants(None, "GET", "HEAD")
_MODELS = Endpoint(PathKind.MODELS, "models", _LISTED)
_ONE_MODEL = Endpoint(PathKind.MODELS, "models", (*_LISTED, *_grants(_TUNE, "DELETE")))
_STORED = Endpoint(PathKind.STORED, "responses", _grants(_INFER, "GET", "DELETE"), Dialect.RESPONSES)
_STORED_PARTS = {"cancel": _grants(_INFER, "POST"), "input_items": _grants(_INFER, "GET")}
_ADMIN = Endpoint(
    PathKind.ADMIN,
    "admin",
    (*_grants(_LOOK, "GET", "HEAD"), *_grants(_ADMINISTER, "POST", "PUT", "PATCH", "DELETE")),
)
_PLATFORM = Endpoint(
    PathKind.PLATFORM, "platform", (*_grants(_LOOK_AT_OWN, "GET"), *_grants(_TUNE, "POST", "DELETE"))
)
_CONSOLE = Endpoint(PathKind.CONSOLE, "console", _grants(None, "GET", "HEAD", "POST"))

ENDPOINTS: dict[bytes, Endpoint] = {
    b"/v1/chat/completions": _inference("chat", _CHAT_CAPS, renders=True),
    b"/v1/chat/completions/batch": _inference("chat_batch", _CHAT_CAPS, renders=True),
    b"/v1/completions": _inference("completion", ("max_tokens",)),
    b"/v1/responses": _inference("responses", ("max_output_tokens",), Dialect.RESPONSES, renders=True),
    b"/v1/messages": _inference("messages", ("max_tokens",), Dialect.MESSAGES, renders=True),
    b"/v1/messages/count_tokens": _inference(
        "count_tokens", dialect=Dialect.MESSAGES, renders=True, proves=False
    ),
    b"/v1/embeddings": _inference("embeddings", gives="embeddings"),
    b"/v1/score": _inference("score", gives="scores"),
    b"/v1/rerank": _inference("rerank", gives="scores"),
    b"/v1/systemone": _inference("decision", gives="decisions"),
    # vLLM serves these two at the root, beside its operators' routes; here all of a client's are under /v1.
    b"/v1/tokenize": _tokenizer("tokenize", "/tokenize"),
    b"/v1/detokenize": _tokenizer("detokenize", "/detokenize"),
    b"/v1/models": _MODELS,
    b"/v1/feedback": Endpoint(PathKind.FEEDBACK, "feedback", _grants(_RATE, "POST")),
    b"/livez": Endpoint(PathKind.LIVE, "livez", _NO_KEY),
    b"/readyz": Endpoint(PathKind.READY, "readyz", _NO_KEY),
    # vLLM's own name for it: balancers made for vLLM ask for it, vllm-router whatever it is told.
    b"/health": Endpoint(PathKind.READY, "readyz", _NO_KEY),
    b"/metrics": Endpoint(PathKind.METRICS, "metrics", _grants(_ANY_KEY, "GET")),
}

PATTERNS: dict[str, Endpoint] = {
    "/v1/models/{model}": _ONE_MODEL,
    "/v1/responses/{id}": _STORED,
    "/v1/responses/{id}/cancel": replace(_STORED, grants=_STORED_PARTS["cancel"], part="cancel"),
    "/v1/responses/{id}/input_items": replace(
        _STORED, grants=_STORED_PARTS["input_items"], part="input_items"
    ),
    "/v1/files…": _PLATFORM,
    "/v1/uploads…": _PLATFORM,
    "/v1/batches…": _PLATFORM,
    "/v1/fine_tuning…": _PLATFORM,
    "/admin…": _ADMIN,
    "/console…": _CONSOLE,
}
"""The entries of paths with a variable part; `…` is whatever the API behind has there. `/a/NAME` may stand
before every path under `/v1`."""

OPERATIONS = tuple(sorted({endpoint.operation for endpoint in ENDPOINTS.values()}))

# An id of ours (response_id.py); `@` may come percent-encoded, nothing else may.
_RESPONSE = re.compile(rb"/v1/responses/(resp_[A-Za-z0-9._@-]{1,256})(?:/(cancel|input_items))?")
_MODEL = re.compile(rb"/v1/models/([A-Za-z0-9._@/:-]{1,512})")
# `/a/NAME`, NAME@N, NAME@ALIAS or `ft:…`, before a path under /v1: what a balancer can hash on.
_NAMED = re.compile(
    rb"/a/([a-z0-9][a-z0-9._-]{0,62}(?:(?:@|%40)[A-Za-z0-9._-]{1,63})?"
    rb"|ft(?::|%3[Aa])(?:[A-Za-z0-9._:@-]|%3[Aa]|%2[Ff]|%40){1,512})(/v1/.+)"
)
_ESCAPES = ((b"%40", b"@"), (b"%2F", b"/"), (b"%2f", b"/"), (b"%3A", b":"), (b"%3a", b":"))
"""What a model's name may hold and a client may escape; nothing else comes escaped."""

_CONTROL = re.compile(rb"/admin(?:/[A-Za-z0-9_@-][A-Za-z0-9._@-]*)+")
_PAGE = re.compile(rb"/console(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
# The platform's own routes say which of these there are; a tuned model's name may stand in one.
_RESOURCE = re.compile(
    rb"/v1/(?:files|uploads|batches|fine_tuning)(?:/[A-Za-z0-9_-](?:[A-Za-z0-9._:@-]|%(?:2[Ff]|3[Aa]|40))*)*"
)


def served_endpoints(paths: Collection[str] | None) -> dict[bytes, Endpoint]:
    """Return the allow-list of a server behind that answers `paths`, None: all that there are.

    What it does not answer stays known, so that a client is told the reason.
    """
    if paths is None:
        return ENDPOINTS
    return {path: _limited(path, endpoint, paths) for path, endpoint in ENDPOINTS.items()}


def _limited(path: bytes, endpoint: Endpoint, paths: Collection[str]) -> Endpoint:
    if endpoint.kind is not PathKind.INFERENCE or (endpoint.inner_path or path.decode()) in paths:
        return endpoint
    return replace(endpoint, kind=PathKind.UNSERVED)


def find_endpoint(raw_path: bytes, endpoints: dict[bytes, Endpoint] = ENDPOINTS) -> Endpoint | None:
    """Return the allow-list's entry for `raw_path` (without the query string), or None: denied."""
    endpoint = endpoints.get(raw_path)
    if endpoint is None:
        endpoint = _find_pattern(raw_path) or find_named(raw_path, endpoints)
    return endpoint


def find_named(raw_path: bytes, endpoints: dict[bytes, Endpoint]) -> Endpoint | None:
    """Return the entry for `/a/NAME/v1/…`, which is `/v1/…` with the `model` NAME; None for other paths."""
    found = _NAMED.fullmatch(raw_path)
    if found is None:
        return None
    path = found[2]
    endpoint = endpoints.get(path) or _find_pattern(path)
    if endpoint is None:
        return None
    inner_path = endpoint.inner_path or path.decode()
    return replace(endpoint, model=_unescaped(found[1]).decode(), inner_path=inner_path)


def unnamed(raw_path: bytes) -> bytes:
    """Return a path without `/a/NAME` before it."""
    found = _NAMED.fullmatch(raw_path)
    return raw_path if found is None else found[2]


def _find_pattern(raw_path: bytes) -> Endpoint | None:
    if _CONTROL.fullmatch(raw_path):
        return _ADMIN
    if _RESOURCE.fullmatch(raw_path):
        return _PLATFORM
    if _PAGE.fullmatch(raw_path):
        return _CONSOLE
    if found := _RESPONSE.fullmatch(raw_path.replace(b"%40", b"@")):
        part = (found[2] or b"").decode()
        grants = _STORED_PARTS.get(part, _STORED.grants)
        return replace(_STORED, grants=grants, item=found[1].decode(), part=part)
    # Answered here from the view: the name is looked up and never forwarded.
    if found := _MODEL.fullmatch(_unescaped(raw_path)):
        return replace(_ONE_MODEL, item=found[1].decode())
    return None


def _unescaped(raw_path: bytes) -> bytes:
    for escape, character in _ESCAPES:
        raw_path = raw_path.replace(escape, character)
    return raw_path
