"""What a group or a key may still use: reserve, then commit (pure; clock injected).

Owns the meters of an account and a request's hold on them. A reservation holds the most that its request may
use, for as long as it is in flight; what was really used is booked at its end, or piece by piece while it
goes on. Invariants: what was used within any 60 seconds, and what is held, are together never more than the
limit, whatever comes in between; a refusal changes nothing; a reservation is ended once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from registry.entries.rights import GroupLimits

WINDOW_SECONDS = 60
SLOTS_PER_SECOND = 2
"""A window forgets by slots: up to half a second late, which costs 0.8 % of a limit at most."""

_SLOTS = WINDOW_SECONDS * SLOTS_PER_SECOND
DAY_SECONDS = 86_400


REQUESTS, INPUT, OUTPUT, CONCURRENCY, DAY = range(5)
"""What a meter counts, and its place among amounts; plain numbers: an `IntEnum` costs 10 µs a request."""

MEASURES = (
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrency",
    "tokens_per_day",
)
"""The limits of `GroupLimits` that have a meter."""

WORDS = (
    "requests per minute",
    "input tokens per minute",
    "output tokens per minute",
    "requests at once",
    "tokens per day",
)

Amounts = tuple[int, int, int, int, int]
"""What a request needs or used, by measure."""


def amounts(tokens_in: int, tokens_out: int, *, requests: int = 1) -> Amounts:
    """Return the amounts of one request."""
    return (requests, tokens_in, tokens_out, 1, tokens_in + tokens_out)


class Meter(Protocol):
    """One limit of one account: `limit` is this replica's part of it."""

    measure: int
    limit: int
    held: int

    def room(self, now: float) -> int:
        """Return how much may still be held."""
        ...

    def book(self, now: float, held: int, used: int) -> None:
        """Let go of `held` and count `used`, which is no more."""
        ...

    def wait(self, now: float, needed: int) -> float:
        """Return in how many seconds `needed` may have room, if nobody else comes."""
        ...

    def reset(self, now: float) -> float:
        """Return in how many seconds all of it may be free again."""
        ...


class Window:
    """What was used within the last 60 seconds."""

    __slots__ = ("_slots", "held", "limit", "measure", "used")

    def __init__(self, measure: int, limit: int) -> None:
        self.measure = measure
        self.limit = limit
        self.held = self.used = 0
        self._slots: deque[list[int]] = deque()

    def room(self, now: float) -> int:
        """Return how much may still be held."""
        slots = self._slots
        if slots:
            oldest = int(now * SLOTS_PER_SECOND) - _SLOTS
            while slots and slots[0][0] < oldest:
                self.used -= slots.popleft()[1]
        return self.limit - self.used - self.held

    def book(self, now: float, held: int, used: int) -> None:
        """Let go of `held` and count `used` as used now."""
        self.held -= held
        if used:
            slots, slot = self._slots, int(now * SLOTS_PER_SECOND)
            if slots and slots[-1][0] == slot:
                slots[-1][1] += used
            else:
                slots.append([slot, used])
            self.used += used

    def give_back(self, at: float, amount: int) -> None:
        """Count `amount` less of what was booked at the time `at`, as far as it is still counted."""
        slot = int(at * SLOTS_PER_SECOND)
        for one in self._slots:
            if one[0] == slot:
                back = min(amount, one[1])
                one[1] -= back
                self.used -= back
                return

    def wait(self, now: float, needed: int) -> float:
        """Return in how many seconds `needed` may have room; what is held may go any moment."""
        missing = needed - self.room(now)
        for slot, used in self._slots:
            missing -= used
            if missing <= 0:
                return max(0.0, _end(slot) - now)
        return max(1.0, self.reset(now))

    def reset(self, now: float) -> float:
        """Return in how many seconds nothing counts any more of what was used."""
        return max(0.0, _end(self._slots[-1][0]) - now) if self._slots else 0.0


class FlightMeter:
    """How many requests are in flight."""

    __slots__ = ("held", "limit", "measure")

    def __init__(self, measure: int, limit: int) -> None:
        self.measure = measure
        self.limit = limit
        self.held = 0

    def room(self, now: float) -> int:  # noqa: ARG002 - a meter's
        """Return how many more may be in flight."""
        return self.limit - self.held

    def book(self, now: float, held: int, used: int) -> None:  # noqa: ARG002 - nothing stays
        """Let go of `held`."""
        self.held -= held

    def wait(self, now: float, needed: int) -> float:  # noqa: ARG002 - a place may be free any moment
        """Return one second: nobody knows when an answer ends."""
        return 1.0

    def reset(self, now: float) -> float:  # noqa: ARG002
        """Return the same."""
        return 1.0 if self.held else 0.0


class DayBudget:
    """What was used of a day's tokens: here, and `elsewhere` as far as it is known.

    `parts` replicas share what is left; `limit` is the whole.
    """

    __slots__ = ("elsewhere", "held", "limit", "measure", "parts", "until", "used")

    def __init__(self, measure: int, limit: int) -> None:
        self.measure = measure
        self.limit = limit
        self.held = self.used = self.elsewhere = 0
        self.parts = 1
        self.until = 0.0

    def room(self, now: float) -> int:  # noqa: ARG002 - `begin` says when a day begins
        """Return how much this replica may still hold."""
        left = self.limit - self.used - self.elsewhere
        return left // self.parts - self.held if self.parts > 1 else left - self.held

    def book(self, now: float, held: int, used: int) -> None:  # noqa: ARG002
        """Let go of `held` and count `used`."""
        self.held -= held
        self.used += used

    def begin(self, until: float, used: int, elsewhere: int) -> None:
        """Say what was used today, and when the day ends on the clock of `room`."""
        self.until, self.used, self.elsewhere = until, used, elsewhere

    def wait(self, now: float, needed: int) -> float:  # noqa: ARG002
        """Return the seconds until the day ends."""
        return self.reset(now)

    def reset(self, now: float) -> float:
        """Return the seconds until the day ends."""
        return max(1.0, self.until - now)


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """Why nothing was reserved: the limit that is reached for longest.

    `owner` is whose limit it is; `hopeless`: no wait would help, the request alone is more than the limit.
    """

    owner: str
    measure: int
    limit: int
    needed: int
    room: int
    wait_seconds: float
    hopeless: bool = False


