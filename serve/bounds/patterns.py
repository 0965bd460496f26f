"""Regular expressions, as far as their text tells what they cost (pure, one linear scan).

What makes them expensive for the engine is not their length but their loops, the positions of wide classes
(`.`, `[^"]`), each held against the whole vocabulary, and loops that touch, so that a text can be shared out
among them in many ways. Measured with xgrammar 0.2.8 and a vocabulary of 49,152, in seconds of one core:
`.{1,100}` 0.9 to compile, `.` 639 times 2.7, `[a-z]` 1,630 times 1.4; `.?` 8 times 0.3, 16 times 2.5;
`[a-z]?` 16 times 0.5, 32 times 4.9; and for a step `.{0,9}` twice next to each other more than 0.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WIDE = 8
"""What one position of a wide class costs; one of a narrow class costs 1, one of a literal nothing."""

MOST_REPEATS = 200
"""Beyond so many repetitions xgrammar counts instead of unrolling, and they cost no more."""

REFERENCE = "\uf8ff"
"""Stands for a rule of a grammar, which may be empty."""

_LOOSE, _LOOSE_NARROW, _LOOSE_LITERAL, _COUNTED = 8, 6, 1, 48
"""What a loop adds to those that it touches: of a wide class, a narrow one, a literal; a counted one."""

# No alternative gives back what it took, and none fails after more than it takes: the scan is linear.
TOKEN = re.compile(
    r"""(?P<literal>\\[^wWsSDpP])
    |(?P<wide>\\[WSDpP]|\.)
    |(?P<narrow>\\[ws])
    |(?P<set>\[(?:[^\]\\]|\\.)*+\]?+)
    |(?P<open>\((?:\?(?:P?<[A-Za-z_0-9]{1,64}>|[:=!]|<[=!])?)?)
    |(?P<close>\))
    |(?P<either>\|)
    |(?P<loop>[*+?]|\{(?P<least>[0-9]*+)(?P<comma>,?+)(?P<most>[0-9]*+)\})[?+]?
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
"""One piece of a regular expression; every text is a row of them."""

_NARROW_SET = re.compile(
    r"\[-?(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[^\\\]^-]|\\[^WSDpPuUxs])*+-?\]", re.DOTALL
)


@dataclass(slots=True)
class Cost:
    """What a pattern costs: loops; positions of classes (`WIDE` each); the weight of loops that touch.

    `first` and `last` are the weights at its two ends, where it is next to something else; `apart` says
    that something fixed lies between them.
    """

    loops: int = 0
    positions: int = 0
    touching: int = 0
    first: int = 0
    last: int = 0
    apart: bool = False

    def then(self, other: Cost) -> None:
        """Add what comes after it."""
        self.loops += other.loops
        self.positions += other.positions
        self.touching = max(self.touching, other.touching, self.last + other.first)
        self.first = self.first if self.apart else self.first + other.first
        self.last = other.last if other.apart else self.last + other.last
        self.apart |= other.apart

    def instead(self, other: Cost) -> None:
        """Add what may come in its place."""
        # Wide texts of different lengths are as a loop: what follows may begin at several places.
        loose = _LOOSE if WIDE <= self.positions != other.positions >= WIDE else 0
        self.loops += other.loops
        self.positions += other.positions
        self.first, self.last = max(self.first, other.first, loose), max(self.last, other.last, loose)
        self.touching = max(self.touching, other.touching, loose)
        self.apart &= other.apart

    def again(self, least: int, most: int | None) -> None:
        """Repeat it from `least` to `most` times, None: without end."""
        times = min(max(least, most or 0, 1), MOST_REPEATS)
        counted = most != least and times > 1
        own = _weight(self.positions, counted=counted) if most != least else 0
        if self.apart:
            own = min(own, _LOOSE_NARROW)  # what is fixed in it tells its turns apart
            self.touching = max(self.touching, self.last + self.first)
        else:  # each turn touches the next one
            own = max(own, self.first * (times if most is not None else 2))
        self.loops += 1
        self.positions *= times
        self.touching = max(self.touching, own)
        if own:
            self.first, self.last = max(self.first, own), max(self.last, own)
        self.apart &= least > 0


def _weight(positions: int, *, counted: bool) -> int:
    if positions >= WIDE:
        return _COUNTED if counted else _LOOSE
    return _LOOSE_NARROW if positions else _LOOSE_LITERAL


@dataclass(slots=True)
class _Group:
    """A group that is being read: its alternatives so far, the one in hand, and its last piece."""

    whole: Cost | None = None
    branch: Cost = field(default_factory=Cost)
    piece: Cost | None = None

    def put(self, piece: Cost | None) -> None:
        """Take up a piece; only the one before it is known to be whole."""
        if self.piece is not None:
            self.branch.then(self.piece)
        self.piece = piece

    def turn(self) -> None:
        """End the alternative in hand."""
        self.put(None)
        if self.whole is None:
            self.whole = self.branch
        else:
            self.whole.instead(self.branch)
        self.branch = Cost()

    def cost(self) -> Cost:
        """End the group."""
        self.turn()
        return self.whole or Cost()


def cost_of_pattern(pattern: str) -> Cost:
    """Return what a regular expression costs."""
    groups = [_Group()]
    for token in TOKEN.finditer(pattern):
        kind = token.lastgroup if token["loop"] is None else "loop"
        if kind == "open":
            groups.append(_Group())
        elif kind == "close":
            if len(groups) > 1:
                closed = groups.pop().cost()
                groups[-1].put(closed)
        elif kind == "either":
            groups[-1].turn()
        elif kind == "loop":
            piece = groups[-1].piece or Cost(apart=True)
            groups[-1].piece = piece
            piece.again(*_times(token))
        else:
            groups[-1].put(_atom(token))
    while len(groups) > 1:
        closed = groups.pop().cost()
        groups[-1].put(closed)
    return groups[0].cost()


def _atom(token: re.Match[str]) -> Cost:
    """Return the cost of one sign or class; what is wide touches what is around it."""
    if token["narrow"] or (token["set"] and _NARROW_SET.fullmatch(token["set"])):
        return Cost(positions=1)
    if token["other"] == REFERENCE:
        return Cost(touching=_LOOSE_NARROW, first=_LOOSE_NARROW, last=_LOOSE_NARROW)
    if token["wide"] or token["set"]:
        return Cost(positions=WIDE)
    return Cost(apart=True)


def _times(token: re.Match[str]) -> tuple[int, int | None]:
    sign = token["loop"]
    if not sign.startswith("{"):
        return (1 if sign == "+" else 0), (1 if sign == "?" else None)
    least = _count(token["least"])
    if not token["comma"]:
        return least, least
    return least, _count(token["most"]) if token["most"] else None


def _count(digits: str) -> int:
    return min(int(digits[-12:] or "0") if len(digits.lstrip("0")) <= 12 else MOST_REPEATS, MOST_REPEATS)
