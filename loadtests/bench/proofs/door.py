"""The ASGI class in the router's place: it loads adapters and measures each in both ways.

POST /prove with `{"adapters": [[NAME, FOLDER], …]}` answers `{NAME: [together, alone, in turn]}`, each as the
proof's fields, null where it could not be measured so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.engine.vllm_engine import VllmEngine
from serve.router.residents.probing import ProbeScorer, Proof

Measured = dict[str, list[dict[str, Any] | None]]


class ProofDoor:
    """Answers /prove, and passes the rest on to vLLM."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.scorer: ProbeScorer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != "/prove":
            await self.app(scope, receive, send)
            return
        if self.scorer is None:
            self.scorer = ProbeScorer(VllmEngine.from_app(scope["app"]))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = json.dumps(await prove(self.scorer, json.loads(body)["adapters"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


async def prove(scorer: ProbeScorer, adapters: Sequence[tuple[str, str]]) -> Measured:
    """Load adapters, measure them together, alone and in turn, and unload them."""
    engine, names = scorer.engine, [name for name, _ in adapters]
    for name, folder in adapters:
        await engine.load(name, Path(folder))
    together = await scorer.measure_together(names)
    found: Measured = {}
    for name, proof in zip(names, together, strict=True):
        alone = await scorer.measure_alone(name)
        found[name] = [_fields(proof), _fields(alone), _fields(await scorer.measure_in_turn(name))]
        await engine.unload(name)
    return found


def _fields(proof: Proof | Exception | None) -> dict[str, Any] | None:
    if isinstance(proof, Exception):
        raise proof
    return None if proof is None else {**asdict(proof), "clear": proof.clear, "passed": proof.passed}
