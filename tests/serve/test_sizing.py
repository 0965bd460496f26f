"""How many slots of which rank are chosen, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo, Limits
from serve.engine.args import engine_arguments, size_plan
from serve.engine.machine import HostFacts
from serve.engine.sizing.adapters import ExpectedAdapters
from serve.engine.sizing.choice import (
    CPU_SLOTS,
    MOST_CPU_SLOTS,
    MOST_SLOTS,
    RESIDENTS,
    SLOTS,
    AdapterRoom,
    SizePlan,
    choose,
)
from serve.engine.sizing.costs import packed_bytes, slot_bytes
from serve.engine.sizing.words import beyond, document, lines, summary
from serve.engine.vllm_engine import _refusal_and_remedy
from serve.settings import ServeSettings

GIB = 2**30
MODULES = {
    "model.layers.0.self_attn.q_proj": (1000, 1000),
    "model.layers.0.self_attn.v_proj": (200, 1000),
    "lm_head": (50_000, 1000),
}
AMPLE = AdapterRoom(on_cpu=True, slots=2**40, all=2**40)


def chosen(
    versions: int,
    rank: int = 8,
    room: AdapterRoom = AMPLE,
    slots: int | None = None,
    residents: int | None = None,
) -> SizePlan:
    expected = ExpectedAdapters(versions, rank, ("q_proj", "v_proj"))
    return choose(expected, MODULES, 32, room, slots=slots, residents=residents)


def room_for(slots: int, rank: int, *, adapters: int = 0) -> AdapterRoom:
    """Return a CPU's room that so many slots of `rank` fit into, with so many adapters of rank 8."""
    q_and_v = ("q_proj", "v_proj")
    packed = packed_bytes(MODULES, 8, q_and_v)
    size = slots * (slot_bytes(MODULES, rank) + packed) + adapters * slot_bytes(MODULES, 8, q_and_v)
    return AdapterRoom(on_cpu=True, slots=size, all=size)


def test_a_slot_holds_a_and_b_of_every_module_of_the_base_in_two_bytes_a_number() -> None:
    assert slot_bytes(MODULES, 8) == 8 * 2 * (2000 + 1200 + 51_000)
    assert slot_bytes(MODULES, 8, ("q_proj",)) == 8 * 2 * 2000
    assert packed_bytes(MODULES, 8, ("v_proj",)) == 8 * 2 * 200


@pytest.mark.parametrize(
    ("versions", "slots", "residents"),
    [
        (0, CPU_SLOTS, RESIDENTS),
        (10, 16, RESIDENTS),
        (11, 16, 32),
        (12, 32, 32),
        (64, 128, 128),
        (5000, 1024, 4096),
    ],
)
def test_every_adapter_has_a_slot_on_a_cpu_with_memory_enough(
    versions: int, slots: int, residents: int
) -> None:
    plan = chosen(versions)
    assert (plan.slots, plan.residents, plan.rank) == (slots, residents, 32)
    assert plan.slots <= MOST_CPU_SLOTS
    assert plan.fits


def test_on_a_gpu_slots_are_fewer_and_unknown_memory_changes_nothing() -> None:
    gpu = AdapterRoom(on_cpu=False, slots=0, all=2**40)
    assert chosen(1, room=gpu).slots == SLOTS
    assert chosen(500, room=gpu).slots == MOST_SLOTS
    small = AdapterRoom(on_cpu=False, slots=10 * slot_bytes(MODULES, 32), all=2**40)
    assert (chosen(500, room=small).slots, chosen(500, room=small).rank) == (16, 16)


def test_where_memory_is_short_the_rank_follows_what_is_registered_before_slots_become_fewer() -> None:
    narrow = room_for(128, 16, adapters=128)
    assert (chosen(64, room=narrow).slots, chosen(64, room=narrow).rank) == (128, 16)
    fewer = room_for(64, 16, adapters=128)
    assert (chosen(64, room=fewer).slots, chosen(64, room=fewer).rank) == (64, 16)
    assert chosen(64, rank=32, room=fewer).rank == 32, "never less than what is registered"


def test_slots_are_never_fewer_than_eight_however_short_memory_is() -> None:
    plan = chosen(64, room=AdapterRoom(on_cpu=True, slots=1, all=1))
    assert (plan.slots, plan.residents) == (SLOTS, RESIDENTS)
    assert not plan.fits
    assert not plan.possible
    assert chosen(64, room=room_for(100, 16), slots=100).possible
    assert "MORE THAN" in summary(plan)


def test_what_the_user_sets_is_kept_and_counted() -> None:
    plan = chosen(64, slots=3, residents=5)
    assert (plan.slots, plan.residents) == (3, 5)
    assert [one.why for one in lines(plan)][::2] == ["set in the settings or on the command line"] * 2
    assert chosen(64, slots=300).residents == 300, "no fewer in memory than slots"
    assert chosen(64, slots=200, room=room_for(1, 32)).slots == 200


def test_a_base_whose_shapes_are_not_known_gets_what_is_expected() -> None:
    plan = choose(ExpectedAdapters(40, 8), {}, 32, AMPLE)
    assert (plan.slots, plan.rank) == (64, 32)
    assert "not known" in summary(plan)


def test_a_limit_beyond_vllm_is_refused() -> None:
    with pytest.raises(UsageError, match="max_lora_rank 513 exceeds 512"):
        choose(ExpectedAdapters(), MODULES, 513, AMPLE)


