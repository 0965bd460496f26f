"""Whatever lies under a root, in whatever form: only our own errors, and one odd file hides nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.api import documents as doc
from registry.api import operations
from registry.api.operation import LocalClient
from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import WardrobeError
from registry.names import parse_model
from registry.storage import anchor
from registry.store import Registry
from registry.watcher import Watcher
from tests.fakes.rollouts import make_entry
from tests.fakes.store import beat, make_registry, put

ROLLOUT = "00112233445566aa"

# Where each kind of file lies; `other` is the adapter that is damaged, `support` the one that is not.
KINDS = {
    "alias": "adapters/other/aliases/stable/1.json",
    "alias of one's own": "adapters/other/aliases/mine/1.json",
    "tombstone": "adapters/other/tombstones/2.json",
    "quarantine": "adapters/other/quarantine/1.json",
    "proof": "adapters/other/attestations/1/proof-1.json",
    "lineage": "adapters/other/attestations/1/lineage-1.json",
    "manifest": "adapters/other/versions/1/manifest.json",
    "rollout": "rollouts/other/1.json",
    "death": "deaths/1.json",
    "replica": "replicas/one.json",
    "evidence": f"evidence/{ROLLOUT}/one.json",
    "golden": "adapters/other/golden.jsonl",
    "a number beyond all numbers": f"adapters/other/aliases/stable/{'9' * 200}.json",
    "a digit that is not a number": "adapters/other/attestations/²/proof-²².json",
    "a version that is a file": "adapters/other/versions/7",
    "an adapter that is a file": "adapters/stray",
}

CONTENTS = {
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "null": b"null",
    "binary": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep and whole": b'{"a":' * 900 + b"1" + b"}" * 900,
    "long number": b'{"seq": 1, "at": ' + b"9" * 5_000 + b"}",
    "torn": b'{"seq": 1, "version": 1',
}


def of_every_type(fields: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """Yield a document with one field after the other of each wrong type or size."""
    wrong: tuple[object, ...] = (
        None,
        True,
        -1,
        10**400,
        1e308,
        "\ud800",
        "x" * 10_000,
        [],
        {},
        [[]] * 3,
        {"a": {"a": 1}},
    )
    for name in fields:
        for value in wrong:
            yield f"{name}={str(value)[:12]}", json.dumps({**fields, name: value}).encode()
        text = json.dumps({**fields, name: "@"}).encode()
        for literal in (b"NaN", b"Infinity", b"-0", b"1e999"):
            yield f"{name}={literal.decode()}", text.replace(b'"@"', literal)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a root in which every kind of file is there and right."""
    folder = tmp_path_factory.mktemp("odd")
    registry = make_registry(folder)
    put(registry, "support", seed=1)
    for seed in (1, 2):
        put(registry, "other", seed=seed, lineage={"seed": seed})
    registry.set_alias("other", "mine", 1, who="tester")
    registry.attest("other", 1, "proof", {"passed": True}, who="tester")
    registry.delete("other", 2, who="tester")
    registry.catalogue.quarantine.put("other", 1, "it harms", "tester")
    registry.catalogue.rollouts.append(
        "other", lambda _: make_entry(adapter="other", seq=1, state="rolled_back", weight=0)
    )
    registry.put_evidence(ROLLOUT, "one", b"{}")
    registry.record_engine_death("one", 2_000.0, ["other@1"])
    registry.beat(beat("one"))
    registry.beat(beat("two"))
    (registry.root / KINDS["golden"]).write_bytes(b'{"prompt": "x"}\n')
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template / "root", tmp_path / "root", symlinks=True))


