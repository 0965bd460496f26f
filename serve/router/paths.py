"""The allow-list: every path that a client may reach, and nothing else.

Owns which raw path means what; a path that is not here never reaches vLLM. Paths are compared as the
bytes that came over the wire, so `//v1`, `%61dapters`, dots and trailing slashes match nothing.
Invariant: what is forwarded is the template's own path, never a path that a client wrote, except for a
response id that was matched against its strict grammar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, StrEnum


class Kind(Enum):
    """What the router does with a path."""

    INFERENCE = "inference"  # a JSON body with `model`, forwarded
    STORED = "stored"  # a response by its id, forwarded
    MODELS = "models"  # answered here, from the view
    FEEDBACK = "feedback"  # answered here
    LIVE = "live"
    READY = "ready"
    METRICS = "metrics"  # forwarded to the server's own exposition
    ADMIN = "admin"  # forwarded to the control API


class Dialect(StrEnum):
    """Whose protocol a path speaks: it decides how a stream ends and how an error looks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of the allow-list.

    `operation` is a metric label (a closed set); `inner_path` is the server's own path where it differs
    from ours; `item` is what a path's variable part held; `cap_field` names the field that caps
    the answer's tokens, None where there is no answer to cap; `proves` is False where no version answers
    but the tokenizer, so that the outcome is evidence of nothing; `renders` is True where the body is
    always a conversation, which the chat template turns into a prompt.
    """

    kind: Kind
    operation: str
    methods: tuple[str, ...] = ("POST",)
    dialect: Dialect = Dialect.OPENAI
    inner_path: str | None = None
    cap_field: str | None = None
    item: str = ""
    proves: bool = True
    renders: bool = False


def _inference(operation: str, cap_field: str | None = None, *, renders: bool = False) -> Endpoint:
    return Endpoint(Kind.INFERENCE, operation, cap_field=cap_field, renders=renders)


def _tokenizer(operation: str, inner_path: str) -> Endpoint:
    return Endpoint(Kind.INFERENCE, operation, inner_path=inner_path, proves=False)


_GET = ("GET", "HEAD")
_MODELS = Endpoint(Kind.MODELS, "models", _GET)
_STORED = Endpoint(Kind.STORED, "responses", ("GET",), Dialect.RESPONSES)
_ADMIN = Endpoint(Kind.ADMIN, "admin", ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))

ENDPOINTS: dict[bytes, Endpoint] = {
    b"/v1/chat/completions": _inference("chat", cap_field="max_completion_tokens", renders=True),
    b"/v1/chat/completions/batch": _inference("chat_batch", cap_field="max_completion_tokens", renders=True),
    b"/v1/completions": _inference("completion", cap_field="max_tokens"),
    b"/v1/responses": Endpoint(
        Kind.INFERENCE,
        "responses",
        dialect=Dialect.RESPONSES,
        cap_field="max_output_tokens",
        renders=True,
    ),
    b"/v1/messages": Endpoint(
        Kind.INFERENCE, "messages", dialect=Dialect.MESSAGES, cap_field="max_tokens", renders=True
    ),
    b"/v1/messages/count_tokens": Endpoint(
        Kind.INFERENCE, "count_tokens", dialect=Dialect.MESSAGES, proves=False, renders=True
    ),
    b"/v1/embeddings": _inference("embeddings"),
    b"/v1/score": _inference("score"),
    b"/v1/rerank": _inference("rerank"),
    b"/v1/systemone": _inference("decision"),
    # vLLM serves these two at the root, beside its operators' routes; here all of a client's are under /v1.
    b"/v1/tokenize": _tokenizer("tokenize", "/tokenize"),
    b"/v1/detokenize": _tokenizer("detokenize", "/detokenize"),
    b"/v1/models": _MODELS,
    b"/v1/feedback": Endpoint(Kind.FEEDBACK, "feedback"),
    b"/livez": Endpoint(Kind.LIVE, "livez", _GET),
    b"/readyz": Endpoint(Kind.READY, "readyz", _GET),
    # vLLM's own name for it: balancers made for vLLM ask for it, vllm-router whatever it is told.
    b"/health": Endpoint(Kind.READY, "readyz", _GET),
    b"/metrics": Endpoint(Kind.METRICS, "metrics", ("GET",)),
}

OPERATIONS = tuple(sorted({endpoint.operation for endpoint in ENDPOINTS.values()}))

# An id of ours (response_id.py); `@` may come percent-encoded, nothing else may.
_RESPONSE = re.compile(rb"/v1/responses/(resp_[A-Za-z0-9._@-]{1,256})(/cancel)?")
_MODEL = re.compile(rb"/v1/models/([A-Za-z0-9._@/-]{1,256})")
_CONTROL = re.compile(rb"/admin(?:/[A-Za-z0-9_@-][A-Za-z0-9._@-]*)+")


def find_endpoint(raw_path: bytes) -> Endpoint | None:
    """Return the allow-list's entry for `raw_path` (without the query string), or None: denied."""
    endpoint = ENDPOINTS.get(raw_path)
    return endpoint if endpoint is not None else _find_pattern(raw_path)


def _find_pattern(raw_path: bytes) -> Endpoint | None:
    if _CONTROL.fullmatch(raw_path):
        return _ADMIN
    if found := _RESPONSE.fullmatch(raw_path.replace(b"%40", b"@")):
        item, cancel = found[1].decode(), found[2] is not None
        path = f"/v1/responses/{item}{'/cancel' if cancel else ''}"
        return replace(_STORED, methods=("POST",) if cancel else ("GET",), inner_path=path, item=item)
    # Answered here from the view: the name is looked up and never forwarded.
    if found := _MODEL.fullmatch(raw_path.replace(b"%40", b"@").replace(b"%2F", b"/")):
        return replace(_MODELS, item=found[1].decode())
    return None