def test_it_is_said_what_happens_beyond() -> None:
    text = " ".join(beyond(chosen(64, room=room_for(128, 16, adapters=128))))
    assert "more than 128 adapters in one batch" in text
    assert "a version of a rank beyond 16: it is registered, and served from the next start on" in text
    assert "a version of a rank beyond 32: `register` refuses it" in text
    assert document(chosen(64))["total_bytes"] == chosen(64).total


def test_where_memory_is_short_each_adapter_keeps_its_place_and_slots_take_the_rest() -> None:
    plan = chosen(1000, room=room_for(256, 16, adapters=1000))
    assert (plan.slots, plan.residents, plan.rank) == (256, 1000, 16)
    assert plan.fits
    more = replace(plan, slots=2 * plan.slots)
    assert not more.fits, "no more slots would fit"
    assert "1024 for 1000 adapters of rank 8 at most would not fit" in lines(plan)[0].why
    assert lines(plan)[2].why.endswith("would not fit into memory; each has a place")


def test_nothing_that_would_fit_is_left_out_of_a_plan() -> None:
    for size in range(10, 400, 13):
        plan = chosen(1000, room=AdapterRoom(on_cpu=True, slots=size * 2**20, all=size * 2**20))
        if plan.fits and plan.slots >= CPU_SLOTS and plan.residents < plan.wanted_residents:
            assert not replace(plan, residents=plan.residents + 1).fits
        if plan.slots < CPU_SLOTS:
            assert not replace(plan, slots=CPU_SLOTS, residents=RESIDENTS).fits


def test_reasons_name_the_cap_and_the_minimum_where_they_decide() -> None:
    assert lines(chosen(1_000_000))[0].why.startswith("the most that are chosen")
    assert lines(chosen(1_000_000))[2].why.startswith("the most that are chosen")
    assert [one.why.split(",")[0] for one in lines(chosen(0))][::2] == ["the fewest that are chosen"] * 2
    assert lines(chosen(64))[0].why.startswith("one for each of 64 adapters")
    assert lines(chosen(64, slots=300))[2].why == "no fewer than slots"
    assert lines(chosen(64))[2].why.startswith("one for each of 64 adapters")
    assert "that are set" in lines(chosen(64, residents=20))[0].why


def test_in_memory_are_never_fewer_than_slots() -> None:
    with pytest.raises(UsageError, match="2 is fewer than max_loras 4"):
        chosen(10, slots=4, residents=2)
    assert chosen(10, residents=10).slots == 8


def test_a_plan_that_does_not_fit_says_what_to_lower_to_what() -> None:
    tight = chosen(10, slots=64, residents=2000, room=room_for(64, 16, adapters=500))
    assert not tight.fits
    assert "lower max_cpu_loras from 2000 to 500" in summary(tight)
    wide = chosen(10, slots=64, room=room_for(40, 16))
    assert re.search(
        r"MORE THAN .*; lower \[limits\] max_lora_rank to 8|lower max_loras from 64 to 32", summary(wide)
    )


def test_on_a_gpu_slots_do_not_count_as_memory_of_the_host() -> None:
    size = 40 * slot_bytes(MODULES, 8, ("q_proj", "v_proj"))
    plan = chosen(1, room=AdapterRoom(on_cpu=False, slots=2**40, all=size))
    assert (plan.slots, plan.rank) == (SLOTS, 32)
    assert plan.fits


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--max-lora-rank", "4"), "max_lora_rank: cannot be set here"),
        (("--max-loras", "many"), "'many' is no whole number of at least 1"),
        (("--max-cpu-loras", "0"), "'0' is no whole number of at least 1"),
        (("--max-loras", "4", "--max-cpu-loras", "2"), "2 is fewer than max_loras 4"),
    ],
)
def test_sizes_are_refused_for_options_that_no_server_would_take(extra: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        size_plan(ServeSettings(), BASE, Limits(), CPU, extra=extra)


BASE = BaseModelInfo("smol", Path("/models/smol"), "sha256:0", None, MODULES)
CPU = HostFacts(accelerator=False, cores=(0, 1), memory_bytes=16 * GIB, libraries=())


def test_the_command_line_holds_what_was_chosen_and_the_child_confirms_the_rank() -> None:
    settings, expected = ServeSettings(), ExpectedAdapters(100, 8)
    plan = size_plan(settings, BASE, Limits(), CPU, expected=expected)
    arguments = engine_arguments(settings, BASE, Limits(), CPU, expected=expected)
    argv = " ".join(arguments.argv)
    assert f"--max-loras {plan.slots} --max-cpu-loras {plan.residents}" in argv
    assert plan.slots == 256
    assert arguments.owned["max_lora_rank"] == plan.rank == 32


def test_the_room_is_half_of_what_base_cache_and_processes_leave() -> None:
    settings = ServeSettings(vllm={"kv_cache_memory_bytes": 4 * GIB})
    weights = 2 * sum(out * into for out, into in MODULES.values())
    found = size_plan(settings, BASE, Limits(), CPU).room
    assert found.all == found.slots == (16 * GIB - weights - 4 * GIB - 3 * GIB) // 2
    gpu = replace(CPU, accelerator=True, device_bytes=80 * GIB)
    assert size_plan(settings, BASE, Limits(), gpu).room == AdapterRoom(
        on_cpu=False, slots=5 * GIB, all=4 * GIB
    )


def test_a_version_beyond_the_slots_rank_is_refused_with_what_helps() -> None:
    words = "Loading lora x failed: LoRA rank 32 is greater than max_lora_rank 16."
    fact, remedy = _refusal_and_remedy(words)
    assert "LoRA rank 32 is greater than max_lora_rank 16" in fact
    assert remedy == "restart the server: it chooses the rank of its slots anew"
    assert _refusal_and_remedy("it is broken")[1] == "see the engine's log"
