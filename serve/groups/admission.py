"""Who may ask now: a request's reservation on its group's account and its key's, before it waits for a seat.

One `Admission` per router; `accounts` decides, the seats are `seating`'s. A caller without limits and
without a key has no purse, and nothing of this runs for it. Invariants: nothing here touches the disk; what
is reserved is let go of by the request's `Charge`, whatever becomes of it; limits are those of the groups and
keys as they are now, however long ago a request came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from time import monotonic

from registry.entries.keyring import Caller
from registry.entries.rights import NO_LIMITS
from registry.entries.usage.rows import UsageRow
from serve.errors import PromptTooLong
from serve.groups.accounts import (
    DAY,
    DAY_SECONDS,
    INPUT,
    MEASURES,
    OUTPUT,
    DayBudget,
    LimitRefusal,
    Reservation,
    UsageAccount,
    amounts,
    reserve,
)
from serve.groups.charges import Charge, Purse
from serve.groups.counting import PromptCount, PromptCounter
from serve.groups.shares import ReplicaShares
from serve.groups.sizes import TEMPLATE_TOKENS, RequestSize, cap, measure
from serve.groups.telling import refused
from serve.groups.usage import BASE, LimitRow, UsageLedger, used
from serve.protocol.body import Fields
from serve.protocol.paths import Endpoint
from serve.protocol.usage import USAGE_EVENTS, ask_usage

LEAST_BYTES_PER_TOKEN = 32
"""A prompt is not counted that could not fit if every token of it had so many bytes."""

COUNTED_AT_ONCE = 4
"""So many prompts of one caller are counted at once: who floods costs no more than that."""

_BYTES_PER_TOKEN = 4


class Admission:
    """The accounts of all callers of one replica, and what they used; `known` tells a caller by who asks."""

    def __init__(
        self,
        replica: str,
        context: int,
        counter: PromptCounter,
        known: Callable[[str], Caller | None],
        *,
        longest_answer: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.ledger = UsageLedger()
        self.shares = ReplicaShares(replica)
        self._context = context
        self._longest_answer = context if longest_answer is None else min(context, longest_answer)
        self._counter = counter
        self._known = known
        self._clock = clock
        self._accounts: dict[tuple[str, str], UsageAccount] = {}
        self._purses: dict[Caller, Purse | None] = {}
        self._open: set[Charge] = set()
        self._counting: dict[str, int] = {}
        self._elsewhere: list[UsageRow] = []
        self._until = clock() + DAY_SECONDS

    @property
    def limits_days(self) -> bool:
        """Return whether anybody has a budget for the day."""
        return any(account.budget is not None for account in self._accounts.values())

    @property
    def limited(self) -> bool:
        """Return whether anybody has a limit."""
        return bool(self._accounts)

    def purse(self, caller: Caller) -> Purse | None:
        """Return what a caller's requests are charged to, None where nobody counts them."""
        try:
            return self._purses[caller]
        except KeyError:
            return self._find_purse(caller)

    def _find_purse(self, caller: Caller) -> Purse | None:
        now = self._known(caller.who)
        if now is None:  # its key went while its body came: it binds nobody's account any more
            return Purse(caller, tuple(filter(None, map(self._accounts.get, _places(caller)))), self.ledger)
        if now is not caller:
            return self.purse(now)  # key or group changed while its body came
        counted = caller.key is not None or caller.group.limits != NO_LIMITS
        found = self._purses[caller] = self._make(caller) if counted else None
        return found

    async def admit(self, purse: Purse, endpoint: Endpoint, fields: Fields, adapter: str) -> Charge:
        """Reserve what a request may use, and have a stream tell what it did use.

        An answer without a cap is given one where it needs one; `fields` are changed. `adapter` is what was
        asked for, by its name or the base's.

        Raises: LimitReached; PromptTooLong.
        """
        adapter = BASE if adapter == self._counter.base else adapter
        most = partial(self._most, endpoint, fields)
        if not purse.meters and purse.longest is None:
            return self._ready(Charge(purse, adapter, None, 0, most, self._clock), endpoint, fields)
        size = measure(endpoint, fields, self._context)
        exact: PromptCount | None = None
        if purse.longest is not None and size.input > purse.longest:
            exact = await self._check_length(purse, endpoint, fields, size)
        found = self._reserve(purse, endpoint, fields, size, exact)
        if isinstance(found, LimitRefusal) and exact is None and self._may_fit(found, size):
            exact = await self._count(purse, endpoint, fields)
            if exact is not None:
                found = self._reserve(purse, endpoint, fields, size, exact)
        if isinstance(found, LimitRefusal):
            purse.ledger.refuse(purse.group, purse.key, adapter)
            raise refused(found, purse.meters, self._clock(), endpoint.dialect)
        likely = (
            exact.total if exact is not None else max(0, size.input - TEMPLATE_TOKENS) // _BYTES_PER_TOKEN
        )
        charge = Charge(purse, adapter, found, likely, most, self._clock)
        self._open.add(charge)
        return self._ready(charge, endpoint, fields)

    def end(self, charge: Charge) -> None:
        """Let go of a charge, if it was not settled."""
        charge.end()
        self._open.discard(charge)

    def advance(self) -> None:
        """Book what was seen of the answers under way."""
        now = self._clock()
        for charge in self._open:
            charge.advance(now)

    def share(self, alive: Collection[str]) -> None:
        """Take in which replicas live now."""
        if self.shares.observe(self._clock(), alive):
            for account in self._accounts.values():
                account.bound(account.limits, self.shares.replicas, self.shares.rank)

    def begin_day(self, day: str, seconds_left: float) -> bool:
        """Begin a day (UTC), or go on with one; return whether this replica had not begun it yet."""
        new, rows = self.ledger.begin(day), self.ledger.rows()
        self._until = self._clock() + seconds_left
        self._elsewhere = []
        for place, budget in self._budgets():
            budget.begin(self._until, used(rows, place), 0)
        return new

    def go_on(self, day: str, rows: Iterable[UsageRow]) -> None:
        """Take in what this replica had counted of a day before it began."""
        before = list(rows)
        self.ledger.add(day, before)
        if self.ledger.day == day:
            for place, budget in self._budgets():
                budget.used += used(before, place)

    def hear(self, day: str, rows: list[UsageRow]) -> None:
        """Take in what the other replicas counted of a day."""
        if self.ledger.day == day:
            self._elsewhere = rows
            for place, budget in self._budgets():
                budget.elsewhere = used(rows, place)

    def forget(self) -> None:
        """Drop what belongs to callers that there are no more, or that are others now."""
        for caller in [one for one in self._purses if self._known(one.who) is not one]:
            del self._purses[caller]
        now = self._clock()
        names = {(kind, name) for one in self._purses for kind, name in _places(one)}
        for place in [one for one in self._accounts if one not in names]:
            if all(
                not meter.held and (meter.room(now) == meter.limit or meter.measure == DAY)
                for meter in self._accounts[place].meters
            ):
                del self._accounts[place]

    def limits(self) -> list[LimitRow]:
        """Return the limits of groups and what is left of them, for a scrape."""
        now = self._clock()
        return [
            (name, MEASURES[meter.measure], meter.limit, max(0, meter.room(now)))
            for (kind, name), account in sorted(self._accounts.items())
            if kind == "group"
            for meter in account.meters
        ]

    def _make(self, caller: Caller) -> Purse:
        accounts = []
        for place, limits in zip(_places(caller), (caller.group.limits, caller.limits), strict=True):
            if limits == NO_LIMITS:
                self._accounts.pop(place, None)
                continue
            account = self._accounts.setdefault(place, UsageAccount(" ".join(place)))
            known = account.budget
            account.bound(limits, self.shares.replicas, self.shares.rank)
            if known is None and account.budget is not None:
                own = used(self.ledger.rows(), place)
                account.budget.begin(self._until, own, used(self._elsewhere, place))
            accounts.append(account)
        return Purse(caller, tuple(accounts), self.ledger)

    def _most(self, endpoint: Endpoint, fields: Fields) -> int:
        return measure(endpoint, fields, self._context).output(self._longest_answer)

    @staticmethod
    def _ready(charge: Charge, endpoint: Endpoint, fields: Fields) -> Charge:
        if "stream" in fields and endpoint.operation in USAGE_EVENTS:
            charge.hides_usage = ask_usage(fields)
        return charge

    def _budgets(self) -> Iterator[tuple[tuple[str, str], DayBudget]]:
        for place, account in self._accounts.items():
            if account.budget is not None:
                yield place, account.budget

    def _reserve(
        self, purse: Purse, endpoint: Endpoint, fields: Fields, size: RequestSize, exact: PromptCount | None
    ) -> Reservation | LimitRefusal:
        now = self._clock()
        tokens_in = size.input if exact is None else exact.total
        room = self._longest_answer
        if size.answers and size.wish is None:
            room = max(1, self._answer_room(purse, now, tokens_in, size.answers) // size.answers)
        found = reserve(purse.accounts, purse.meters, now, amounts(tokens_in, size.output(room)))
        if (
            size.answers
            and size.wish is None
            and room < self._longest_answer
            and isinstance(found, Reservation)
        ):
            cap(endpoint, fields, room)
        return found

    def _answer_room(self, purse: Purse, now: float, tokens_in: int, answers: int) -> int:
        """Return the most tokens of answers without a cap: what a minute allows and the day has left."""
        room = self._longest_answer * answers
        for meter in purse.meters:
            if meter.measure == OUTPUT:
                room = min(room, meter.limit)
            elif isinstance(meter, DayBudget):
                room = min(room, meter.room(now) - tokens_in)
        return room

    def _may_fit(self, refusal: LimitRefusal, size: RequestSize) -> bool:
        return (
            refusal.measure in {INPUT, DAY}
            and refusal.room > 0
            and size.input > 0
            and refusal.room * LEAST_BYTES_PER_TOKEN + TEMPLATE_TOKENS >= size.input
        )

    async def _check_length(
        self, purse: Purse, endpoint: Endpoint, fields: Fields, size: RequestSize
    ) -> PromptCount | None:
        """Return the prompts' tokens; what cannot be counted is taken to have all that it may have.

        Raises: PromptTooLong.
        """
        longest = purse.longest
        assert longest is not None, "or there is nothing to check"
        exact = await self._count(purse, endpoint, fields)
        if exact is None or exact.longest > longest:
            told = f"has {exact.longest}" if exact is not None else f"may have {size.input}"
            fact = f"{told} tokens, and {longest} are allowed for one of {purse.owner_of_longest}"
            raise PromptTooLong("prompt", fact, "send a shorter one")
        return exact

    async def _count(self, purse: Purse, endpoint: Endpoint, fields: Fields) -> PromptCount | None:
        under_way = self._counting.get(purse.key, 0)
        if under_way >= COUNTED_AT_ONCE:
            return None
        self._counting[purse.key] = under_way + 1
        try:
            return await self._counter.count(endpoint, fields)
        finally:
            self._counting[purse.key] -= 1
            if not self._counting[purse.key]:
                del self._counting[purse.key]


def _places(caller: Caller) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("group", caller.group.name), ("key", caller.who)
