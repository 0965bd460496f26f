"""The notes on compiled code: what is believed, and which starts share one."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.engine.args import EngineArguments
from serve.engine.compiled.choice import compiles_beside
from serve.engine.compiled.code import CodeNote, CompiledCode, code_key
from serve.engine.machine import HostFacts
from serve.settings import EngineSettings, ServeSettings
from tests.fakes.making import make_code

ARGV = ("--max-loras", "8", "--host", "127.0.0.1", "--port", "8000", "--kv-cache-memory-bytes", "1")
CPU = HostFacts(accelerator=False, cores=(0, 1), memory_bytes=2**35, libraries=())
GPU = HostFacts(accelerator=True, cores=(0, 1), memory_bytes=2**35, libraries=())


@pytest.fixture
def code(tmp_path: Path) -> CompiledCode:
    return CompiledCode(tmp_path, "key")


def test_a_note_is_believed_while_every_file_is_there_with_its_size(code: CompiledCode) -> None:
    assert code.read() == CodeNote()
    model = make_code(code.cache)
    code.note_made([model])
    assert code.read().state == "made"
    model.write_bytes(b"cod")
    assert code.read().state == "none"
    code.note_made([model])
    (model.parent.parent / "kernel.so").unlink()
    assert code.read().state == "none"


def test_what_a_killed_compilation_left_is_no_part_of_the_code(code: CompiledCode) -> None:
    model = make_code(code.cache)
    (model.parent / "model.7.tmp").write_bytes(b"co")
    code.note_made([model])
    (model.parent / "model.7.tmp").unlink()
    assert code.read().state == "made"


def test_code_that_could_not_be_kept_is_not_noted(code: CompiledCode) -> None:
    model = make_code(code.cache)
    model.unlink()
    with pytest.raises(ValueError, match="was not kept"):
        code.note_made([model])
    assert code.read().state == "none"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "made"}', '{"state": "made", "files": {}}'])
def test_a_note_that_cannot_be_read_says_nothing(code: CompiledCode, text: str) -> None:
    code.path.parent.mkdir()
    code.path.write_text(text)
    assert code.read() == CodeNote()


def test_failures_are_counted_although_it_was_made_meanwhile(code: CompiledCode) -> None:
    for times in (1, 2, 3):
        code.note_failed("no room")
        assert code.read() == CodeNote("failed", "no room", times)
    code.note_made([make_code(code.cache)])
    assert code.read() == CodeNote("made", failures=3)
    code.note_unsuited("options")
    assert code.read() == CodeNote("unsuited", "options")
    assert [file.name for file in code.path.parent.iterdir()] == ["key.json"], "nothing unfinished is left"


def test_the_port_and_the_size_of_the_cache_share_one_code(code: CompiledCode) -> None:
    other = ("--max-loras", "8", "--host=::1", "--port", "9", "--kv-cache-memory-bytes", "2")
    assert code_key(ARGV, {"HOME": "/a"}, "f") == code_key(other, {"VLLM_CACHE_ROOT": "/x"}, "f")


@pytest.mark.parametrize(
    ("argv", "variables", "fingerprint"),
    [
        (("--max-loras", "16", *ARGV[2:]), {}, "f"),
        (ARGV, {"OMP_NUM_THREADS": "1"}, "f"),
        (ARGV, {"VLLM_CPU_OMP_THREADS_BIND": "0"}, "f"),
        (ARGV, {"LD_PRELOAD": "/libiomp5.so"}, "f"),
        (ARGV, {}, "g"),
    ],
)
def test_what_code_depends_on_makes_another_key(
    argv: tuple[str, ...], variables: dict[str, str], fingerprint: str
) -> None:
    assert code_key(argv, variables, fingerprint) != code_key(ARGV, {}, "f")


@pytest.mark.parametrize(
    ("engine", "environment", "argv", "machine"),
    [
        ({"compile": "on"}, {}, (), CPU),
        ({"compile": "off"}, {}, (), CPU),
        ({"cpu_lora": "stock"}, {}, (), CPU),
        ({}, {"VLLM_DISABLE_COMPILE_CACHE": "1"}, (), CPU),
        ({}, {}, ("--enforce-eager",), CPU),
        ({}, {}, (), GPU),
    ],
)
def test_nothing_is_compiled_beside_where_it_is_not_wanted_or_of_no_use(
    engine: dict[str, str],
    environment: dict[str, str],
    argv: tuple[str, ...],
    machine: HostFacts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "sh")  # any command that exists
    settings = ServeSettings(engine=EngineSettings.model_validate(engine))
    assert not compiles_beside(settings, environment, EngineArguments(argv, {}), machine)
    assert compiles_beside(ServeSettings(), {}, EngineArguments((), {}), CPU)
