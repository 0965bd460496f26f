"""A folder of links is registered as the files they lead to; what leads to no file is told by name."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from registry.errors import InvalidAdapter
from registry.records import BaseModelInfo
from registry.storage import files
from registry.store import Registry
from registry.validation.base import read_base
from registry.validation.folder import uploadable
from registry.validation.intake.links import unreadable
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.registry.inspecting import WEIGHTS, check, refusal

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG = "adapter_config.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def linked(plain: Path, folder: Path, store: Path) -> Path:
    """Move the files of `plain` to `store`, as a cache keeps them, and return a folder of links to them."""
    store.mkdir(parents=True)
    folder.mkdir(parents=True)
    for file in plain.iterdir():
        blob = store / f"{abs(hash(file.name)):x}"
        file.rename(blob)
        (folder / file.name).symlink_to(os.path.relpath(blob, folder))
    return folder


def test_a_snapshot_of_the_hubs_cache_is_published_as_regular_files(
    registry: Registry, tmp_path: Path
) -> None:
    plain = registry.publish("plain", make_adapter(tmp_path / "plain"), who="tester").version
    cache = tmp_path / "models--acme--support-lora"
    snapshot = linked(tmp_path / "plain", cache / "snapshots" / REVISION, cache / "blobs")
    version = registry.publish("support", snapshot, who="tester").version
    assert version.digest == plain.digest
    assert all(not path.is_symlink() for path in version.path.iterdir())
    assert all(result.ok for result in registry.verify())


def test_a_link_to_a_folder_of_links_to_links_is_a_folder(base: BaseModelInfo, tmp_path: Path) -> None:
    digest = check(make_adapter(tmp_path / "plain"), base).digest
    linked(tmp_path / "plain", tmp_path / "workspace", tmp_path / "dvc" / "files" / "md5")
    (tmp_path / "twice").mkdir()
    for file in (tmp_path / "workspace").iterdir():
        (tmp_path / "twice" / file.name).symlink_to(file)
    (tmp_path / "latest").symlink_to(tmp_path / "twice")
    assert check(tmp_path / "latest", base).digest == digest


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "chat_template.jinja", "tokenizer_config.json"])
def test_a_broken_link_is_named_with_what_it_leads_to(base: BaseModelInfo, tmp_path: Path, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../blobs/gone")
    error = refusal(folder, base)
    assert error.reason == "path"
    assert error.fact == f"{name} is a link to {tmp_path / 'blobs' / 'gone'}, which is not there"
    assert "download" in error.remedy


def test_a_link_into_an_annex_without_its_content_names_the_command(
    base: BaseModelInfo, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../.git/annex/objects/Xx/SHA256E-s1/SHA256E-s1.safetensors")
    assert f"git annex get {WEIGHTS}" in refusal(folder, base).remedy


def test_a_loop_of_links_is_told(base: BaseModelInfo, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("other")
    (folder / "other").symlink_to(WEIGHTS)
    error = refusal(folder, base)
    assert (error.reason, error.fact) == ("path", f"{WEIGHTS} is a link that leads back to itself")


def test_a_link_to_a_folder_a_device_or_a_pipe_is_told(base: BaseModelInfo, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for target, words in (
        (tmp_path / "folder", "a folder"),
        (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a device"),
    ):
        folder = make_adapter(tmp_path / words)
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).symlink_to(target)
        assert refusal(folder, base).fact == f"{WEIGHTS} is a link to {target}, which is {words}"


def test_bytes_that_change_behind_a_link_are_not_published(registry: Registry, tmp_path: Path) -> None:
    plain = make_adapter(tmp_path / "plain")
    folder = linked(plain, tmp_path / "a", tmp_path / "store")
    other = make_adapter(tmp_path / "other", seed=9)

    def change(label: str) -> None:
        if label == f"copy {WEIGHTS}":
            (folder / WEIGHTS).resolve().write_bytes((other / WEIGHTS).read_bytes())

    with files.watch_steps(change), pytest.raises(InvalidAdapter) as caught:
        registry.publish("support", folder, who="tester")
    assert caught.value.reason == "digest"
    assert registry.adapters() == []


def test_a_folder_that_others_filled_may_hold_no_link(registry: Registry, tmp_path: Path) -> None:
    folder = linked(make_adapter(tmp_path / "plain"), tmp_path / "a", tmp_path / "store")
    with pytest.raises(InvalidAdapter, match="is a symbolic link") as caught:
        registry.publish("support", folder, who="tester", follow_links=False)
    assert caught.value.reason == "path"
    assert registry.adapters() == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_read_is_told_with_the_right_that_is_missing(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(b"x")
    error = unreadable(path, OSError(number, os.strerror(number)), "support")
    assert error.fact.startswith(f"{WEIGHTS} may not be read by this user")
    assert "chmod a+r" in error.remedy
    assert "cp -L" not in error.remedy


def test_a_readme_that_leads_out_of_the_folder_is_left_out_and_told(
    base: BaseModelInfo, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "a")
    (tmp_path / "secret").write_text("root:x:0")
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "README.md").symlink_to("../secret")
    inspected = check(folder, base)
    assert "README.md" not in {file.name for file in inspected.files}
    assert "README.md" in inspected.left_out
    told = f"README.md is a link to {tmp_path / 'secret'}, outside the folder: left out"
    assert told in inspected.warnings
    sent, left_out, warnings = uploadable(folder, "support")
    assert ("README.md" in sent, "README.md" in left_out, warnings) == (False, True, (told,))


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_what_an_adapter_needs_is_followed_out_of_the_folder_and_told(
    base: BaseModelInfo, tmp_path: Path, name: str
) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    told = f"{name} is a link to {tmp_path / 'elsewhere'}, outside the folder: its content is taken"
    assert told in check(folder, base).warnings
    assert uploadable(folder, "support")[2] == (told,)


def test_links_within_the_folder_and_to_the_hubs_blobs_are_followed_in_silence(
    base: BaseModelInfo, tmp_path: Path
) -> None:
    plain = make_adapter(tmp_path / "plain")
    (plain / "README.md").write_text("# An adapter")
    warnings = check(plain, base).warnings
    (plain / "kept").mkdir()
    (plain / "README.md").rename(plain / "kept" / "README.md")
    (plain / "README.md").symlink_to("kept/README.md")
    assert check(plain, base).warnings == warnings
    shutil.rmtree(plain)
    plain = make_adapter(tmp_path / "plain")
    cache = tmp_path / "models--acme--support-lora"
    snapshot = linked(plain, cache / "snapshots" / REVISION, cache / "blobs")
    (tmp_path / "latest").symlink_to(snapshot)
    assert check(tmp_path / "latest", base).warnings == warnings


def test_a_folder_called_blobs_that_is_not_of_the_snapshots_repository_is_elsewhere(
    base: BaseModelInfo, tmp_path: Path
) -> None:
    folder = linked(
        make_adapter(tmp_path / "plain"), tmp_path / "a" / "snapshots" / "x", tmp_path / "b" / "blobs"
    )
    assert len([text for text in check(folder, base).warnings if "outside the folder" in text]) >= 2
