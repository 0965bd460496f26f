"""Whose request goes to the engine next, when more are asked for than it runs at once (pure; clock injected).

Owns the seats, the waiting lines by group and the groups' counters. A counter is what a group was given so
far, in tokens over its weight (virtual token counters: Sheng et al., OSDI 2024, arXiv:2401.00588): a request
is charged its estimate when it gets a seat and its real cost when it leaves. Invariants: a seat that a
waiting request may have is never left empty; the next seat is for the waiting group with the lowest counter;
within a group the order is that of coming; a group that was away has no credit for it and keeps its debt; no
more than `most_waiting` wait, and when they do, the group with the longest line gives way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic

MEMORY_SECONDS = 60.0
"""How long after its last request a group counts as being about."""


class SeatState(Enum):
    """Where a request is."""

    WAITING = "waiting"
    SEATED = "seated"
    OUT = "out"


@dataclass(slots=True, eq=False)
class SeatTicket:
    """One request: its estimated `cost` in tokens and the `seats` that it takes.

    `start` is its group's counter when it got its seat, and it `yields` when others were about and its group
    had more than a few. One that is `patient` is never sent away. `told` is called once, when a request that
    had to wait got its seat or is sent away. `used` are the tokens of its prompt, of its answer, and those of
    the prompt that were cached, once they are known.
    """

    line: GroupLine
    cost: float
    seats: int
    patient: bool
    standing: SeatState = SeatState.WAITING
    start: float = 0.0
    yields: bool = False
    used: tuple[int, int, int] | None = None
    told: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class GroupLine:
    """One group: what it was given, what it has in flight, and who waits."""

    name: str
    weight: float
    counter: float = 0.0
    seats: int = 0
    inside: dict[SeatTicket, None] = field(default_factory=dict)
    waiting: deque[SeatTicket] = field(default_factory=deque)
    about_until: float = 0.0
    wanted: int = 0
    wanted_before: int = 0
    turned_at: float = 0.0

    def note(self, now: float) -> None:
        """Note that the group asks now, and how many seats it could use."""
        self.about_until = now + MEMORY_SECONDS
        if now - self.turned_at >= MEMORY_SECONDS:
            self.wanted_before, self.wanted, self.turned_at = self.wanted, 0, now
        self.wanted = max(self.wanted, self.seats + len(self.waiting) + 1)

    @property
    def peak(self) -> int:
        """Return the most seats that it could use at once, in the last minute or two."""
        return max(self.wanted, self.wanted_before)

    @property
    def since(self) -> float:
        """Return the counter from which the group is being served now: its oldest request's in flight."""
        return next(iter(self.inside)).start if self.inside else self.counter


