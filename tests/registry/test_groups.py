"""Groups: logs by compare-and-swap, what they see, and what a damaged or lost one lets in: nobody."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest

from registry.cli.limits import LIMIT_HELP
from registry.entries.groups import GroupStore, entry_changes, groups_folder, read_group
from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore, keys_folder
from registry.entries.rights import (
    ALL_SCOPES,
    DEFAULT_GROUP,
    LIMITS,
    Group,
    GroupLimits,
    Scope,
    effective,
    implied,
)
from registry.errors import Conflict, CorruptStore, DiskFull, InvalidName, NotFound, StorageFailed, UsageError
from registry.storage import files
from registry.store import Registry
from tests.contracts.crashing import kill_at
from tests.fakes.clock import Clock
from tests.fakes.store import make_registry

LEGAL = Group(
    "legal",
    adapters=("support", "legal-*"),
    base=False,
    scopes=frozenset({Scope.INFER}),
    limits=GroupLimits(requests_per_minute=60, tokens_per_day=1_000),
    weight=2.5,
    evidence=False,
    priority=True,
)


@pytest.fixture
def store(registry: Registry) -> GroupStore:
    return registry.catalogue.groups


@pytest.fixture
def keys(registry: Registry) -> KeyStore:
    return KeyStore(registry.root)


def test_what_is_written_of_a_group_is_read_again(store: GroupStore) -> None:
    assert store.create(LEGAL, who="anna") == LEGAL
    assert store.get("legal") == LEGAL
    everything = replace(LEGAL, limits=GroupLimits(**{name: n for n, name in enumerate(LIMITS, 1)}))
    store.change("legal", lambda _: everything, who="anna")
    assert store.get("legal") == everything
    assert store.survey() == ([Group(DEFAULT_GROUP), everything], {})


def test_default_may_do_everything_until_it_is_changed(store: GroupStore) -> None:
    assert store.get(DEFAULT_GROUP) == Group(DEFAULT_GROUP)
    assert store.get(DEFAULT_GROUP).unrestricted
    assert store.names() == []
    assert store.history(DEFAULT_GROUP) == []
    changed = store.change(DEFAULT_GROUP, lambda group: replace(group, base=False), who="anna")
    assert (changed.base, changed.unrestricted) == (False, False)
    assert store.names() == [DEFAULT_GROUP]


@pytest.mark.parametrize(
    ("patterns", "seen", "unseen"),
    [
        (("*",), ["a", "legal-de"], []),
        (("support", "legal-*"), ["support", "legal-", "legal-de.2"], ["support2", "legal", "xlegal-a"]),
        (("*-de",), ["legal-de"], ["legal-de2"]),
        ((), [], ["a", "support"]),
    ],
)
def test_an_adapter_exists_for_a_group_by_its_patterns(
    patterns: tuple[str, ...], seen: list[str], unseen: list[str]
) -> None:
    group = Group("legal", adapters=patterns)
    assert [name for name in seen + unseen if group.sees(name)] == seen
    assert group.unrestricted == (patterns == ("*",))
    assert not Group("legal", adapters=patterns, base=False).unrestricted


def test_a_key_may_do_what_it_and_its_group_grant() -> None:
    assert implied({Scope.INFER}) == {Scope.INFER, Scope.FEEDBACK}
    assert implied({Scope.ADMIN}) == ALL_SCOPES
    assert implied({Scope.TUNE, Scope.READ}) == {Scope.TUNE, Scope.READ}
    assert effective({Scope.INFER}, Group("g")) == {Scope.INFER, Scope.FEEDBACK}
    assert effective({Scope.INFER}, Group("g", scopes=frozenset({Scope.INFER}))) == {Scope.INFER}
    assert effective({Scope.ADMIN}, Group("g", scopes=frozenset({Scope.INFER}))) == {Scope.INFER}
    # Who may change things may look at them; inference is not among what `admin` of a group includes.
    assert effective({Scope.ADMIN}, Group("g", scopes=frozenset({Scope.ADMIN}))) == {Scope.ADMIN, Scope.READ}
    assert effective({Scope.READ}, Group("g", scopes=frozenset({Scope.INFER}))) == frozenset()


def test_a_group_is_made_once(store: GroupStore) -> None:
    store.create(LEGAL, who="anna")
    for name in ("legal", DEFAULT_GROUP):
        with pytest.raises(Conflict, match="wardrobe groups set"):
            store.create(Group(name), who="anna")
    assert store.get("legal") == LEGAL


def test_an_unknown_group_is_not_found(store: GroupStore, keys: KeyStore) -> None:
    for call in (
        lambda: store.get("legal"),
        lambda: store.history("legal"),
        lambda: store.change("legal", lambda group: group, who="anna"),
        lambda: keys.create([Scope.INFER], who="anna", group="legal"),
    ):
        with pytest.raises(NotFound, match="groups create"):
            call()
    assert not keys.in_use()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Legal"},
        {"name": "../legal"},
        {"adapters": ("Support",)},
        {"adapters": ("a?",)},
        {"adapters": ("[a-z]",)},
        {"adapters": ("support@3",)},
        {"adapters": ("",)},
        {"scopes": frozenset()},
        {"weight": 0.0},
        {"weight": float("nan")},
        {"weight": -1.0},
        {"limits": GroupLimits(concurrency=0)},
        {"limits": GroupLimits(tokens_per_day=-1)},
        {"limits": GroupLimits(requests_per_minute=10**16)},
    ],
)
def test_what_no_group_can_be_is_refused(wrong: dict[str, object], store: GroupStore) -> None:
    with pytest.raises((UsageError, InvalidName)):
        store.create(replace(LEGAL, **wrong), who="anna")  # type: ignore[arg-type]
    assert store.names() == []


def test_a_change_that_changes_nothing_is_no_entry(store: GroupStore) -> None:
    store.create(LEGAL, who="anna")
    store.change("legal", lambda group: replace(group, adapters=(*group.adapters, "support")), who="anna")
    store.change(DEFAULT_GROUP, lambda group: group, who="anna")
    assert len(store.history("legal")) == 1
    assert store.names() == ["legal"]


def test_many_changes_at_once_lose_none(registry: Registry, store: GroupStore) -> None:
    store.create(LEGAL, who="anna")

    def add(number: int) -> None:
        own = GroupStore(registry.root)
        own.change("legal", lambda g: replace(g, adapters=(*g.adapters, f"a{number}")), who=f"w{number}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.get("legal").adapters) == {*LEGAL.adapters, *(f"a{number}" for number in range(8))}
    assert [entry.seq for entry in store.history("legal")] == list(range(1, 10))


def test_history_and_audit_say_who_changed_what(registry: Registry, store: GroupStore) -> None:
    store.create(LEGAL, who="anna")
    store.change("legal", lambda g: replace(g, limits=GroupLimits(tokens_per_day=5)), who="ben")
    store.change(DEFAULT_GROUP, lambda g: replace(g, scopes=frozenset({Scope.INFER})), who="ben")
    (_, first), (_, second) = entry_changes(store.history("legal"))
    assert first["adapters"] == "support, legal-*"
    assert second == {"requests per minute": "none", "tokens per day": "5"}
    told = [(one.who, one.subject, one.detail) for one in registry.audit() if one.action == "group"]
    assert len(told) == 3
    assert ("ben", "legal", "requests per minute none; tokens per day 5") in told
    assert ("ben", "default", "scopes infer") in told
    groups_folder(registry.root).joinpath("legal", "2.json").chmod(0o644)
    groups_folder(registry.root).joinpath("legal", "2.json").write_bytes(b"{")
    unreadable = [one for one in registry.audit() if one.action == "unreadable"]
    assert [one.subject for one in unreadable] == ["group legal"]


def test_the_ring_gives_each_key_its_group_and_follows_it(
    registry: Registry, store: GroupStore, keys: KeyStore
) -> None:
    store.create(LEGAL, who="anna")
    _, old = keys.create([Scope.ADMIN], who="anna")
    own = GroupLimits(concurrency=2)
    info, token = keys.create([Scope.ADMIN], who="anna", group="legal", limits=own)
    ring = KeyRing(registry.root)
    before, caller = ring.check(old), ring.check(token)
    assert before is not None
    assert caller is not None
    assert (before.group, before.scopes, before.sees_all) == (Group(DEFAULT_GROUP), ALL_SCOPES, True)
    assert (caller.who, caller.group, caller.limits, caller.sees_all) == (info.id, LEGAL, own, False)
    assert caller.scopes == {Scope.INFER}
    assert ring.caller(info.id) is caller
    assert not ring.allows(info.id, Scope.ADMIN)
    ring.refresh()
    assert ring.check(token) is caller  # nothing changed: whatever was made of it stays
    store.change("legal", lambda group: replace(group, scopes=ALL_SCOPES), who="anna")
    assert ring.refresh()
    after = ring.check(token)
    assert after is not None
    assert after.allows(Scope.ADMIN)
    assert ring.check(old) is before
    assert ring.groups["legal"] is after.group


def test_without_keys_everybody_is_of_the_group_default(registry: Registry, store: GroupStore) -> None:
    ring = KeyRing(registry.root)
    assert ring.anonymous.sees_all
    assert ring.caller("anybody") is ring.anonymous
    store.change(DEFAULT_GROUP, lambda group: replace(group, scopes=frozenset({Scope.INFER})), who="anna")
    ring.refresh()
    assert ring.anonymous.scopes == {Scope.INFER}
    assert not ring.allows("anonymous", Scope.ADMIN)


DAMAGE = [b"", b"{", b"[]", b"\xff", b'{"group": "legal", "seq": 1}']


def of_other_values(fields_: dict[str, object]) -> list[bytes]:
    wrong = {"scopes": ["root"], "adapters": "x", "limits": {"cpu": 1}, "weight": -1, "base": 1, "seq": 2}
    return [json.dumps({**fields_, name: value}).encode() for name, value in wrong.items()]


def test_a_damaged_group_lets_nobody_in_with_its_keys_and_hides_no_other(
    registry: Registry, store: GroupStore, keys: KeyStore
) -> None:
    store.create(LEGAL, who="anna")
    _, token = keys.create([Scope.INFER], who="anna", group="legal")
    _, other = keys.create([Scope.INFER], who="anna")
    path = groups_folder(registry.root) / "legal" / "1.json"
    good = path.read_bytes()
    path.chmod(0o644)
    ring = KeyRing(registry.root)
    for content in (*DAMAGE, *of_other_values(json.loads(good))):
        path.write_bytes(content)
        for one in (KeyRing(registry.root), ring):
            one.refresh()
            assert one.check(other) is not None
            assert "legal" not in one.groups
            assert one.check(token) is None
            assert str(path) in one.problems["legal"]
        groups, problems = store.survey()
        assert [group.name for group in groups] == [DEFAULT_GROUP]
        assert str(path) in problems["legal"]
        with pytest.raises(CorruptStore):
            keys.create([Scope.INFER], who="anna", group="legal")
    path.write_bytes(good)
    ring.refresh()
    assert ring.check(token) is not None


def test_a_default_that_cannot_be_read_opens_nothing(registry: Registry, store: GroupStore) -> None:
    store.change(DEFAULT_GROUP, lambda group: replace(group, base=False), who="anna")
    path = groups_folder(registry.root) / DEFAULT_GROUP / "1.json"
    path.chmod(0o644)
    path.write_bytes(b"{")
    ring = KeyRing(registry.root)
    assert (ring.anonymous.scopes, ring.anonymous.sees_all) == (frozenset(), False)
    assert not ring.anonymous.group.sees("support")
    for lose in (path.unlink, partial(shutil.rmtree, path.parent)):  # not the same as never made
        lose()
        ring = KeyRing(registry.root)
        assert ring.anonymous.scopes == frozenset()
        assert DEFAULT_GROUP in ring.problems
        assert DEFAULT_GROUP in store.survey()[1]
        with pytest.raises(CorruptStore):
            store.get(DEFAULT_GROUP)


def test_groups_that_were_lost_are_no_reason_to_open(
    registry: Registry, store: GroupStore, keys: KeyStore
) -> None:
    store.create(LEGAL, who="anna")
    _, token = keys.create([Scope.INFER], who="anna", group="legal")
    ring = KeyRing(registry.root)
    shutil.rmtree(groups_folder(registry.root))
    with pytest.raises(StorageFailed, match="groups were made"):
        ring.refresh()
    assert ring.check(token) is not None  # until the keys are stale
    fresh = KeyRing(registry.root)
    assert fresh.enabled
    assert fresh.stale()
    assert fresh.check(token) is None


def test_a_key_is_revoked_also_while_groups_cannot_be_read(
    registry: Registry, store: GroupStore, keys: KeyStore
) -> None:
    store.create(LEGAL, who="anna")
    info, token = keys.create([Scope.INFER], who="anna")
    ring = KeyRing(registry.root)
    shutil.rmtree(groups_folder(registry.root))
    keys.revoke(info.id)
    with pytest.raises(StorageFailed):
        ring.refresh()
    assert ring.check(token) is None


def test_keys_from_before_there_were_groups_lose_nothing(registry: Registry, keys: KeyStore) -> None:
    tokens = {scope: keys.create([scope], who="anna") for scope in (Scope.INFER, Scope.TUNE, Scope.ADMIN)}
    for info, _ in tokens.values():
        path = keys_folder(registry.root) / f"{info.id}.json"
        kept = json.loads(path.read_bytes())
        del kept["group"], kept["limits"]
        path.write_text(json.dumps(kept))
    ring = KeyRing(registry.root)
    granted = {scope: ring.check(token) for scope, (_, token) in tokens.items()}
    assert {scope: one.scopes for scope, one in granted.items() if one is not None} == {
        Scope.INFER: {Scope.INFER, Scope.FEEDBACK},
        Scope.TUNE: {Scope.TUNE},
        Scope.ADMIN: ALL_SCOPES,
    }
    assert all(one is not None and one.group.unrestricted for one in granted.values())


def test_a_limit_has_an_option_of_its_name() -> None:
    assert tuple(LIMIT_HELP) == LIMITS == tuple(field.name for field in fields(GroupLimits))


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("name", ["legal", DEFAULT_GROUP])
def test_a_kill_at_any_step_leaves_the_group_before_or_after(tmp_path: Path, name: str, links: bool) -> None:
    template = tmp_path / "template"
    make_registry(template)

    def change(world: Path) -> None:
        store = GroupStore(world / "root")
        if name != DEFAULT_GROUP and read_group(world / "root", name) is None:
            store.create(Group(name), who="anna")
        store.change(name, lambda group: replace(group, base=False), who="anna")

    steps: list[str] = []
    shutil.copytree(template, tmp_path / "probe")
    with files.watch_steps(steps.append):
        change(tmp_path / "probe")
    assert len(steps) > 8
    for index, step in enumerate(steps):
        world = tmp_path / "world"
        shutil.copytree(template, world)
        kill_at(index, partial(change, world), links=links)
        seen = KeyRing(world / "root").groups.get(name)
        assert seen in {None, Group(name), Group(name, base=False)}, step
        assert seen is not None or name != DEFAULT_GROUP, step  # nobody is shut out by half a change
        change(world)
        assert GroupStore(world / "root").get(name) == Group(name, base=False), step
        shutil.rmtree(world)


def test_a_group_is_narrowed_on_a_full_disk(registry: Registry, store: GroupStore) -> None:
    store.create(LEGAL, who="anna")

    def full(label: str) -> None:
        if label.startswith("write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with files.watch_steps(full):
        store.change("legal", lambda group: replace(group, adapters=()), who="anna")
        with pytest.raises(DiskFull):
            store.create(replace(LEGAL, name="other"), who="anna")
    assert store.get("legal").adapters == ()


def test_a_torn_folder_is_no_group(registry: Registry, store: GroupStore, clock: Clock) -> None:
    (groups_folder(registry.root) / "legal").mkdir(parents=True)
    (groups_folder(registry.root) / "Not Ours").mkdir()
    assert store.survey() == ([Group(DEFAULT_GROUP)], {})
    assert set(KeyRing(registry.root).groups) == {DEFAULT_GROUP}
    store.create(LEGAL, who="anna")
    assert store.get("legal") == LEGAL
