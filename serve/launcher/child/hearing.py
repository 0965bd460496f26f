"""What the child says on its line, word by word, until the line ends (`serve.engine.handover` speaks)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from serve.launcher.child.processes import EngineProcess


@dataclass(slots=True, eq=False)
class ChildListener:
    """Listens to one child: `run` until the line ends, the rest says what was heard.

    `turn` is set with every change but those of pongs. `told` is why the child
    ends, `hung` whether that is because it or its engine hangs. `closed` is the line's end; `over` says that
    nothing is left to wait for, though the process is there.
    `missed` is the number in the newest `pong`, `pongs` how many there were.
    """

    child: EngineProcess
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    started: bool = False
    ending: bool = False
    hung: bool = False
    closed: bool = False
    over: bool = False
    told: str = ""
    pongs: int = 0
    missed: int = 0

    async def run(self) -> None:
        """Listen until the child has closed its line, or says what nobody can read."""
        try:
            while line := await self.child.reader.readline():
                verb, _, argument = line.decode(errors="replace").strip().partition(" ")
                self._hear(verb, argument)
        except (OSError, ValueError):  # reset; or a line without end
            pass
        finally:
            self.closed = True
            self.turn.set()

    def _hear(self, verb: str, argument: str) -> None:
        if verb == "pong" and argument.isascii() and argument.isdigit():
            self.pongs += 1
            self.missed = int(argument)
        elif verb == "started":
            self.started = True
            self.turn.set()
        elif verb in {"failed", "hung"}:
            self.ending = True
            self.hung = verb == "hung"
            self.told = argument or self.told
            self.turn.set()
        elif verb == "ended":
            self.over = True
            self.turn.set()
