"""A size plan in words: the choice, why, the memory it takes, and what happens beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from pydantic import JsonValue

from serve.engine.sizing.choice import (
    MOST_RESIDENTS,
    RESIDENTS,
    SizePlan,
    fewest_slots,
    grown,
    most_slots,
    wanted_residents,
)
from serve.engine.sizing.costs import VLLM_RANKS

_BY_USER = "set in the settings or on the command line"


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One choice: vLLM's option, its value, why, and the memory that it takes at most."""

    option: str
    value: int
    why: str
    memory: str


def lines(plan: SizePlan) -> list[PlanLine]:
    """Return the choices of a plan."""
    return [
        PlanLine("max_loras", plan.slots, _why_slots(plan), size(plan.slots_total)),
        PlanLine("max_lora_rank", plan.rank, _why_rank(plan), f"{size(plan.slot_bytes)} a slot"),
        PlanLine("max_cpu_loras", plan.residents, _why_residents(plan), size(plan.residents_total)),
    ]


def summary(plan: SizePlan) -> str:
    """Return for what the plan is, and how it compares with the memory there is, as one line."""
    return f"for {_expected(plan)}: {room(plan)}"


def room(plan: SizePlan) -> str:
    """Return how the memory that it takes compares with what adapters may take, and what helps."""
    if not plan.room.all or not plan.slot_bytes:
        return "the memory for it is not known"
    if plan.fits:
        return f"{_used(plan, 'of the')} that adapters may take"
    return f"{_used(plan, 'MORE THAN the')} that adapters may take; {remedy(plan)}"


def remedy(plan: SizePlan) -> str:
    """Return what to lower to what, for a plan that does not fit."""
    found = next((one for one in _smaller(plan) if one[1].fits), None)
    if found is not None:
        return found[0]
    return "lower kv_cache_memory_bytes or [limits] max_lora_rank, or use a machine with more memory"


def beyond(plan: SizePlan) -> list[str]:
    """Return what happens to adapters that do not fit."""
    found = [
        f"more than {plan.slots} adapters in one batch: the others wait until a slot is free",
        f"more than {plan.residents} adapters: the least recently used leave memory, and are read on demand",
    ]
    if plan.rank < plan.limit:
        found.append(
            f"a version of a rank beyond {plan.rank}: it is registered, and served from the next start on, "
            "which chooses anew"
        )
    if plan.limit_now is not None:
        found.append(
            f"a version of a rank beyond {plan.limit_now}: `register` refuses it until "
            f"`[limits] max_lora_rank = {plan.limit}` is in wardrobe.toml; this plan is for then"
        )
    else:
        found.append(
            f"a version of a rank beyond {plan.limit}: `register` refuses it ([limits] max_lora_rank)"
        )
    return found


def document(plan: SizePlan) -> dict[str, JsonValue]:
    """Return the plan for machines; memory in bytes."""
    values: dict[str, JsonValue] = {one.option: one.value for one in lines(plan)}
    return {
        **values,
        "why": {one.option: one.why for one in lines(plan)},
        "set_by_user": [*sorted(plan.set_by_user)],
        "rank_limit": plan.limit,
        "rank_limit_now": plan.limit if plan.limit_now is None else plan.limit_now,
        "expected": {**asdict(plan.expected), "modules": list(plan.expected.modules)},
        "slot_bytes": plan.slot_bytes,
        "slots_bytes": plan.slots_total,
        "adapter_bytes": plan.resident_bytes,
        "adapters_bytes": plan.residents_total,
        "packed_bytes": plan.packed_total,
        "total_bytes": plan.total,
        "room_bytes": plan.room.all,
        "room_slots_bytes": plan.room.slots,
        "room_source": plan.room.source,
        "fits": plan.fits,
        "remedy": "" if plan.fits else remedy(plan),
        "beyond": list(beyond(plan)),
    }


