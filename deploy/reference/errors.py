"""The errors of the page of HTTP: every code that a client or a script can meet, from the code itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from deploy.reference.tables import code, sentence, table
from registry.errors import WardrobeError

MODULES = (
    "registry.errors", "registry.storage.disk", "serve.errors", "serve.rollout.decision.machine",
    "serve.rollout.display.watch", "serve.tuning.graders", "train.evaluation.models.served",
    "train.loop.guards", "train.migrating.interface",
)  # fmt: skip
"""Where the product's errors are defined; those of benchmarks are nobody's reference."""

OTHERS = (
    (403, "foreign_form", "authentication_error", "A form of the console that this session did not make."),
    (403, "foreign_origin", "authentication_error", "A page of another site tried to change something."),
    (501, "unsupported", "invalid_request_error", "The model or the engine has no such feature (vLLM)."),
    (503, "engine_draining", "server_error", "The launcher, while the server is shutting down."),
    (503, "engine_restarting", "server_error", "The launcher, while the engine is being restarted."),
    (503, "engine_starting", "server_error", "The launcher, before the engine is ready."),
)  # fmt: skip
"""Codes without a class of their own: status, code, type, meaning."""

_SHAPE = """\
Every error has the body `{"error": {"message", "type", "param", "code"}}`, whoever refused: what vLLM says is
put into these words too, and so are events within a stream. On `/v1/messages` the body also has
`"type": "error"` and the `type` is Anthropic's: """

_RETRIES = """\
`retry-after` says when to come back (429, 503), on a limit of a group `retry-after-ms` too;
`x-should-retry: false` tells the clients of OpenAI and Anthropic not to try again by themselves (409, 501,
504, and a 429 that no short wait helps). The exit code is that of a command that ends with the error; codes
with 500 and no other use are of commands only."""


def render() -> str:
    """Return the section."""
    return "\n\n".join(
        [
            "## Errors",
            _SHAPE + _anthropic(),
            table(("status", "code", "type", "exit code", ""), rows()),
            _RETRIES,
        ]
    )


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return one row for each code, by status."""
    for name in MODULES:
        import_module(name)
    kinds: list[type[WardrobeError]] = [WardrobeError, *_kinds(WardrobeError)]
    found = [(one.http_status, one.code, one.type, str(one.exit_code), _meaning(one)) for one in kinds]
    found += [(status, name, kind, "", words) for status, name, kind, words in OTHERS]
    return [
        (str(status), code(name), code(kind), exit_code, words)
        for status, name, kind, exit_code, words in sorted(found)
    ]


def _meaning(kind: type[WardrobeError]) -> str:
    """Return what a code means; what follows at the root of the tree is for those who raise errors."""
    text = kind.__doc__ or ""
    return sentence(text.partition("\n\n")[0] if kind is WardrobeError else text)


def _kinds(parent: type[WardrobeError]) -> Iterator[type[WardrobeError]]:
    """Yield every class below `parent` in `MODULES` that has a code of its own."""
    for child in parent.__subclasses__():
        if "code" in vars(child) and child.__module__ in MODULES and not child.__name__.startswith("_"):
            yield child
        yield from _kinds(child)


def _anthropic() -> str:
    from serve.errors import anthropic_type

    statuses = (400, 401, 403, 404, 413, 429, 500, 503, 504)
    return ", ".join(f"{code(anthropic_type(one))} ({one})" for one in statuses) + "."