class UsageAccount:
    """The meters of one group, or of one key; `owner` is how it is named to whom it belongs."""

    __slots__ = ("_meters", "limits", "owner")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.limits = GroupLimits()
        self._meters: dict[int, Window | FlightMeter | DayBudget] = {}

    @property
    def meters(self) -> tuple[Window | FlightMeter | DayBudget, ...]:
        """Return the meters of the limits that there are."""
        return tuple(self._meters.values())

    @property
    def budget(self) -> DayBudget | None:
        """Return the meter of the day's tokens, None where they have no limit."""
        found = self._meters.get(DAY)
        return found if isinstance(found, DayBudget) else None

    def bound(self, limits: GroupLimits, replicas: int = 1, rank: int | None = 0) -> None:
        """Set the limits; this is one of `replicas`, each of which holds its part of them.

        What was used stays counted. `rank` says who of them has what a division leaves, None: nobody here.
        """
        self.limits = limits
        for measure, name in enumerate(MEASURES):
            limit = getattr(limits, name)
            if limit is None:
                self._meters.pop(measure, None)
                continue
            meter = self._meters.get(measure)
            if meter is None:
                meter = self._meters[measure] = _KINDS[measure](measure, limit)
            if isinstance(meter, DayBudget):
                meter.limit, meter.parts = limit, replicas
            else:
                meter.limit = part(limit, replicas, rank)


_KINDS: tuple[type[Window | FlightMeter | DayBudget], ...] = (Window, Window, Window, FlightMeter, DayBudget)


def part(limit: int, replicas: int, rank: int | None) -> int:
    """Return the part of a limit that one of `replicas` holds; all parts together are the limit."""
    whole, left = divmod(limit, replicas)
    return whole + (rank is not None and rank < left)


class Reservation:
    """One request's hold on its accounts' meters, until `commit`."""

    __slots__ = ("_advanced_at", "_advanced_in", "_advanced_out", "_held", "meters", "open")

    def __init__(self, meters: tuple[Meter, ...], held: Amounts) -> None:
        self.meters = meters
        self.open = True
        self._held = held
        self._advanced_in = self._advanced_out = 0
        self._advanced_at = 0.0

    def advance(self, now: float, tokens_out: int) -> None:
        """Book what a request that goes on has used so far: its prompt at first, its answer as it grows.

        So a long answer holds no minute's quota with tokens that are older than a minute.
        """
        if not self.open:
            return
        held = self._held
        more_in = held[INPUT]
        more_out = min(max(0, tokens_out - self._advanced_out), held[OUTPUT])
        if more_in:
            self._advanced_at = now
        for meter in self.meters:
            if meter.measure == INPUT:
                meter.book(now, more_in, more_in)
            elif meter.measure == OUTPUT:
                meter.book(now, more_out, more_out)
        self._advanced_in += more_in
        self._advanced_out += more_out
        self._held = (held[0], 0, held[2] - more_out, held[3], held[4])

    def commit(self, now: float, tokens_in: int, tokens_out: int) -> None:
        """End it, once: book what was used, 0 and 0 where nothing was, and let go of the rest."""
        if not self.open:
            return
        self.open = False
        held = self._held
        more_in, more_out = tokens_in - self._advanced_in, tokens_out - self._advanced_out
        if more_in < 0:
            self._give_back(-more_in)
            more_in = 0
        used = (0, more_in, max(0, more_out), 0, tokens_in + tokens_out)
        for meter in self.meters:
            measure = meter.measure
            if measure:  # requests were counted when they were let in
                meter.book(now, held[measure], used[measure])

    def _give_back(self, tokens_in: int) -> None:
        for meter in self.meters:
            if meter.measure == INPUT and isinstance(meter, Window):
                meter.give_back(self._advanced_at, tokens_in)


def reserve(
    accounts: Iterable[UsageAccount], meters: tuple[Meter, ...], now: float, need: Amounts
) -> Reservation | LimitRefusal:
    """Hold `need` on all `meters`, which are those of `accounts`, or say which limit is in the way."""
    for meter in meters:
        if need[meter.measure] > meter.room(now):
            return _refusal(accounts, now, need)
    for meter in meters:
        measure = meter.measure
        if measure:
            meter.held += need[measure]
        else:
            meter.book(now, 0, need[0])
    return Reservation(meters, need)


def _refusal(accounts: Iterable[UsageAccount], now: float, need: Amounts) -> LimitRefusal:
    found = [
        LimitRefusal(
            account.owner,
            meter.measure,
            meter.limit,
            need[meter.measure],
            max(0, meter.room(now)),
            meter.wait(now, need[meter.measure]),
            hopeless=need[meter.measure] > meter.limit,
        )
        for account in accounts
        for meter in account.meters
        if need[meter.measure] > meter.room(now)
    ]
    return max(found, key=lambda one: (one.hopeless, one.wait_seconds))


def _end(slot: int) -> float:
    """Return when a slot is forgotten."""
    return (slot + _SLOTS + 1) / SLOTS_PER_SECOND