def size(number: int) -> str:
    """Return bytes as people write them; `?` for 0, which is not known."""
    if number == 0:
        return "?"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _smaller(plan: SizePlan) -> Iterator[tuple[str, SizePlan]]:
    """Yield what could be lowered, the least loss first."""
    for kept in _halves(plan.residents):
        if kept >= plan.slots:
            yield f"lower max_cpu_loras from {plan.residents} to {kept}", replace(plan, residents=kept)
    for rank in reversed(VLLM_RANKS):
        if plan.expected.rank <= rank < plan.rank and plan.expected.rank:
            narrow = replace(plan, rank=rank, slot_bytes=plan.slot_bytes * rank // plan.rank)
            yield f"lower [limits] max_lora_rank to {rank}", narrow
    for count in _halves(plan.slots):
        for kept in (plan.residents, *_halves(plan.residents)):
            if kept < count:
                break
            text = f"lower max_loras from {plan.slots} to {count}"
            if kept < plan.residents:
                text += f" and max_cpu_loras from {plan.residents} to {kept}"
            yield text, replace(plan, slots=count, residents=kept)


def _used(plan: SizePlan, verb: str) -> str:
    if plan.room.on_cpu:
        return f"{size(plan.total)} {verb} {size(plan.room.all)}"
    if not plan.room.slots:
        return f"in the host's memory {size(plan.in_room)} {verb} {size(plan.room.all)}"
    parts = [("on the GPU", plan.slots_total, plan.room.slots), ("in memory", plan.in_room, plan.room.all)]
    bad = [one for one in parts if one[1] > one[2]] or parts
    return " and ".join(f"{where} {size(used)} {verb} {size(most)}" for where, used, most in bad)


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _expected(plan: SizePlan) -> str:
    number = plan.expected.versions
    named = "1 adapter" if number == 1 else f"{number} adapters"
    return f"{named} of rank {plan.expected.rank} at most" if plan.expected.rank else named


def _why_slots(plan: SizePlan) -> str:
    on_cpu = plan.room.on_cpu
    fewest, most, asked = fewest_slots(on_cpu=on_cpu), most_slots(on_cpu=on_cpu), grown(plan.expected)
    where = "on a CPU a slot costs no time" if on_cpu else "on a GPU slots take from the KV cache"
    if "max_loras" in plan.set_by_user:
        return _BY_USER
    if plan.slots < plan.wanted:
        return f"{plan.wanted} for {_expected(plan)} would not fit into memory"
    if "max_cpu_loras" in plan.set_by_user and plan.slots < max(fewest, min(asked, most)):
        return f"no more than the {plan.residents} adapters in memory that are set, a power of two"
    if asked > most:
        return f"the most that are chosen, for {_expected(plan)}; {where}"
    if asked <= fewest:
        return f"the fewest that are chosen, for {_expected(plan)}; {where}"
    return f"one for each of {_expected(plan)}, half as many again, a power of two; {where}"


def _why_rank(plan: SizePlan) -> str:
    if plan.rank < plan.limit:
        return f"twice the largest expected; the limit of {plan.limit} would not fit into memory"
    rounded = "" if plan.rank == plan.limit else f" is {plan.limit}, which vLLM rounds up"
    if plan.limit_now is not None:
        return f"as asked; needs [limits] max_lora_rank = {plan.limit} (now {plan.limit_now})"
    return f"[limits] max_lora_rank{rounded}"


def _why_residents(plan: SizePlan) -> str:
    asked = grown(plan.expected)
    if "max_cpu_loras" in plan.set_by_user:
        return _BY_USER
    if plan.residents < plan.wanted_residents:
        number = plan.expected.versions
        held = "each has a place" if plan.residents >= number else f"not even one for each of {number}"
        return f"{plan.wanted_residents} for {_expected(plan)} would not fit into memory; {held}"
    if plan.residents > wanted_residents(plan.expected):
        return "no fewer than slots"
    if asked > MOST_RESIDENTS:
        return f"the most that are chosen, for {_expected(plan)}"
    if asked <= RESIDENTS:
        return f"the fewest that are chosen, for {_expected(plan)}"
    return f"one for each of {_expected(plan)}, half as many again, a power of two"
