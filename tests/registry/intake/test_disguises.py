"""A file that is not what its name says is called by what it is, with the way out."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo
from registry.validation.base import read_base
from registry.validation.intake.disguises import disguise, pointer, recognised
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.registry.inspecting import WEIGHTS, check, refusal

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 937696\n"
XET = b'# xet version 0\nfilesize = 937696\nhash = "aa"\n'
ANNEX = b"/annex/objects/SHA256E-s937696--00.safetensors\n"
DVC = b"outs:\n- md5: 0123456789abcdef\n  size: 937696\n  path: adapter_model.safetensors\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    return target.getvalue()


def tarred() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("adapter_config.json"))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "fact", "remedy"),
    [
        (LFS, "is a git-lfs pointer to a file of 937696 bytes, not the file", "git lfs pull"),
        (XET, "is a Xet pointer", "git xet checkout"),
        (ANNEX, "is a git-annex pointer", "git annex get"),
        (DVC, "is a DVC pointer", "dvc pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body>", "is a web page", "hf download"),
        (b"  <html lang='en'>" + b"x" * 2000, "is a web page", "/blob/ is a page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document", "download"),
        (
            b"Access to model acme/x is restricted.",
            "is text, not tensors: 'Access to model",
            "what went wrong",
        ),
        (b'{"error":"Repository not found"}', "is text, not tensors", "download it again"),
        ("Zugriff verweigert — bitte anmelden ".encode() * 40, "is text, not tensors", "download it again"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF file", "PEFT folder"),
        (b"\x1f\x8b\x08\x00" + b"\x9a" * 64, "is compressed (gzip)", "unpack"),
        (b"\x28\xb5\x2f\xfd" + b"\x9a" * 64, "is compressed (zstd)", "unpack"),
        (tarred(), "is an archive (tar)", "unpack"),
        (bytes(4096), "begins with nothing but zeros", "download it again"),
        (b"\x89HDF\r\n\x1a\n" + b"\x9a" * 64, "is an HDF5 file", "save_pretrained"),
    ],
)
def test_weights_that_are_something_else_are_called_by_it(
    tmp_path: Path, base: BaseModelInfo, content: bytes, fact: str, remedy: str
) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).write_bytes(content)
    error = refusal(folder, base)
    assert error.reason == "header"
    assert error.fact.startswith(f"{WEIGHTS} {fact}"), error.fact
    assert remedy in error.remedy


@pytest.mark.parametrize("content", [zipped(), pickle.dumps({"a": 1}), pickle.dumps([1] * 1000, 4)])
def test_pickled_weights_with_another_name_are_pickled_weights(
    tmp_path: Path, base: BaseModelInfo, content: bytes
) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).write_bytes(content)
    error = refusal(folder, base)
    assert (error.reason, error.fact.startswith(WEIGHTS)) == ("pickle", True)


@pytest.mark.parametrize(
    "content", [b"\xff" * 64, bytes(range(256)), b"\x00\x01" * 200, b"", b"\x10\0\0\0\0\0\0\0{broken"]
)
def test_bytes_that_say_nothing_are_called_nothing(content: bytes) -> None:
    assert disguise(content) is None


@pytest.mark.parametrize(
    "content",
    [
        b"# My adapter\n\nversion https://example.com\n",
        b"{% for m in messages %}<html>{{ m }}{% endfor %}",
        b"outs: are what this template calls its ends\n",
        b"{}",
    ],
)
def test_texts_are_no_pointers(content: bytes) -> None:
    assert pointer(content) is None
    assert recognised(content) is None


@pytest.mark.parametrize("name", ["adapter_config.json", "chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [LFS, XET, DVC])
def test_a_text_that_is_a_pointer_is_refused_by_name(
    tmp_path: Path, base: BaseModelInfo, name: str, content: bytes
) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).write_bytes(content)
    error = refusal(folder, base)
    assert error.fact.startswith(f"{name} is a ")
    assert "pointer" in error.fact


def test_a_readme_that_is_a_pointer_is_left_out(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "README.md").write_bytes(LFS)
    assert "README.md is a git-lfs pointer" in check(folder, base).warnings[0]


def test_a_config_that_is_a_web_page_is_called_so(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(b"<!doctype html><title>Sign in</title>")
    assert "adapter_config.json is a web page" in refusal(folder, base).fact


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_base_that_was_cloned_without_its_large_files_is_no_base(tmp_path: Path, name: str) -> None:
    folder = make_base(tmp_path / "m")
    (folder / name).write_bytes(LFS)
    with pytest.raises(UsageError, match="git-lfs pointer") as caught:
        read_base(folder, "tiny")
    assert name in str(caught.value)
    assert "git lfs pull" in caught.value.remedy


@pytest.mark.parametrize(
    "encode", [lambda text: b"\xef\xbb\xbf" + text.encode(), lambda text: text.encode("utf-16")]
)
def test_a_config_with_a_byte_order_mark_is_read_as_the_same(
    tmp_path: Path, base: BaseModelInfo, encode: object
) -> None:
    assert callable(encode)
    digest = check(make_adapter(tmp_path / "a"), base).digest
    config = tmp_path / "a" / "adapter_config.json"
    config.write_bytes(encode(config.read_text()))
    assert check(tmp_path / "a", base).digest == digest


def test_ranks_that_another_tools_json_wrote_as_fractions_are_ranks(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    plain = make_adapter(tmp_path / "a", ranks={"q_proj": 4}, config={"rank_pattern": {"q_proj": 4}})
    config = {"r": 8.0, "rank_pattern": {"q_proj": 4.0}}
    assert check(make_adapter(tmp_path / "b", ranks={"q_proj": 4}, config=config), base).digest == (
        check(plain, base).digest
    )