class FairQueue:
    """The seats of one engine; `seats` None = no bound, and nobody ever waits."""

    def __init__(
        self, seats: int | None, most_waiting: int | None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.seats = seats
        self.free = seats or 0
        self.most_waiting = most_waiting
        self.waiting = 0
        self.seconds_per_seat = 0.0
        self._clock = clock
        self._lines: dict[str, GroupLine] = {}
        self._busy: dict[GroupLine, None] = {}
        self._floor = 0.0
        self._latest: GroupLine | None = None
        self._latest_at = self._shared_until = self._left_at = -MEMORY_SECONDS

    @property
    def idle(self) -> bool:
        """Return whether nobody has a seat or waits for one."""
        return not self._busy

    @property
    def several(self) -> bool:
        """Return whether more than one group has ever asked."""
        return len(self._lines) > 1

    @property
    def taken(self) -> int:
        """Return how many seats are taken."""
        return sum(line.seats for line in self._busy)

    def is_shared(self) -> bool:
        """Return whether more than one group has asked within the last minute."""
        return len(self._lines) > 1 and self._clock() < self._shared_until

    def enter(
        self, group: str, weight: float, cost: float, *, seats: int = 1, patient: bool = False
    ) -> SeatTicket:
        """Take a seat or a place in the group's line; the ticket says which, OUT when both are refused."""
        line = self._lines.get(group)
        if line is None:
            line = self._lines[group] = GroupLine(group, weight)
        line.weight = weight
        if self._latest is not line:
            self._note_other(line)
        self._latest_at = now = self._clock()
        line.note(now)
        if line not in self._busy:
            line.counter = max(line.counter, self._level() if self._busy else self._floor)
            self._busy[line] = None
        ticket = SeatTicket(line, cost, seats if self.seats is None else min(seats, self.seats), patient)
        if not line.waiting and self._fits(ticket):
            self._seat(ticket)
        elif patient or self._has_place(line):
            if not self.waiting:
                self._left_at = self._latest_at
            line.waiting.append(ticket)
            self.waiting += 1
            self._fill()  # who gave way may have stood before others
        else:
            ticket.standing = SeatState.OUT
            self._rest(line)
        return ticket

    def leave(self, ticket: SeatTicket, used: float | None = None) -> None:
        """Give up a seat or a place; `used` tokens, where they are known, take the place of the estimate."""
        line, standing, ticket.standing = ticket.line, ticket.standing, SeatState.OUT
        if standing is SeatState.SEATED:
            line.seats -= ticket.seats
            del line.inside[ticket]
            if self.seats is not None:
                self.free += ticket.seats
            if used is not None:
                line.counter += (used - ticket.cost) / line.weight
            if self.waiting:
                self._note_pace()
        elif standing is SeatState.WAITING:
            line.waiting.remove(ticket)
            self.waiting -= 1
        self._rest(line)
        if self.waiting:
            self._fill()

    def come_back(self, ticket: SeatTicket) -> bool:
        """Have one that left its seat wait for another, before its group's others; True when it has one."""
        line = ticket.line
        ticket.standing, ticket.told = SeatState.WAITING, None
        self._busy[line] = None
        line.waiting.appendleft(ticket)
        self.waiting += 1
        self._fill()
        return ticket in line.inside

    def _note_other(self, line: GroupLine) -> None:
        now = self._clock()
        if self._latest is not None and now - self._latest_at < MEMORY_SECONDS:
            self._shared_until = now + MEMORY_SECONDS
        self._latest = line

    def _note_pace(self) -> None:
        now = self._clock()
        self.seconds_per_seat += (now - self._left_at - self.seconds_per_seat) / 8
        self._left_at = now

    def _level(self) -> float:
        """Return the counter of those who are served now: who comes begins there, with no credit."""
        return min(line.since for line in self._busy)

    def _rest(self, line: GroupLine) -> None:
        if not line.inside and not line.waiting and line in self._busy:
            del self._busy[line]
            if not self._busy:
                self._floor = max(self._floor, line.counter)

    def _fits(self, ticket: SeatTicket) -> bool:
        """Return whether a seat may be had now: the last ones only by who has few, while others are about."""
        if self.seats is None:
            return True
        if ticket.seats > self.free:
            return False
        line, left = ticket.line, self.free - ticket.seats
        if left >= self.seats // 2 or not line.seats or not self.is_shared():
            return True
        return left >= self._kept(line)

    def _kept(self, line: GroupLine) -> int:
        """Return how many seats stay free for the groups beside `line`: as many as they could use lately.

        No more than their share by weight, and half of all: an idle seat is the price of not having to wait.
        """
        now = self._clock()
        others = [one for one in self._lines.values() if one is not line and one.about_until > now]
        weights = sum(one.weight for one in others)
        assert self.seats is not None, "or nothing is kept"
        share = min(int(self.seats * weights / (weights + line.weight)), self.seats // 2) if others else 0
        return max(0, min(share, sum(one.peak for one in others)) - sum(one.seats for one in others))

    def _seat(self, ticket: SeatTicket) -> None:
        line = ticket.line
        ticket.standing, ticket.start = SeatState.SEATED, line.counter
        line.counter += ticket.cost / line.weight
        line.inside[ticket] = None
        line.seats += ticket.seats
        ticket.yields = self.is_shared() and line.seats > 1 and self._has_more(line)
        if self.seats is not None:
            self.free -= ticket.seats

    def _has_more(self, line: GroupLine) -> bool:
        """Return whether a group has more in flight, for its weight, than another one that is about."""
        now, own = self._clock(), line.seats / line.weight
        return any(one.about_until > now and one.seats / one.weight < own for one in self._lines.values())

    def _fill(self) -> None:
        """Give the seats that are free to those who wait, the group that was given least first."""
        lines = [line for line in self._busy if line.waiting]
        while lines:
            line = min(lines, key=lambda one: (one.counter, one.seats))
            ticket = line.waiting[0]
            if self._fits(ticket):
                line.waiting.popleft()
                self.waiting -= 1
                self._seat(ticket)
                if ticket.told is not None:
                    ticket.told()
                if line.waiting:
                    continue
            elif self.free >= ticket.seats:
                pass  # only the last seats are left, and they are not for this group
            else:
                return  # it is next, however many seats it needs: nobody overtakes it for ever
            lines.remove(line)

    def _has_place(self, line: GroupLine) -> bool:
        """Return whether one more of `line` may wait; another group's longer line gives its last place up."""
        if self.most_waiting is None or self.waiting < self.most_waiting:
            return True
        longest = max(self._busy, key=lambda one: len(one.waiting) / one.weight)
        if len(longest.waiting) / longest.weight <= (len(line.waiting) + 1) / line.weight:
            return False
        victim = next((one for one in reversed(longest.waiting) if not one.patient), None)
        if victim is None:
            return False
        longest.waiting.remove(victim)
        self.waiting -= 1
        victim.standing = SeatState.OUT
        if victim.told is not None:
            victim.told()
        self._rest(longest)
        return True
