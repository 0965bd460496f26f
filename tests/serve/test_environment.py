"""The environment that the engine's processes get, and what `serve --check` says of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from serve.engine.environment import (
    COMPILE_VARIABLE,
    CPU_LORA_VARIABLE,
    SUPERVISED_VARIABLE,
    check,
    engine_environment,
)
from serve.engine.machine import HostFacts, Library, this_machine
from serve.settings import HANDOVER_VARIABLE, EngineSettings, ServeSettings

GPU = HostFacts(accelerator=True, cores=(0, 1), memory_bytes=2**35, libraries=())


@pytest.fixture
def machine(tmp_path: Path) -> HostFacts:
    """A small CPU machine with both libraries."""
    malloc = Library("malloc", ("/none", f"{tmp_path}/malloc.so"), "install it", rivals=("libjemalloc",))
    openmp = Library("openmp", (f"{tmp_path}/openmp.so",), "install that", rivals=("libgomp",))
    (tmp_path / "malloc.so").touch()
    (tmp_path / "openmp.so").touch()
    return HostFacts(accelerator=False, cores=(0, 1), memory_bytes=2**35, libraries=(malloc, openmp))


def test_both_libraries_are_preloaded_and_the_users_own_stay(tmp_path: Path, machine: HostFacts) -> None:
    preload = engine_environment(ServeSettings(), {"LD_PRELOAD": "/x/libother.so"}, machine)["LD_PRELOAD"]
    assert preload == f"{tmp_path}/malloc.so:{tmp_path}/openmp.so:/x/libother.so"


def test_a_rival_that_is_preloaded_keeps_ours_out(tmp_path: Path, machine: HostFacts) -> None:
    preload = engine_environment(ServeSettings(), {"LD_PRELOAD": "/x/libgomp.so.1"}, machine)["LD_PRELOAD"]
    assert preload == f"{tmp_path}/malloc.so:/x/libgomp.so.1"


def test_preloading_can_be_switched_off(machine: HostFacts) -> None:
    settings = ServeSettings(engine=EngineSettings(preload_libraries=False))
    assert "LD_PRELOAD" not in engine_environment(settings, {}, machine)


def test_nothing_is_fetched_reported_or_loaded_by_strangers(machine: HostFacts) -> None:
    found = engine_environment(
        ServeSettings(), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "PATH": "/bin"}, machine
    )
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in found
    assert found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["PATH"] == "/bin"


def test_what_the_user_has_set_stays(machine: HostFacts) -> None:
    given = {"HF_HUB_OFFLINE": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    found = engine_environment(ServeSettings(), given, machine)
    assert {name: found[name] for name in given} == given


SMALL = {"VLLM_CPU_OMP_THREADS_BIND": "0,1", "KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive"}


def test_a_small_machine_computes_on_every_core_and_waits_on_none(machine: HostFacts) -> None:
    found = engine_environment(ServeSettings(), {}, machine)
    assert {name: found[name] for name in SMALL} == SMALL
    large = engine_environment(ServeSettings(), {}, replace(machine, cores=tuple(range(64))))
    parallel = ServeSettings(vllm={"tensor-parallel-size": 2})
    assert SMALL.keys().isdisjoint(large)
    assert SMALL.keys().isdisjoint(engine_environment(parallel, {}, machine))


def test_a_gpu_machine_needs_none_of_it() -> None:
    found = engine_environment(ServeSettings(), {}, GPU)
    assert "LD_PRELOAD" not in found
    assert "VLLM_CPU_OMP_THREADS_BIND" not in found
    assert "KMP_BLOCKTIME" not in found
    assert [one.subject for one in check(ServeSettings(), GPU)] == ["device"]


def test_this_machine_has_cores_and_memory() -> None:
    found = this_machine()
    assert set(found.cores) == os.sched_getaffinity(0)
    assert found.memory_bytes > 2**30


def test_the_settings_and_the_choice_of_kernels_reach_every_process(machine: HostFacts) -> None:
    settings = ServeSettings(port=8123, engine=EngineSettings(cpu_lora="stock"))
    found = engine_environment(settings, {}, machine)
    assert ServeSettings.model_validate_json(found[HANDOVER_VARIABLE]).port == 8123
    assert found[CPU_LORA_VARIABLE] == "stock"
    assert found[SUPERVISED_VARIABLE] == "1"


def test_check_says_what_is_missing_and_how_to_get_it(tmp_path: Path, machine: HostFacts) -> None:
    (tmp_path / "openmp.so").unlink()
    findings = {one.subject: one for one in check(ServeSettings(), machine)}
    assert findings["malloc"].ok
    assert not findings["openmp"].ok
    assert findings["openmp"].detail == "not found; install that"
    off = ServeSettings(engine=EngineSettings(preload_libraries=False))
    assert all(one.ok for one in check(off, machine))


def test_compiled_code_is_kept_in_the_root_for_each_kind_of_processor(
    machine: HostFacts, tmp_path: Path
) -> None:
    known = replace(machine, processor="x86_64-12345678")
    settings = ServeSettings(root=tmp_path, engine=EngineSettings(compile="on"))
    found = engine_environment(settings, {}, known)
    assert found["VLLM_CACHE_ROOT"] == f"{tmp_path}/cache/x86_64-12345678/vllm"
    assert found["NUMBA_CACHE_DIR"] == f"{tmp_path}/cache/x86_64-12345678/numba"
    assert found[COMPILE_VARIABLE] == "on"
    assert engine_environment(settings, {"VLLM_CACHE_ROOT": "/x"}, known)["VLLM_CACHE_ROOT"] == "/x"
    assert this_machine().processor == this_machine().processor != "any"


def test_the_environment_of_this_process_is_not_changed(machine: HostFacts) -> None:
    before = dict(os.environ)
    engine_environment(ServeSettings(), os.environ, machine)
    assert dict(os.environ) == before


def test_a_forked_worker_compiles_as_one_that_was_started_does(machine: HostFacts) -> None:
    """vLLM sets it before it starts a worker; what is forked has read it with torch, before that."""
    assert engine_environment(ServeSettings(), {}, machine)["TORCHINDUCTOR_CPP_DYNAMIC_THREADS"] == "1"
    assert "TORCHINDUCTOR_CPP_DYNAMIC_THREADS" not in engine_environment(ServeSettings(), {}, GPU)
