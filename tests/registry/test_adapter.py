"""What may become a version, what it holds, and which files are refused with fact, limit and remedy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from registry.errors import InvalidAdapter
from registry.records import BaseModelInfo, FileEntry, Limits
from registry.validation.adapter import ALLOWED, check_file_name, digest, inspect, uploadable
from registry.validation.base import read_base
from registry.validation.canonical import sha256_hex
from registry.validation.identity import HASHED
from tests.fakes.adapters import ALL_LINEAR, Adapter, make_adapter
from tests.fakes.base import CHAT_TEMPLATE, SMOLLM2, base_record, make_base
from tests.fakes.safetensors import encode, file_bytes, raw_header
from tests.registry.inspecting import LAYER, WEIGHTS, check, refusal, taken, tensor

NOBODY = 65534


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def test_a_right_folder_gives_its_files_with_the_hashes_of_their_bytes(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    found = check(make_adapter(tmp_path / "a", rank=4), base)
    assert [file.name for file in found.files] == ["README.md", "adapter_config.json", WEIGHTS]
    for file in found.files:
        content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
        assert file.entry == FileEntry(file.name, file.size, file.sha256)
    assert [file.name in HASHED for file in found.files] == [False, True, True]
    assert (found.rank, found.target_modules) == (4, ("q_proj", "v_proj"))
    assert (found.left_out, found.warnings, found.template_sha256) == ((), (), None)
    assert found.digest == digest((file.entry for file in found.files), base.fingerprint, None)


def test_the_config_that_is_stored_names_the_base_by_fingerprint(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a", config={"base_model_name_or_path": "/data/someone/tiny"})
    config = taken(check(folder, base), "adapter_config.json").source
    assert isinstance(config, bytes)
    assert json.loads(config)["base_model_name_or_path"] == base.fingerprint
    assert b"someone" not in config


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "F16"}, {"dtype": "F32"}, {"dtype": "BF16"},
        {"rank": 1}, {"rank": 3}, {"rank": 12}, {"rank": 32},
        {"modules": ALL_LINEAR},
        {"ranks": {"q_proj": 2}},
        {"ranks": {"q_proj": 2}, "config": {"rank_pattern": {"self_attn.q_proj": 2}}},
        {"config": {"use_rslora": True}},
        {"config": {"alpha_pattern": {"q_proj": 4}}},
        {"config": {"target_modules": r".*\.(q|v)_proj"}},
        {"config": {"target_modules": ["layers.0.self_attn.q_proj", "v_proj", "layers.1.self_attn.q_proj"]}},
        {"prefix": "model."},
    ],
)  # fmt: skip
def test_what_vllm_serves_rightly_is_accepted_without_a_warning(
    tmp_path: Path, base: BaseModelInfo, changes: dict[str, object]
) -> None:
    found = check(make_adapter(tmp_path / "a", **changes), base)
    assert found.warnings == ()
    assert "q_proj" in found.target_modules


def test_the_rank_is_the_largest_of_any_module(tmp_path: Path, base: BaseModelInfo) -> None:
    found = check(make_adapter(tmp_path / "a", rank=4, ranks={"v_proj": 16}), base)
    assert found.rank == 16


def test_only_named_files_are_taken_and_the_rest_is_named(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    rest = [
        "training_args.bin",
        "optimizer.pt",
        "tokenizer.json",
        "handler.py",
        "special_tokens_map.json",
        ".env",
    ]
    for name in rest:
        (folder / name).write_bytes(b"x")
    for name in ("checkpoint-10", "ref", "runs"):
        (folder / name).mkdir()
        make_adapter(folder / name)
    (folder / "adapter_model.bin").write_bytes(b"a pickle beside the weights")
    (folder / "link.txt").symlink_to("/etc/passwd")
    found = check(folder, base)
    assert {file.name for file in found.files} == {"README.md", "adapter_config.json", WEIGHTS}
    assert found.left_out == tuple(
        sorted([*rest, "adapter_model.bin", "link.txt", "checkpoint-10/", "ref/", "runs/"])
    )
    assert found.digest == check(make_adapter(tmp_path / "b"), base).digest


def test_what_is_no_content_does_not_change_the_digest(tmp_path: Path, base: BaseModelInfo) -> None:
    first = check(make_adapter(tmp_path / "a"), base).digest
    config = {"base_model_name_or_path": "/other/tiny", "target_modules": ["v_proj", "q_proj"]}
    same = make_adapter(tmp_path / "b", config=config, readme="another text", chat_template=CHAT_TEMPLATE)
    assert check(same, base).digest == first
    assert inspect(same, base=replace(base, name="x"), limits=Limits(), name="other").digest == first
    assert check(make_adapter(tmp_path / "c", readme=None), base).digest == first


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"alpha": 17},
        {"rank": 4},
        {"dtype": "F16"},
        {"chat_template": "other"},
        {"modules": ("q_proj",)},
    ],
)
def test_what_is_content_changes_the_digest(
    tmp_path: Path, base: BaseModelInfo, changes: dict[str, object]
) -> None:
    first = check(make_adapter(tmp_path / "a"), base).digest
    assert check(make_adapter(tmp_path / "b", **changes), base).digest != first


def test_another_base_is_another_identity(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    other = replace(base, fingerprint="sha256:" + "c" * 64)
    assert check(folder, other).digest != check(folder, base).digest


def test_the_digest_is_a_fixed_function_of_its_parts() -> None:
    files = [
        FileEntry("adapter_model.safetensors", 10, "a" * 64),
        FileEntry("adapter_config.json", 5, "b" * 64),
        FileEntry("README.md", 1, "c" * 64),
    ]
    expected = (
        b'{"base":"sha256:base","chat_template":null,"files":['
        b'{"path":"adapter_config.json","sha256":"' + b"b" * 64 + b'","size":5},'
        b'{"path":"adapter_model.safetensors","sha256":"' + b"a" * 64 + b'","size":10}]}'
    )
    assert digest(files, "sha256:base", None) == f"sha256:{hashlib.sha256(expected).hexdigest()}"
    assert digest(reversed(files), "sha256:base", None) == digest(files[:2], "sha256:base", None)
    assert digest(files, "sha256:base", "d" * 64) != digest(files, "sha256:base", None)


def test_a_template_of_its_own_is_taken_and_said(tmp_path: Path, base: BaseModelInfo) -> None:
    found = check(make_adapter(tmp_path / "a", chat_template="{{ other }}"), base)
    assert taken(found, "chat_template.jinja").source == b"{{ other }}"
    assert found.template_sha256 == sha256_hex(b"{{ other }}")
    assert "chat template differs" in found.warnings[0]


def test_the_bases_template_is_left_out(tmp_path: Path, base: BaseModelInfo) -> None:
    found = check(make_adapter(tmp_path / "a", chat_template=CHAT_TEMPLATE), base)
    assert found.left_out == ("chat_template.jinja",)
    assert (found.template_sha256, found.warnings) == (None, ())


def test_a_template_inside_the_tokenizers_config_counts_as_a_file_would(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    as_file = check(make_adapter(tmp_path / "a", chat_template="{{ other }}"), base)
    folder = make_adapter(tmp_path / "b")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ other }}"}))
    found = check(folder, base)
    assert found.digest == as_file.digest
    assert found.left_out == ("tokenizer_config.json",)
    (folder / "tokenizer_config.json").write_text("{")
    assert refusal(folder, base).reason == "bad_config"


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"])
def test_pickled_weights_are_refused_unread(tmp_path: Path, base: BaseModelInfo, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).rename(folder / name)
    error = refusal(folder, base)
    assert (error.reason, name in error.fact) == ("pickle", True)
    assert "safe_serialization" in error.remedy


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, base: BaseModelInfo, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).unlink()
    error = refusal(folder, base)
    assert f"holds no {name}" in error.fact


def test_a_folder_that_is_something_else_gets_a_hint(tmp_path: Path, base: BaseModelInfo) -> None:
    assert "whole model" in refusal(make_base(tmp_path / "model"), base).remedy
    run = tmp_path / "run"
    make_adapter(run / "checkpoint-10")
    assert "checkpoint-10" in refusal(run, base).remedy
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty, base).reason == "bad_config"


def test_what_is_no_folder_is_refused(tmp_path: Path, base: BaseModelInfo) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "absent", tmp_path / "file"):
        assert refusal(path, base).reason == "path"


@pytest.mark.parametrize("name", sorted(ALLOWED - {"README.md"}))
def test_a_link_in_the_place_of_a_file_is_followed_to_the_same_content(
    tmp_path: Path, base: BaseModelInfo, name: str
) -> None:
    folder = make_adapter(tmp_path / "a", chat_template="x")
    before = check(folder, base)
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    found = check(folder, base)
    assert found.digest == before.digest
    assert [file.entry for file in found.files] == [file.entry for file in before.files]


@pytest.mark.parametrize("name", sorted(ALLOWED - {"README.md"}))
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path, base: BaseModelInfo, name: str) -> None:
    folder = make_adapter(tmp_path / "a", chat_template="x")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder, base).reason == "path"


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", "chat_template.jinja"])
def test_an_empty_file_is_refused(tmp_path: Path, base: BaseModelInfo, name: str) -> None:
    folder = make_adapter(tmp_path / "a", chat_template="x")
    (folder / name).write_bytes(b"")
    error = refusal(folder, base)
    assert (error.reason, "0 bytes" in error.fact) == ("size", True)


def test_a_readme_that_cannot_be_kept_is_left_out_and_said(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    readme = folder / "README.md"
    digest = check(folder, base).digest
    readme.write_bytes(b" " * (2**20 + 1))
    found = check(folder, base)
    assert (found.digest, found.left_out) == (digest, ("README.md",))
    assert found.warnings == ("left out: README.md is larger than 1048576 bytes",)
    readme.unlink()
    readme.symlink_to("nowhere")
    assert "README.md is a link to" in check(folder, base).warnings[0]
    readme.unlink()
    readme.mkdir()
    assert check(folder, base).warnings == ("left out: README.md is a folder",)


def test_an_empty_readme_is_no_error(tmp_path: Path, base: BaseModelInfo) -> None:
    assert check(make_adapter(tmp_path / "a", readme=""), base).warnings == ()


@pytest.mark.parametrize("name", ["adapter_config.json", "chat_template.jinja"])
def test_a_text_beyond_a_megabyte_is_refused(tmp_path: Path, base: BaseModelInfo, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).write_bytes(b" " * (2**20 + 1))
    error = refusal(folder, base)
    assert (error.reason, "1048576" in error.fact) == ("size", True)


def test_an_adapter_beyond_the_size_limit_is_refused_before_it_is_read(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    folder = make_adapter(tmp_path / "a")
    error = refusal(folder, base, Limits(max_adapter_bytes=5000))
    assert (error.reason, "max_adapter_bytes is 5000" in error.fact) == ("size", True)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(2**40)
    begin = time.thread_time()
    assert refusal(folder, base).reason == "size"
    assert time.thread_time() - begin < 1


def test_all_files_together_count(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a", readme="x" * 5000)
    size = (folder / WEIGHTS).stat().st_size
    assert refusal(folder, base, Limits(max_adapter_bytes=size + 5000)).reason == "size"
    total = sum(file.size for file in check(folder, base).files)
    assert refusal(folder, base, Limits(max_adapter_bytes=total - 1)).reason == "size"
    assert check(folder, base, Limits(max_adapter_bytes=total)).files


@pytest.mark.parametrize("cut", [4, 8, 200, -100, -1])
def test_truncated_weights_are_refused(tmp_path: Path, base: BaseModelInfo, cut: int) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:cut])
    assert refusal(folder, base).reason == "header"


def test_overlapping_tensors_are_refused(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    half = {"dtype": "BF16", "shape": [8, 64], "data_offsets": [0, 1024]}
    entries = {f"{LAYER}q_proj.lora_A.weight": half, f"{LAYER}v_proj.lora_A.weight": half}
    (folder / WEIGHTS).write_bytes(raw_header(entries) + bytes(1024))
    error = refusal(folder, base)
    assert (error.reason, "overlaps" in error.fact) == ("header", True)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/cron.d/x", "a/b", "..", "x\0y", "run.py", "", "a.safetensors"]
)
def test_a_name_that_is_not_allowed_cannot_be_uploaded(name: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        check_file_name(name, "support")
    assert caught.value.reason == "path"


def test_the_allowed_names_can_be_uploaded() -> None:
    for name in [*ALLOWED, "tokenizer_config.json"]:
        assert check_file_name(name, "support") == name
    with pytest.raises(InvalidAdapter) as caught:
        check_file_name("adapter_model.bin", "support")
    assert caught.value.reason == "pickle"


@pytest.mark.parametrize(
    "name", ["../../evil.lora_A.weight", "/etc/passwd", "a\0b.lora_A.weight", "evil/../x"]
)
def test_a_tensor_that_is_named_like_a_path_is_refused(
    tmp_path: Path, base: BaseModelInfo, name: str
) -> None:
    folder = make_adapter(tmp_path / "a", mutate=lambda given: {**given, name: tensor(8, 64)})
    assert refusal(folder, base).reason in {"modules", "header"}


def test_the_hash_is_of_the_bytes_that_were_checked(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    found = check(folder, base)
    make_adapter(folder, seed=1, config={"r": 8, "lora_alpha": 99})
    weights = taken(found, WEIGHTS)
    assert isinstance(weights.source, Path)
    assert sha256_hex(weights.source.read_bytes()) != weights.sha256
    assert all(isinstance(file.source, bytes) for file in found.files if file.name != WEIGHTS)


@contextlib.contextmanager
def nobody(file: Path) -> Iterator[None]:
    """Be nobody for a moment where one can read `file`, whose mode forbids it: where one is root."""
    user = os.geteuid()
    if os.access(file, os.R_OK):
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_unreadable_file_is_refused_not_raised(
    tmp_path: Path, base: BaseModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_adapter(tmp_path / "a") / WEIGHTS).chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # nobody need not pass through the folders above
    with nobody(tmp_path / "a" / WEIGHTS):
        assert refusal(Path("a"), base).reason == "path"


@pytest.mark.parametrize(("rank", "megabytes", "hashes"), [(32, 19, 2.5), (7, 4, 5)])
def test_inspecting_costs_little_more_than_hashing(
    tmp_path: Path, rank: int, megabytes: int, hashes: float
) -> None:
    """The cheapest of ten counts, in processor time, so that neither the machine nor who is on it decides."""
    base = base_record(tmp_path, SMOLLM2)
    folder = Adapter(shape=SMOLLM2, rank=rank, modules=ALL_LINEAR).write(tmp_path / "a")
    assert (folder / WEIGHTS).stat().st_size // 10**6 == megabytes

    def cost(act: Callable[[], object]) -> float:
        begin = time.thread_time()
        act()
        return time.thread_time() - begin

    pairs = [
        (cost(lambda: check(folder, base)), cost(lambda: sha256_hex((folder / WEIGHTS).read_bytes())))
        for _ in range(10)
    ]
    inspecting, hashing = map(min, zip(*pairs, strict=True))
    assert inspecting < hashes * hashing


def test_a_file_of_fifty_thousand_tensors_is_refused_in_seconds(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    one = encode(np.ones((1, 1), dtype=np.float32), "BF16")
    (folder / WEIGHTS).write_bytes(file_bytes({f"t{number}.lora_A.weight": one for number in range(50_000)}))
    begin = time.thread_time()
    assert refusal(folder, base).reason == "modules"
    assert time.thread_time() - begin < 5


def test_an_upload_sends_what_inspect_reads_and_refuses_what_it_would(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    for name in ("tokenizer_config.json", "optimizer.pt", "trainer_state.json"):
        (folder / name).write_text("{}")
    (folder / "checkpoint-1").mkdir()
    sent, left_out, warnings = uploadable(folder, "support")
    assert warnings == ()
    assert sent == ("README.md", "adapter_config.json", WEIGHTS, "tokenizer_config.json")
    assert left_out == ("checkpoint-1/", "optimizer.pt", "trainer_state.json")
    assert [check_file_name(name, "support") for name in sent] == list(sent)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidAdapter) as caught:
        uploadable(folder, "support")
    assert caught.value.reason == "pickle"
