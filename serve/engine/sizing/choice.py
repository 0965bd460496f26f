"""How many slots of which rank, and how many adapters in memory: pure, from what is expected and there is.

A slot is a place in one batch; what is in memory takes a slot within milliseconds, and the rest is read from
the disk when it is asked for. On a CPU a slot costs memory and no time, so there are as many as adapters are
expected, as far as memory goes. Slots are powers of two: compiled code is kept per number of slots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

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

    `on_cpu` says that both are the same memory. 0 where it is not known.
    """

    on_cpu: bool
    slots: int
    all: int


@dataclass(frozen=True, slots=True)
class SizePlan:
    """What was chosen; memory in bytes, of one slot and of one adapter in memory (0: shapes not known).

    `rank` is that of the slots, `limit` the largest that may be registered. `set_by_user` names the options
    that were not chosen here. `wanted` is how many slots there would be with memory enough.
    """

    expected: ExpectedAdapters
    slots: int
    residents: int
    rank: int
    limit: int
    wanted: int
    slot_bytes: int
    packed_bytes: int
    resident_bytes: int
    room: AdapterRoom
    set_by_user: frozenset[str] = frozenset()

    @property
    def slots_total(self) -> int:
        """Return the bytes of all slots."""
        return self.slots * self.slot_bytes

    @property
    def residents_total(self) -> int:
        """Return the bytes of as many adapters as fit in memory, with what is packed of those in slots."""
        return self.residents * self.resident_bytes + self.slots * self.packed_bytes

    @property
    def total(self) -> int:
        """Return the bytes that adapters take when every place is taken."""
        return self.slots_total + self.residents_total

    @property
    def fits(self) -> bool:
        """Return whether it is within the room, as far as that is known."""
        return not self.room.all or self.total <= self.room.all

    @property
    def possible(self) -> bool:
        """Return whether it is within all memory that is left, of which the room is a part."""
        return not self.room.all or self.total <= 2 * self.room.all


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

    Raises: UsageError: vLLM serves no rank as large as `limit`.
    """
    wanted = slots or wanted_slots(expected, on_cpu=room.on_cpu)
    set_by_user = frozenset(
        name for name, value in (("max_loras", slots), ("max_cpu_loras", residents)) if value is not None
    )

    def plan(count: int, rank: int, kept: int) -> SizePlan:
        own = expected.modules or targets
        typical = min(expected.rank or rank, rank)
        return SizePlan(
            expected,
            count,
            residents or max(kept, count),
            rank,
            limit,
            wanted,
            slot_bytes(modules, rank, targets),
            packed_bytes(modules, typical, own) if room.on_cpu else 0,
            slot_bytes(modules, typical, own),
            room,
            set_by_user,
        )

    tried = [plan(*sizes) for sizes in _candidates(expected, limit, wanted, fixed=slots is not None)]
    return next((one for one in tried if _is_within(one)), tried[-1])


def wanted_slots(expected: ExpectedAdapters, *, on_cpu: bool) -> int:
    """Return how many slots `expected` adapters ask for, memory aside: a power of two."""
    fewest, most = (CPU_SLOTS, MOST_CPU_SLOTS) if on_cpu else (SLOTS, MOST_SLOTS)
    return _power_of_two(min(max(int(expected.versions * GROWTH), fewest), most))


def servable_rank(limit: int) -> int:
    """Return the smallest rank that vLLM can be started with and that covers `limit`.

    Raises: UsageError: there is none.
    """
    rank = rank_at_least(limit)
    if rank is None:
        fact = f"max_lora_rank {limit} exceeds {VLLM_RANKS[-1]}"
        raise UsageError("wardrobe.toml", fact, "lower it in [limits]")
    return rank


def _candidates(
    expected: ExpectedAdapters, limit: int, wanted: int, *, fixed: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield slots, rank and adapters in memory, the best first, the smallest last.

    A smaller rank comes before fewer slots, and only then: a version of a higher one waits for a restart.
    """
    widest = servable_rank(limit)
    kept = min(max(RESIDENTS, _power_of_two(int(expected.versions * GROWTH))), MOST_RESIDENTS)
    yield wanted, widest, kept
    narrow = min(servable_rank(min(2 * expected.rank, limit)), widest) if expected.rank else widest
    count = wanted
    while True:
        yield count, narrow, kept
        if fixed or count <= SLOTS:
            break
        count //= 2
    while kept > RESIDENTS:
        kept //= 2
        yield count, narrow, kept


def _is_within(plan: SizePlan) -> bool:
    return plan.fits and (not plan.room.slots or plan.slots_total <= plan.room.slots)


def _power_of_two(number: int) -> int:
    return int(1 << max(number - 1, 0).bit_length())
