"""ASGI classes for the engine's process in place of the real router; chosen by their import path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from registry.errors import WardrobeError
from serve.engine.vllm_engine import VllmEngine

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class EngineDoor:
    """Lets a test call `VllmEngine` from another process: POST /engine/VERB with a JSON body.

    It also answers what no part of the product may show: vLLM's own list of loaded ids, and its config.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.engine: VllmEngine | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer /engine/…, pass on the rest."""
        if scope["type"] != "http" or not scope["path"].startswith("/engine/"):
            await self.app(scope, receive, send)
            return
        self.engine = self.engine or VllmEngine.from_app(scope["app"])
        arguments = json.loads(await _body(receive) or b"{}")
        verb = scope["path"].removeprefix("/engine/")
        try:
            answer = await self._call(self.engine, scope["app"].state, verb, arguments)
            await _respond(send, 200, {"answer": answer})
        except WardrobeError as error:
            await _respond(send, error.http_status, {"subject": error.subject, "fact": error.fact})

    async def _call(self, engine: VllmEngine, state: Any, verb: str, arguments: dict[str, Any]) -> Any:
        if verb == "load":
            return await engine.load(arguments["name"], Path(arguments["path"]))
        if verb == "unload":
            return await engine.unload(arguments["name"])
        if verb == "score":
            return await engine.score(arguments["name"], arguments["prompts"])
        if verb == "vet_items":
            return await engine.vet_items(arguments["items"].encode())
        if verb == "tokenize":
            return engine.tokenize(arguments["text"])
        if verb == "pulse":
            return await engine.pulse(workers=arguments["workers"])
        if verb == "progress":
            return asdict(engine.progress())
        if verb == "activity":
            found = engine.activity()
            return None if found is None else asdict(found)
        if verb == "ids":
            return sorted(await state.engine_client.list_loras())
        if verb == "remove":
            return await state.engine_client.remove_lora(arguments["id"])
        if verb == "vllm_unload":
            return await _unload_as_vllm_does(state.openai_serving_models, arguments["name"])
        return _facts(engine, state)


async def _unload_as_vllm_does(models: Any, name: str) -> int:
    """Unload by vLLM's own code and return the id that `name` had."""
    from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

    identity: int = models.lora_requests[name].lora_int_id
    await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
    return identity


def _facts(engine: VllmEngine, state: Any) -> dict[str, Any]:
    config = state.engine_client.vllm_config
    return {
        "base_name": engine.base_name,
        "capacity": engine.capacity,
        "slots": engine.slots,
        "abilities": {**asdict(engine.abilities), "paths": sorted(engine.abilities.paths or ())},
        "alive": engine.alive(),
        "context_tokens": engine.context_tokens,
        "prompt_characters": engine.prompt_characters,
        "resident": sorted(engine.resident()),
        "max_lora_rank": config.lora_config.max_lora_rank,
        "compilation": str(config.compilation_config.mode),
        "paths": sorted({route.path for route in state.server.config.app.routes if hasattr(route, "path")}),
    }


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _respond(send: Send, status: int, answer: object) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
