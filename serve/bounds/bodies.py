"""What a body has to pass before it is worked on, and where that is looked at.

A small, flat body in ASCII passes by its size and two counts, unless it asks for a grammar or for many
answers. Others are looked into: here, or where they are large, in a thread. Nothing of a body that is refused
goes to the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from msgspec import Raw

from registry.errors import WardrobeError
from serve.bounds.content import ASKED, ContentLimits, check_content, check_easy
from serve.bounds.grammars import GrammarLimits
from serve.bounds.structure import check_structure, check_text
from serve.engine.interface import Engine
from serve.errors import BadBody
from serve.protocol.body import Fields, parse_fields
from serve.protocol.paths import Dialect, Endpoint
from serve.settings import RequestLimits

EASY_BYTES = 4_096
"""Up to here size alone bounds every number, text and grammar."""

EASY_BRACKETS = 32
"""Up to here their number alone bounds nesting, messages, parts and tools."""

THREAD_BYTES = 256 * 1024
"""From here a body is looked into in a thread: some 3 ms of work."""

_THREADS = 2
_log = logging.getLogger("wardrobe.router")
_Given = TypeVarTuple("_Given")
_Result = TypeVar("_Result")


class Bodies:
    """Parses bodies within `limits`; `refused` are fields that no request may have."""

    def __init__(self, limits: RequestLimits, engine: Engine, refused: frozenset[str]) -> None:
        self._limits = limits
        self._engine = engine
        self._refused = refused
        # A prompt may come as its tokens, which are values each.
        self._max_values = max(limits.max_values, 2 * engine.context_tokens)
        self._content = ContentLimits(
            messages=limits.max_messages,
            parts=limits.max_parts,
            tools=limits.max_tools,
            choices=limits.max_choices,
            grammars=GrammarLimits(
                bytes=limits.max_grammar_bytes,
                pattern_bytes=limits.max_pattern_bytes,
                loops=limits.max_loops,
                properties=limits.max_properties,
                repetitions=limits.max_repetitions,
            ),
            prompt_characters=limits.max_prompt_characters or engine.prompt_characters,
            text_characters=limits.max_text_characters,
        )
        smallest = (
            EASY_BYTES,
            limits.max_grammar_bytes,
            limits.max_text_characters,
            limits.max_values,
            self._content.prompt_characters or EASY_BYTES,
        )
        self._easy_bytes = min(smallest)
        self._easy_brackets = min(
            EASY_BRACKETS, limits.max_nesting, limits.max_messages, limits.max_parts, limits.max_tools
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="wardrobe-body")

    def parse_easy(self, body: bytes) -> Fields | None:
        """Return the fields of a body that can break no bound but those of `ASKED`; None for any other.

        Raises: BadBody, TooComplex.
        """
        if (
            len(body) > self._easy_bytes
            or body.count(b"{") + body.count(b"[") > self._easy_brackets
            or not body.isascii()
        ):
            return None
        fields = parse_fields(body, self._refused)
        if not ASKED.isdisjoint(fields):
            check_easy(fields, self._content)
        return fields

    async def parse(self, body: bytes, endpoint: Endpoint) -> Fields:
        """Return the fields of any body.

        Raises: BadBody, TooComplex, PromptTooLong. WardrobeError: it failed here.
        """
        try:
            return await self._parse(body, endpoint)
        except WardrobeError:
            raise
        except Exception as error:
            _log.exception("a body could not be looked into")
            raise WardrobeError("server", "failed on this body", "its log has the reason") from error

    async def _parse(self, body: bytes, endpoint: Endpoint) -> Fields:
        if len(body) < THREAD_BYTES:
            fields = self._look(body, endpoint)
        else:
            fields = await self.in_thread(self._look, body, endpoint)
        if endpoint.dialect is Dialect.RESPONSES:
            await self._vet(fields)
        return fields

    async def in_thread(self, work: Callable[[*_Given], _Result], *given: *_Given) -> _Result:
        """Return `work(*given)`, done beside the event loop, behind other large bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look(self, body: bytes, endpoint: Endpoint) -> Fields:
        check_text(body)
        check_structure(body, self._limits.max_nesting, self._max_values)
        fields = parse_fields(body, self._refused)
        check_content(fields, self._content, fits=endpoint.proves)
        return fields

    async def _vet(self, fields: Mapping[str, Raw]) -> None:
        """Have the engine look at the items one by one.

        NOTE: vLLM holds each item against dozens of types and keeps every error of all of them: a thousand
        items that are wrong in one field take it ten seconds. Remove when it stops at the first.
        """
        raw = fields.get("input")
        if raw is None or not bytes(raw).startswith(b"["):
            return
        why = await self._engine.vet_items(bytes(raw))
        if why:
            raise BadBody("input", why, "see the reference of the Responses API", param="input")