def put_there(path: Path, make: Callable[[Path], object]) -> None:
    """Have `make` put something at `path`, whatever was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, path):
        if folder.exists():
            folder.chmod(0o755)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make(path)


def ask_everything(root: Path) -> None:
    """Ask every question of the whole, which must be answered, and every one about the damaged adapter."""
    registry = Registry.open(root)
    client = LocalClient(registry, "tester")
    listed = {one.adapter: one for one in operations.list_adapters(client).adapters}
    assert (listed["support"].stable, listed["support"].problem) == (1, "")
    assert operations.show_status(client).adapters >= 1
    assert [one.action for one in operations.show_audit(client).entries if one.subject.startswith("support@")]
    assert next(one.ok for one in operations.verify(client).results if one.name == "support@1")
    assert "two" in {one.replica for one in operations.list_replicas(client).replicas}
    watcher = Watcher(registry)
    watcher.refresh()
    assert watcher.view.resolve(parse_model("support")).number == 1
    questions: tuple[Callable[[], object], ...] = (
        lambda: operations.show_adapter(client, "other"),
        lambda: operations.show_version(client, "other", 1),
        lambda: operations.show_history(client, "other"),
        lambda: operations.collect_garbage(client),
        lambda: registry.lacks(registry.version("other", 1), None),
        lambda: registry.rollout_log("other"),
        lambda: registry.engine_deaths("other@1"),
        lambda: registry.evidence(ROLLOUT),
        lambda: registry.golden("other"),
        lambda: operations.promote(client, "other", doc.MoveRequest(version=1)),
        lambda: operations.rollback(client, "other"),
        lambda: operations.delete_version(client, "other", 1),
        lambda: operations.show_adapter(client, "nothing"),
    )
    for question in questions:
        with contextlib.suppress(WardrobeError):
            question()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_any_content_is_a_problem_of_its_own(kind: str, root: Path) -> None:
    for content in CONTENTS.values():
        put_there(root / KINDS[kind], lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
        ask_everything(root)


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_than_a_file_is_a_problem_of_its_own(kind: str, root: Path) -> None:
    def with_a_folder(path: Path) -> None:
        (path / "entry.json").mkdir(parents=True)

    def with_a_socket(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(path.parent, os.O_RDONLY)  # a socket's path may have 107 bytes
            try:
                one.bind(f"/proc/self/fd/{here}/{path.name[:20]}")
            finally:
                os.close(here)

    makers: tuple[Callable[[Path], object], ...] = (
        Path.mkdir,
        with_a_folder,
        os.mkfifo,
        with_a_socket,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
    )
    for make in makers:
        put_there(root / KINDS[kind], make)
        ask_everything(root)


@pytest.mark.parametrize("kind", ["alias", "quarantine", "proof", "manifest", "rollout", "death", "replica"])
def test_a_field_of_any_type_or_size_is_a_problem_of_its_own(kind: str, root: Path) -> None:
    path = root / KINDS[kind]
    fields = json.loads(path.read_bytes())
    registry = Registry.open(root)
    for name, content in of_every_type(fields):
        put_there(path, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
        client = LocalClient(registry, "tester")
        names = {one.adapter for one in operations.list_adapters(client).adapters}
        assert names >= {"support", "other"}, name
        operations.show_status(client).model_dump_json()
        operations.show_audit(client).model_dump_json()
        with contextlib.suppress(WardrobeError):
            operations.show_version(client, "other", 1).model_dump_json()


@pytest.mark.parametrize("name", ["layout.json", "base.json", "wardrobe.toml"])
def test_a_root_whose_own_files_are_damaged_is_refused_by_name(name: str, root: Path) -> None:
    right = (root / name).read_bytes()
    toml = (
        b"[" * 20_000,
        b"a = " + b"[" * 20_000,
        b"[base]\nname = 1\npath = 2\n",
        b"[limits]\nmax_lora_rank = -1\n",
    )
    for content in (*CONTENTS.values(), *(toml if name.endswith("toml") else ())):
        put_there(root / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
        anchor.drop(root)
        with pytest.raises(WardrobeError) as caught:
            Registry.open(root)
        assert name in str(caught.value)
    put_there(root / name, lambda path: path.write_bytes(right))
    Registry.open(root)


def test_a_damaged_key_lets_nobody_in_and_hides_no_other(root: Path) -> None:
    store = KeyStore(root)
    good, token = store.create([Scope.INFER], who="tester")
    bad, lost = store.create([Scope.INFER], who="tester")
    path = root / "keys" / "api" / f"{bad.id}.json"
    fields = json.loads(path.read_bytes())
    for content in (*CONTENTS.values(), *(content for _, content in of_every_type(fields))):
        path.write_bytes(content)
        ring = KeyRing(root)
        assert (caller := ring.check(token)) is not None
        assert caller.key == good
        found = ring.check(lost)
        assert found is None or content == json.dumps(fields).encode() or found.who == bad.id
        assert {info.id for info in store.list()} == {good.id, bad.id}
    path.write_bytes(b"{")
    assert KeyRing(root).check(lost) is None
    assert store.revoke(bad.id).revoked is not None
    assert {info.id: info.state(0.0) for info in store.list()} == {good.id: "active", bad.id: "revoked"}


def test_a_watcher_sees_other_changes_beside_an_odd_file(root: Path) -> None:
    registry = Registry.open(root)
    watcher = Watcher(registry, interval_seconds=0.01)
    watcher.start()
    try:
        for kind in ("alias", "rollout"):
            put_there(root / KINDS[kind], lambda path: path.write_bytes(b"[" * 100_000))
            registry.catalogue.mark("other")
        seen = watcher.last_success
        number = put(registry, "support", seed=5).number
        registry.promote("support", number, who="tester")
        for _ in range(1_000):
            if watcher.view.resolve(parse_model("support")).number == number:
                break
            watcher.refresh()
        assert watcher.view.resolve(parse_model("support")).number == number
        assert watcher.last_success > seen
        assert "other" in watcher.problems
        assert watcher.view.adapters["other"].aliases["stable"] == 1  # as it was last seen
    finally:
        watcher.stop()
