"""How many slots of which rank, and how many adapters in memory: pure, from what is expected and there is.

A slot is a place in one batch; what is in memory takes a slot within milliseconds, and the rest is read from
the disk when it is asked for. On a CPU a slot costs memory and no time, so there are as many as adapters are
expected, as far as memory goes. Slots are powers of two: compiled code is kept per number of slots.
Where memory is short, each adapter keeps its place in memory before it keeps a slot of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from registry.errors import UsageError
from serve.engine.sizing.adapters import ExpectedAdapters
from serve.engine.sizing.costs import VLLM_RANKS, Modules, packed_bytes, rank_at_least, slot_bytes

SLOTS = 8
"""Fewest slots that are chosen; vLLM's own default of 1 makes every second adapter wait for the other."""

CPU_SLOTS = 16
"""The same on the CPU, where waiting for a slot costs half of the speed."""

RESIDENTS = 32
"""Fewest adapters in memory that are chosen; vLLM's own default is as many as there are slots."""

MOST_SLOTS = 32
"""Most slots that are chosen on a GPU, where each takes memory from the KV cache."""

MOST_CPU_SLOTS = 1024
"""The same on the CPU."""

MOST_RESIDENTS = 4096
"""Most adapters in memory that are chosen."""

GROWTH = 1.5
"""Room for adapters that are registered while a server runs: slots per adapter there is."""


@dataclass(frozen=True, slots=True)
class AdapterRoom:
    """The memory that adapters may take, in bytes: `slots` is the part for slots, `all` that for everything.

    `on_cpu` says that both are the same memory; on a GPU `all` is for what is in the host's memory only.
    0 where it is not known. `source` says in words where it comes from.
    """

    on_cpu: bool
    slots: int
    all: int
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SizePlan:
    """What was chosen; memory in bytes, of one slot and of one adapter in memory (0: shapes not known).

    `rank` is that of the slots, `limit` the largest that may be registered; `limit_now` is what it has to be
    raised from, where the plan is for a larger one. `set_by_user` names the options that were not chosen
    here. `wanted` is how many slots there would be with memory enough, `wanted_residents` how many in memory.
    """

    expected: ExpectedAdapters
    slots: int
    residents: int
    rank: int
    limit: int
    wanted: int
    wanted_residents: int
    slot_bytes: int
    packed_bytes: int
    resident_bytes: int
    room: AdapterRoom
    set_by_user: frozenset[str] = frozenset()
    limit_now: int | None = None

    @property
    def slots_total(self) -> int:
        """Return the bytes of all slots."""
        return self.slots * self.slot_bytes

    @property
    def packed_total(self) -> int:
        """Return the bytes of what the kernel for the CPU keeps beside all slots."""
        return self.slots * self.packed_bytes

    @property
    def residents_total(self) -> int:
        """Return the bytes of as many adapters as fit in memory, with what is packed of those in slots."""
        return self.residents * self.resident_bytes + self.packed_total

    @property
    def total(self) -> int:
        """Return the bytes that adapters take when every place is taken."""
        return self.slots_total + self.residents_total

    @property
    def in_room(self) -> int:
        """Return the bytes that `room.all` has to hold: on a GPU the slots are elsewhere."""
        return self.total if self.room.on_cpu else self.residents_total

    @property
    def fits(self) -> bool:
        """Return whether it is within the room, as far as that is known."""
        slots_fit = not self.room.slots or self.slots_total <= self.room.slots
        return slots_fit and (not self.room.all or self.in_room <= self.room.all)

    @property
    def possible(self) -> bool:
        """Return whether it is within all memory that is left, of which the room is a part."""
        return not self.room.all or self.in_room <= 2 * self.room.all


