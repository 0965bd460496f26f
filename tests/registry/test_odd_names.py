"""Names that are no UTF-8 and folders that cannot be read are told, and nothing else is hidden by them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from registry.api import operations
from registry.api.operation import LocalClient
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import StorageFailed
from registry.spelling import spelled
from registry.storage import anchor, files
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.rollouts import make_entry
from tests.fakes.store import beat, make_registry, put
from tests.fakes.terminal import Done, Terminal

ROLLOUT = "00112233445566aa"
VERBS = ("list", "status", "verify", "show support", "rollout list", "keys list", "gc", "gc --apply --now")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with every kind of folder in it."""
    registry = make_registry(tmp_path_factory.mktemp("names"))
    put(registry, "support", seed=1)
    for seed in (1, 2):
        put(registry, "other", seed=seed, lineage={"seed": seed})
    registry.delete("other", 2, who="tester")
    registry.quarantine("other", 1, "it harms", who="tester")
    registry.catalogue.rollouts.append(
        "other", lambda _: make_entry(adapter="other", seq=1, state="rolled_back", weight=0)
    )
    registry.put_evidence(ROLLOUT, "one", b"{}")
    registry.put_baseline("other", "one", b"{}")
    registry.append_feedback("other", "one", b"{}\n")
    registry.record_engine_death("one", 2_000.0, ["other@1"])
    registry.beat(beat("one"))
    KeyStore(registry.root).create([Scope.INFER], who="tester")
    return registry.root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "root", symlinks=True))


def folders(root: Path, *, of: str = ".") -> list[Path]:
    return sorted(path.relative_to(root) for path in (root / of).rglob("*") if path.is_dir())


def wardrobe(root: Path, line: str) -> Done:
    anchor.drop(root)
    return Terminal(("--root", str(root)))(*line.split())


def test_a_name_that_is_no_utf_8_hides_nothing_in_any_folder(root: Path) -> None:
    """Files and folders of such names lie everywhere at once; only a version is damaged by them."""
    for folder in (Path(), *folders(root)):
        if "versions" not in folder.parts:
            for name in (b"\xff.json", b"1\xff", b"\xff.jsonl", b".\xff.json.0.tmp"):
                (root / folder / os.fsdecode(name)).write_bytes(b"{}")
            (root / folder / os.fsdecode(b"\xff")).mkdir()
    for line in VERBS:
        for options in ("", "--json "):
            done = wardrobe(root, options + line)
            assert done.code == 0, (line, done)
    client = LocalClient(Registry.open(root), "tester")
    for document in (
        operations.list_adapters(client),
        operations.show_status(client),
        operations.verify(client),
        operations.show_audit(client),
        operations.collect_garbage(client),
    ):
        TypeAdapter(type(document)).dump_json(document)
    assert "replica \\xff cannot be read" in wardrobe(root, "status").err


def test_a_file_of_such_a_name_in_a_version_is_damage_that_is_named(root: Path) -> None:
    folder = root / "adapters" / "support" / "versions" / "1"
    folder.chmod(0o755)
    (folder / os.fsdecode(b"\xff")).write_bytes(b"")
    done = wardrobe(root, "verify")
    assert done.code == 1
    assert "\\xff is not in the manifest" in done.out
    assert "other@1" in done.out
    assert wardrobe(root, "--json status").json["quarantined"]["support@1"] == "\\xff is not in the manifest"


def test_a_folder_with_such_names_is_registered_without_them(root: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "trained", seed=5)
    (folder / os.fsdecode(b"notes-\xff.txt")).write_bytes(b"")
    published = Registry.open(root).publish("fresh", folder, who="tester")
    assert published.left_out == ("notes-\\xff.txt",)


def test_a_lone_surrogate_is_spelled_as_its_byte_or_its_number() -> None:
    assert spelled(os.fsdecode(b"a\xffb") + "\ud800é") == "a\\xffb\\ud800é"


def test_a_folder_that_cannot_be_read_hides_no_other(root: Path) -> None:
    """A circle of links stands for it: root may read whatever has no rights."""
    shared = (
        "rollouts/other",
        "replicas",
        "deaths",
        "evidence",
        "feedback",
        "baselines",
        "keys/api",
    )
    for folder in (*folders(root, of="adapters/other"), Path("adapters/other"), *map(Path, shared)):
        (root / folder).parent.chmod(0o755)
        (root / folder).rename(tmp := root.parent / "away")
        (root / folder).symlink_to(folder.name)
        for line, shown in (
            ("list", "support"),
            ("status", "API keys"),
            ("verify", "support@1  ok"),
            ("show support", "1"),
        ):
            done = wardrobe(root, line)
            assert done.code in {0, 1}, (folder, line, done)
            assert shown in done.out, (folder, line, done)
        (root / folder).unlink()
        tmp.rename(root / folder)


def test_status_names_an_adapter_whose_quarantine_cannot_be_read(root: Path) -> None:
    shutil.rmtree(root / "adapters/other/quarantine")
    (root / "adapters/other/quarantine").symlink_to("quarantine")
    status = operations.show_status(LocalClient(Registry.open(root), "tester"))
    assert "symbolic links" in status.problems["other"]
    assert (status.adapters, status.versions) == (2, 2)


def test_verify_on_a_root_that_cannot_be_written_names_what_is_bad_and_goes_on(root: Path) -> None:
    (root / "adapters/other/quarantine/1.json").unlink()
    path = root / "adapters/other/versions/1/adapter_config.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")

    def refuse(_: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    registry = Registry.open(root)
    with files.watch_steps(refuse):
        results = {result.name: result for result in registry.verify()}
        with pytest.raises(StorageFailed):
            registry.quarantine("other", 1, "it harms", who="tester")
    assert results["support@1"].ok
    problem = results["other@1"].problem or ""
    assert not results["other@1"].ok
    assert problem.startswith("adapter_config.json has 2 bytes")
    assert "it cannot be put into quarantine" in problem
    assert "Read-only file system" in problem
