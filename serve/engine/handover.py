"""The line between the engine's process and its supervisor: one socket pair, one word per line.

Child to parent: `started`, once the application's lifespan has started and the server is about to
accept; `failed REASON`, when it could not, or when its engine has died; `hung REASON`, when its engine has
given no sign of life for too long; `ended`, when nothing is left to do after either; `pong N`, where N is
the number of earlier pings that the event loop has not seen. Parent to child: `drain SECONDS`; `ping`;
`note TEXT`, a sentence for the heartbeat. The end of the line means that the other side is gone: the child
then ends itself and its process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve.process_group import kill_members, remove_marks

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


_HEARTBEAT_SECONDS = 0.25
_MOURNING_SECONDS = 2.0
_AT_ONCE_SECONDS = 0.1
_LAST_LOOKS = 3
_LOOK_SECONDS = 0.02
_WORD_BYTES = 8 * 1024


class ChildLine:
    """The child's end. It is opened once per process, before vLLM is imported."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.failed = False
        self.engine_died = False
        self.hung = ""
        self.note = ""
        self._unseen = 0
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Listen for the parent in a thread of its own: imports hold the main thread for seconds."""
        threading.Thread(target=self._listen, name="wardrobe-line", daemon=True).start()

    def attach(self, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Name the uvicorn server that `drain` stops, and the loop it runs on."""
        self._server, self._loop = server, loop

    def keep_ending(self, task: asyncio.Task[None]) -> None:
        """Keep the task that ends the server after its engine (the loop holds tasks weakly)."""
        self._ending = task

    def say(self, word: str) -> None:
        """Send one line to the parent; a parent that is gone is noticed by the listener."""
        text = " ".join(word.split()).encode(errors="replace")[:_WORD_BYTES]
        try:
            self._connection.sendall(text + b"\n")
        except OSError:
            return

    def _listen(self) -> None:
        # A parent that is killed before it has read our last word resets the line instead of closing it.
        with contextlib.suppress(OSError), self._connection.makefile("r") as lines:
            for line in lines:
                verb, _, argument = line.strip().partition(" ")
                if verb == "drain":
                    self._drain(float(argument))
                elif verb == "ping":
                    self._answer_ping()
                elif verb == "note":
                    self.note = argument
        _end_everything()

    def _answer_ping(self) -> None:
        """Answer for this process, and tell how long its event loop has not turned: in pings, not in seconds.

        A process that was frozen as a whole has then missed one, and not the whole time.
        """
        self.say(f"pong {self._unseen}")
        if self._loop is None:
            return
        self._unseen += 1
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
            self._loop.call_soon_threadsafe(self._see)

    def _see(self) -> None:
        self._unseen = 0

    def _drain(self, seconds: float) -> None:
        if self._server is None or self._loop is None:
            os.kill(os.getpid(), signal.SIGTERM)  # still starting: nothing is in flight
        else:
            self._loop.call_soon_threadsafe(_stop_accepting, self._server, seconds)


def _end_everything() -> None:
    """End this process group at once: the supervisor is gone, nobody would restart, drain or end us."""
    if os.getpgrp() == os.getpid():  # else started by hand, in somebody else's group
        killed = []
        for _ in range(_LAST_LOOKS):  # the main thread may be starting one at this very moment
            try:
                killed += kill_members(os.getpgrp(), spare=os.getpid(), trackers=False)
            except OSError:  # no descriptor to look with
                os.killpg(os.getpgrp(), signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(OSError):
            remove_marks([os.getpid(), *killed])
    os.kill(os.getpid(), signal.SIGKILL)


def _stop_accepting(server: Any, seconds: float) -> None:
    """Let uvicorn end by itself: it closes its listener, finishes what is in flight, then its lifespan."""
    server.config.timeout_graceful_shutdown = max(seconds, 0.001)
    server.should_exit = True


async def _end_with(client: Any, server: Any, line: ChildLine) -> None:
    """End the server soon after its engine has died, or at once when it hangs: no stream gets a word more.

    NOTE: vLLM looks every 5 s, and then waits without limit for streams that nobody feeds any more.
    """
    while not client.errored and not line.hung:  # noqa: ASYNC110 - vLLM has a flag, and no event to wait for
        await asyncio.sleep(_HEARTBEAT_SECONDS)
    line.engine_died = True
    line.say(f"hung {line.hung}" if line.hung else "failed EngineCore has died")
    _stop_accepting(server, _AT_ONCE_SECONDS if line.hung else _MOURNING_SECONDS)


_line: ChildLine | None = None


def open_line(descriptor: int) -> ChildLine:
    """Open the process's line on the inherited `descriptor` and watch it."""
    global _line  # noqa: PLW0603 - vLLM builds the middleware by import path, so it finds its line here
    _line = ChildLine(socket.socket(fileno=descriptor))
    _line.watch()
    return _line


def give_up(reason: str) -> None:
    """Have this process end, and be started again, because its engine hangs; without a launcher it stays."""
    if _line is not None:
        _line.hung = reason


def notes() -> tuple[str, ...]:
    """Return what the launcher has to tell the operator beside what this process knows."""
    return (_line.note,) if _line is not None and _line.note else ()


class Handover:
    """The outermost ASGI layer: it reports the end of start-up, and is not in a request's way."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the inner application's awaitable; only the lifespan is looked at."""
        if scope["type"] != "lifespan" or _line is None:
            return self._app(scope, receive, send)
        return self._app(scope, receive, _reporting(_line, scope, send))


def _reporting(line: ChildLine, scope: Message, send: Send) -> Send:
    async def report(message: Message) -> None:
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            state = scope["app"].state
            line.attach(state.server, asyncio.get_running_loop())
            client = getattr(state, "engine_client", None)
            if client is not None:
                line.keep_ending(asyncio.create_task(_end_with(client, state.server, line)))
            line.say("started")
        elif message["type"] == "lifespan.startup.failed":
            line.failed = True
            line.say(f"failed {message.get('message', '')}")
        elif message["type"].startswith("lifespan.shutdown.") and line.engine_died:
            # All that was known has been written. What vLLM does from here on is to wait for its engine.
            line.say("ended")

    return report
