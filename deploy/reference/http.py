"""The page of HTTP: the router's allow-list, the admin API's OpenAPI document, and the tree of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.reference import errors
from deploy.reference.tables import code, page, sentence, table
from registry.api.operation import SCOPE
from registry.entries.rights import Scope
from serve.control.app import control_schema
from serve.protocol.fields import IGNORED, UNSERVED
from serve.protocol.paths import ENDPOINTS, PATTERNS, Endpoint, PathKind

_CLIENTS = """\
Everything below `/v1` is vLLM's own protocol but for `model`, which names an adapter: `support` (the
router decides), `support@3`, `support@stable`, `support@canary`, `support@myalias`, or the base's served
name. `/a/NAME/v1/…` is the same as `/v1/…` with `model: NAME`, for [balancers that hash on the
path](../how-to/deploy.md#ask-where-it-is-resident): the body then has no `model`, null or the same one; any
other is a 400, and `/v1/models` lists that one alone. A path that is not listed here is a 404 and never
reaches vLLM. [The life of a request](../../serve/README.md#the-life-of-a-request)."""

_TASKS = """\
A path that the base model cannot answer is a 404 `task_not_supported` that says so: a base that generates
gives no embeddings, scores or decisions, one that embeds or scores no text. vLLM decides which it is. The
answer to a wrong path names the right one where there is one (`/chat/completions`, `/v1/v1/…`, a slash at
the end)."""

_STORED = """\
Responses are kept in the replica's memory, for the key that asked, within the limits of
[`responses`](settings.md), unless the request says `store: false`; `previous_response_id` and items by
reference go on from them."""

_ALLOWED = """\
This is the whole allow-list. A key needs one of the scopes, and so does its group (`admin` includes them all,
`infer` of a key `feedback`). What does not exist for a key's [group](../how-to/groups.md) is a 404. `…` is
whatever the API behind it has there, in full below."""

_STORED_PATHS = (
    ("GET", "`/v1/responses/ID`", "the response again; `?stream=true`, `&starting_after=N`: as events"),
    ("GET", "`/v1/responses/ID/input_items`", "what the model was asked; `limit`, `order`, `after`"),
    ("DELETE", "`/v1/responses/ID`", "forget it"),
    ("POST", "`/v1/responses/ID/cancel`", "400: only background responses could be cancelled"),
)

_PLATFORM = """\
OpenAI's own, for its unmodified clients; to make a batch a key needs `infer` too. What another key made is a
404, but for one with the scope `admin`, or `read` to look at it. An unknown field is a 400
`unknown_parameter`. Limits are in [`tuning` and `batches`](settings.md)."""

_PLATFORM_PATHS = (
    ("POST, GET", "`/v1/files`", "upload (a form: `file`, `purpose`, `expires_after[…]`); list"),
    ("GET, DELETE", "`/v1/files/ID`", "what is known of a file; remove it"),
    ("GET", "`/v1/files/ID/content`", "its bytes as they came"),
    ("POST", "`/v1/uploads`, `/v1/uploads/ID/parts`, `…/complete`, `…/cancel`", "a larger file, in parts"),
    ("POST, GET", "`/v1/batches`", "have a file of requests answered (`completion_window: 24h`); list"),
    ("GET", "`/v1/batches/ID`", "how far it has come, and the files that it gave"),
    ("POST", "`/v1/batches/ID/cancel`", "ask nothing more; what was answered is kept"),
)

_FIELDS = """\
What vLLM would take and ignore, though the answer would be another one, is a 400 `unsupported_parameter`,
and so are tools that OpenAI or Anthropic would run themselves (`web_search`, `code_interpreter`, `mcp`, …).
Tools are a 400 `tools_not_enabled` where the base has no [tool format](../how-to/clients.md#tools) known
here."""

_DIALECTS = {"openai": "chat, completions, …", "responses": "`/v1/responses`", "messages": "`/v1/messages`"}

_ADMIN = f"""\
Needs a key with the scope `{SCOPE}`, or `read` to look, once any key exists. The same as OpenAPI:
`GET /admin/openapi.json`."""

_MEANING = {
    PathKind.INFERENCE: "forwarded to vLLM",
    PathKind.MODELS: "the base and every adapter, with versions and `max_model_len`; one; `ft:…` out of use",
    PathKind.STORED: "a kept response",
    PathKind.ADMIN: "the admin API",
    PathKind.PLATFORM: "OpenAI's platform endpoints",
    PathKind.CONSOLE: "the console: pages for a browser, with a login of their own",
    PathKind.FEEDBACK: "a score for an answer: `{response_id | adapter, score 0…1, unit?, comment?}`",
    PathKind.LIVE: "the process lives",
    PathKind.READY: "200 when requests are taken, else 503",
    PathKind.METRICS: "Prometheus' format; of a group with limits or hidden adapters its own series alone",
}

_HEADERS = (
    ("request", "`authorization: Bearer KEY`, `x-api-key` or `api-key`", "the key, where keys are in use"),
    ("request", "`x-session-id`", "the unit of a rollout: one session stays on one arm"),
    ("request", "`x-request-id`", "one word of visible ASCII, 128 characters at most: is echoed"),
    ("request", "`traceparent`, `tracestate`", "the trace that a span belongs to"),
    ("response", "`x-wardrobe-adapter`", "who answered: `support@3`; in a rollout only if a version wrote"),
    ("response", "`x-wardrobe-arm`", "`stable`, `canary`, `direct` (an explicit reference) or `base`"),
    (
        "response",
        "`x-ratelimit-…`",
        "what is left of limits (`…-remaining-tokens`); on `/v1/messages` `anthropic-ratelimit-…`",
    ),
    ("response", "`x-wardrobe-digest`", "the version's digest"),
    ("response", "`x-request-id`", "of every answer, errors too: the client's own, else one of the server's"),
    ("response", "`request-id`", "the same on `/v1/messages`, where Anthropic's clients look"),
    ("response", "`retry-after`", "seconds, with 429 and 503"),
    ("response", "`x-should-retry`", "`false` where trying again ends the same way (409, 501, 504)"),
)


def render() -> str:
    """Return the page."""
    paths = table(("method", "path", "scope", ""), _routes())
    headers = table(("", "header", ""), _HEADERS)
    return page(
        "HTTP",
        "## For clients",
        _CLIENTS,
        _ALLOWED,
        paths,
        _TASKS,
        "### Stored responses",
        _STORED,
        table(("method", "path", ""), _STORED_PATHS),
        "### Files and batches",
        _PLATFORM,
        table(("method", "path", ""), _PLATFORM_PATHS),
        "### Fields that are refused",
        _FIELDS,
        table(("field", "on", "", "instead"), _unserved()),
        f"Taken, and without effect on the answer: {', '.join(map(_code_first, IGNORED))}.",
        "## Headers",
        headers,
        "## Admin API",
        _ADMIN,
        *_operations(control_schema()),
        errors.render(),
    )


def _unserved() -> Iterator[tuple[str, str, str, str]]:
    for one in UNSERVED:
        where = (
            "all"
            if len(one.dialects) == len(_DIALECTS)
            else ", ".join(_DIALECTS[name] for name in one.dialects)
        )
        yield code(one.field), where, one.fact, one.remedy


def _code_first(text: str) -> str:
    name, _, rest = text.partition(" ")
    return f"{code(name)} {rest}".strip()


def _routes() -> Iterator[tuple[str, str, str, str]]:
    every = {path.decode(): one for path, one in ENDPOINTS.items()} | PATTERNS
    for path, endpoint in every.items():
        methods: dict[frozenset[Scope] | None, list[str]] = {}
        for grant in endpoint.grants:
            methods.setdefault(grant.scopes, []).append(grant.method)
        for scopes, some in methods.items():
            yield ", ".join(some), code(path), _scopes(scopes), _meaning(endpoint)


def _scopes(scopes: frozenset[Scope] | None) -> str:
    if scopes is None:
        return "no key"
    return " or ".join(code(one) for one in Scope if one in scopes) or "any key"


def _meaning(endpoint: Endpoint) -> str:
    text = _MEANING[endpoint.kind]
    return f"{text} (`{endpoint.operation}`)" if endpoint.kind is PathKind.INFERENCE else text


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield "\n\n".join(filter(None, _operation(document, method, path, operation)))


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield sentence(operation.get("description"))
    rows = [
        (code(one["name"]), one["in"], _type(one["schema"]), "" if one.get("required") else "optional")
        for one in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolve(document, content["schema"])
        needed = schema.get("required", ())
        rows += [
            (code(name), kind, _type(one), "" if name in needed else "optional")
            for name, one in schema.get("properties", {}).items()
        ]
    yield table(("field", "in", "type", ""), rows)
    yield "Answers " + ", ".join(_answers(operation)) + "."


def _answers(operation: dict[str, Any]) -> Iterator[str]:
    """Yield what a success is; errors are told once, at the end of the page."""
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            continue
        contents: list[dict[str, Any]] = list(answer.get("content", {}).values())
        schema = contents[0].get("schema", {}) if contents else {}
        yield f"{status} ({_type(schema)})" if schema else status


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for one in (schema, *schema.get("anyOf", ())):
        if "$ref" in one:
            found: dict[str, Any] = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
            return found
    return schema


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return code(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(code(str(one)) for one in schema["enum"])
    return str(schema.get("type", "anything"))