def choose(
    expected: ExpectedAdapters,
    modules: Modules,
    limit: int,
    room: AdapterRoom,
    *,
    slots: int | None = None,
    residents: int | None = None,
    targets: Collection[str] | None = None,
) -> SizePlan:
    """Return the sizes for `expected` adapters; `slots`, `residents` and `targets` are the user's, where set.

    Raises: UsageError: vLLM serves no rank as large as `limit`, or not fewer `residents` than `slots`.
    """
    _require_order(slots, residents)
    wanted = slots or wanted_slots(expected, on_cpu=room.on_cpu)
    if residents and not slots:
        wanted = min(wanted, 1 << (residents.bit_length() - 1))
    kept = residents or max(wanted_residents(expected), wanted)
    set_by_user = frozenset(
        name for name, value in (("max_loras", slots), ("max_cpu_loras", residents)) if value is not None
    )

    def full(rank: int) -> SizePlan:
        own = expected.modules or targets
        typical = min(expected.rank or rank, rank)
        return SizePlan(
            expected,
            wanted,
            kept,
            rank,
            limit,
            wanted,
            kept,
            slot_bytes(modules, rank, targets),
            packed_bytes(modules, typical, own) if room.on_cpu else 0,
            slot_bytes(modules, typical, own),
            room,
            set_by_user,
        )

    widest = full(servable_rank(limit))
    if widest.fits:
        return widest
    narrow = full(servable_rank(min(2 * expected.rank, limit))) if expected.rank else widest
    cut = _cut(narrow)
    same = replace(widest, slots=cut.slots, residents=cut.residents)
    return same if same.fits else cut


def wanted_slots(expected: ExpectedAdapters, *, on_cpu: bool) -> int:
    """Return how many slots `expected` adapters ask for, memory aside: a power of two."""
    return _power_of_two(min(max(grown(expected), fewest_slots(on_cpu=on_cpu)), most_slots(on_cpu=on_cpu)))


def wanted_residents(expected: ExpectedAdapters) -> int:
    """Return how many places in memory `expected` adapters ask for, memory aside: a power of two."""
    return min(max(RESIDENTS, _power_of_two(grown(expected))), MOST_RESIDENTS)


def grown(expected: ExpectedAdapters) -> int:
    """Return for how many adapters there is to be room: those there are, and half as many again."""
    return int(expected.versions * GROWTH)


def fewest_slots(*, on_cpu: bool) -> int:
    """Return the fewest slots that are chosen while memory allows."""
    return CPU_SLOTS if on_cpu else SLOTS


def most_slots(*, on_cpu: bool) -> int:
    """Return the most slots that are chosen."""
    return MOST_CPU_SLOTS if on_cpu else MOST_SLOTS


def servable_rank(limit: int) -> int:
    """Return the smallest rank that vLLM can be started with and that covers `limit`.

    Raises: UsageError: there is none.
    """
    rank = rank_at_least(limit)
    if rank is None:
        fact = f"max_lora_rank {limit} exceeds {VLLM_RANKS[-1]}"
        raise UsageError("wardrobe.toml", fact, "lower it in [limits]")
    return rank


def _require_order(slots: int | None, residents: int | None) -> None:
    if slots and residents and residents < slots:
        fact = f"{residents} is fewer than max_loras {slots}, and what is in a slot is in memory, too"
        remedy = f"raise it to {slots} or more, or lower max_loras"
        raise UsageError("vllm option max_cpu_loras", fact, remedy, param="max_cpu_loras")


def _cut(plan: SizePlan) -> SizePlan:
    """Return `plan` with as much of it as fits, else its smallest: places in memory first, then slots.

    Memory must hold each adapter there is; room for more of them is what is left beside the slots.
    """
    for kept in _memory_steps(plan):
        for count in _slot_steps(plan):
            tried = replace(plan, slots=count, residents=max(kept, count))
            if tried.fits:
                return _filled(tried)
    if "max_loras" not in plan.set_by_user:
        tried = replace(tried, slots=min(SLOTS, tried.slots))
    return tried


def _memory_steps(plan: SizePlan) -> Iterator[int]:
    if "max_cpu_loras" in plan.set_by_user:
        yield plan.residents
        return
    kept = min(max(plan.expected.versions, RESIDENTS), plan.residents)
    while kept > RESIDENTS:
        yield kept
        kept //= 2
    yield RESIDENTS


def _slot_steps(plan: SizePlan) -> Iterator[int]:
    count = plan.slots
    yield count
    fewest = fewest_slots(on_cpu=plan.room.on_cpu)
    while "max_loras" not in plan.set_by_user and count > fewest:
        count //= 2
        yield count


def _filled(plan: SizePlan) -> SizePlan:
    """Return `plan` with what it leaves of the room given to adapters in memory, as far as wanted."""
    if "max_cpu_loras" in plan.set_by_user or not plan.room.all or not plan.resident_bytes:
        return plan
    more = (plan.room.all - plan.in_room) // plan.resident_bytes
    return replace(plan, residents=max(plan.residents, min(plan.residents + more, plan.wanted_residents)))


def _power_of_two(number: int) -> int:
    return int(1 << max(number - 1, 0).bit_length())
