"""A size plan in words: the choice, why, the memory it takes, and what happens beyond it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pydantic import JsonValue

from serve.engine.sizing.choice import SizePlan


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
    """Return the plan as one line."""
    slots = f"{plan.slots} slots of rank {plan.rank} ({size(plan.slots_total)})"
    kept = f"{plan.residents} adapters in memory ({size(plan.residents_total)})"
    return f"{slots}, {kept}, for {_expected(plan)}; {room(plan)}"


def room(plan: SizePlan) -> str:
    """Return how the memory that it takes compares with what adapters may take."""
    if not plan.room.all or not plan.slot_bytes:
        return "the memory for it is not known"
    verb = "of" if plan.fits else "MORE THAN"
    return f"{size(plan.total)} {verb} the {size(plan.room.all)} that adapters may take"


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
    found.append(f"a version of a rank beyond {plan.limit}: `register` refuses it ([limits] max_lora_rank)")
    return found


def document(plan: SizePlan) -> dict[str, JsonValue]:
    """Return the plan for machines; memory in bytes."""
    values: dict[str, JsonValue] = {one.option: one.value for one in lines(plan)}
    return {
        **values,
        "why": {one.option: one.why for one in lines(plan)},
        "expected": {**asdict(plan.expected), "modules": list(plan.expected.modules)},
        "slot_bytes": plan.slot_bytes,
        "slots_bytes": plan.slots_total,
        "adapter_bytes": plan.resident_bytes,
        "adapters_bytes": plan.residents_total,
        "total_bytes": plan.total,
        "room_bytes": plan.room.all,
        "fits": plan.fits,
        "beyond": list(beyond(plan)),
    }


def size(number: int) -> str:
    """Return bytes as people write them; `?` for 0, which is not known."""
    if number == 0:
        return "?"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _expected(plan: SizePlan) -> str:
    number = plan.expected.versions
    named = "1 adapter" if number == 1 else f"{number} adapters"
    return f"{named} of rank {plan.expected.rank} at most" if plan.expected.rank else named


def _why_slots(plan: SizePlan) -> str:
    if "max_loras" in plan.set_by_user:
        return "set in the settings or on the command line"
    if plan.slots < plan.wanted:
        return f"{plan.wanted} for {_expected(plan)} would not fit into memory"
    where = "on a CPU a slot costs no time" if plan.room.on_cpu else "on a GPU slots take from the KV cache"
    return f"one for each of {_expected(plan)}, half as many again, a power of two; {where}"


def _why_rank(plan: SizePlan) -> str:
    if plan.rank < plan.limit:
        return f"twice the largest registered; the limit of {plan.limit} would not fit into memory"
    return "[limits] max_lora_rank"


def _why_residents(plan: SizePlan) -> str:
    if "max_cpu_loras" in plan.set_by_user:
        return "set in the settings or on the command line"
    return "as many as there are adapters, half as many again, and no fewer than slots"
