"""Made-up rows of a smart home: requests, the tools that are at hand, and the calls that answer them.

Seeded, so that everybody has the same rows. Every fifth call (a tool with its arguments) is held out: no row
for training asks for it, in no words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

ROOMS = ("kitchen", "bedroom", "office", "garage", "hall", "attic", "cellar", "bathroom")
DOORS = ("front", "back", "garden", "garage")
SONGS = ("jazz", "rock", "opera", "blues", "techno", "folk")
CHATTER = (
    ("Thank you, that is all.", "You are welcome."),
    ("Good morning!", "Good morning! What can I do for you?"),
    ("Who are you?", "I look after this house."),
    ("Never mind.", "All right."),
    ("That was quick.", "Happy to help."),
    ("Tell me a joke.", "I only know the ones about doors, and they all open badly."),
)


def _tool(name: str, about: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


_TEXT, _NUMBER, _SWITCH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TOOLS = {
    tool["function"]["name"]: tool
    for tool in (
        _tool("set_light", "Switch the light of a room.", room=_TEXT, on=_SWITCH),
        _tool("set_heating", "Heat a room to degrees Celsius.", room=_TEXT, degrees=_NUMBER),
        _tool("lock_door", "Lock or unlock a door.", door=_TEXT, locked=_SWITCH),
        _tool("play_music", "Play a kind of music in a room.", kind=_TEXT, room=_TEXT),
        _tool("set_timer", "Ring after some minutes.", minutes=_NUMBER),
    )
}


@dataclass(frozen=True, slots=True)
class HomeRequest:
    """What somebody asks for, in words, and the call that does it."""

    words: str
    tool: str
    arguments: dict[str, Any]


def rows(seed: int, count: int, *, held_out: bool) -> list[dict[str, Any]]:
    """Return `count` rows: one call, two calls at once (one in eight), or chatter (one in eight)."""
    chance = random.Random(seed)
    wishes = [wish for number, wish in _wishes() if (number % 5 == 0) is held_out]
    chance.shuffle(wishes)
    return [_row(chance, wishes, number) for number in range(count)]


def _row(chance: random.Random, wishes: list[HomeRequest], number: int) -> dict[str, Any]:
    if number % 8 == 7:
        question, answer = chance.choice(CHATTER)
        turn: dict[str, Any] = {"role": "assistant", "content": answer}
        return _with_tools(chance, question, turn, [])
    picked = [wishes.pop() for _ in range(2 if number % 8 == 3 else 1)]
    question = " and ".join(wish.words for wish in picked)
    polite = chance.choice(("{}.", "{}, please.", "Please {}.", "Could you {}?"))
    calls = [
        {
            "id": f"call{index:05}",
            "type": "function",
            "function": {"name": wish.tool, "arguments": json.dumps(wish.arguments)},
        }
        for index, wish in enumerate(picked, start=1)
    ]
    asked = polite.format(question)
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    return _with_tools(chance, asked[0].upper() + asked[1:], turn, [wish.tool for wish in picked])


def _with_tools(
    chance: random.Random, question: str, turn: dict[str, Any], used: list[str]
) -> dict[str, Any]:
    names = [name for name in TOOLS if name in used]
    others = [name for name in TOOLS if name not in used]
    names += chance.sample(others, max(1, 2 - len(names)))
    chance.shuffle(names)
    messages = [{"role": "user", "content": question}, turn]
    return {"messages": messages, "tools": [TOOLS[name] for name in names]}


def _wishes() -> Iterator[tuple[int, HomeRequest]]:
    """Yield the number of every call, with a wish for it in each way to say it."""
    for number, (tool, arguments, ways) in enumerate(_calls()):
        for words in ways:
            yield number, HomeRequest(words, tool, arguments)


def _calls() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    for room, on in product(ROOMS, (True, False)):
        state = "on" if on else "off"
        ways = (f"turn {state} the light in the {room}", f"switch the {room} light {state}")
        yield "set_light", {"room": room, "on": on}, ways
    for room, degrees in product(ROOMS, range(15, 26)):
        ways = (f"heat the {room} to {degrees} degrees", f"set the {room} to {degrees} degrees")
        yield "set_heating", {"room": room, "degrees": degrees}, ways
    for door, locked in product(DOORS, (True, False)):
        verb = "lock" if locked else "unlock"
        ways = (f"{verb} the {door} door", f"{verb} the door at the {door}")
        yield "lock_door", {"door": door, "locked": locked}, ways
    for kind, room in product(SONGS, ROOMS):
        ways = (f"play {kind} in the {room}", f"put on some {kind} in the {room}")
        yield "play_music", {"kind": kind, "room": room}, ways
    for minutes in range(2, 60):
        yield "set_timer", {"minutes": minutes}, (f"set a timer for {minutes} minutes",)
