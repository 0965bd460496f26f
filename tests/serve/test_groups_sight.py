"""A group's sight: the same as the registry's word for it, over any view, copied nowhere."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from registry.entries.openai.tuned import TunedModel
from registry.entries.rights import Group
from registry.store import Registry
from registry.views.view import AdapterView, View
from registry.watcher import Watcher
from serve.groups.salting import GroupSalt
from serve.groups.sight import EVERYTHING, Sight
from tests.fakes.rollouts import make_entry

LETTERS = st.text("ab-.", min_size=1, max_size=5)
NAMES = st.lists(LETTERS, unique=True, max_size=12)
PATTERNS = st.lists(st.text("ab-.*", min_size=1, max_size=4), max_size=4)


def view_of(names: list[str]) -> View:
    adapters = {name: AdapterView(name, {}, {}, {}, frozenset()) for name in names}
    tuned = {f"ft:{name}": TunedModel(f"ft:{name}", name, 1, "", "job", "who", 1.0) for name in names}
    return View(7, adapters, tuned)


@given(names=NAMES, patterns=PATTERNS, base=st.booleans(), others=NAMES)
def test_what_is_seen_is_what_the_group_says(
    names: list[str], patterns: list[str], base: bool, others: list[str]
) -> None:
    group = Group("g", adapters=tuple(patterns), base=base)
    sight, whole = Sight(group), view_of(names)
    part = sight.view(whole)
    seen = [name for name in names if group.sees(name)]
    assert list(part.adapters) == seen
    assert list(part.tuned) == [f"ft:{name}" for name in seen]
    assert (len(part.adapters), len(part.tuned)) == (len(seen), len(seen))
    for name in {*names, *others}:
        assert (name in part.adapters) == (name in seen)
        assert (part.adapters.get(name) is not None) == (name in seen)
        assert (part.tuned.get(f"ft:{name}") is not None) == (name in seen)
        assert sight.sees(name) == group.sees(name)
        assert sight.sees_version(name, 0) == (base and group.sees(name))
    assert sight.view(whole) is part
    assert (part is whole) == group.unrestricted
    assert sight.view(view_of(others)).adapters.keys() == {name for name in others if group.sees(name)}


def test_who_sees_everything_looks_at_the_view_itself(registry: Registry) -> None:
    whole = Watcher(registry).view
    assert EVERYTHING.view(whole) is whole


def test_a_thousand_patterns_cost_a_name_one_match() -> None:
    patterns = tuple(f"team{number}-*" for number in range(1_000))
    sight = Sight(Group("g", adapters=patterns))
    assert sight.sees("team999-a")
    assert not sight.sees("team999")
    assert sight._pattern is not None
    assert sight._pattern.groups == 0


@pytest.mark.parametrize(
    ("stable", "weight", "aliases"),
    [
        (1, 5_000, None),
        (0, 5_000, {"other": 1, "canary": 2}),
        (0, 10_000, {"other": 1, "canary": 2, "stable": 2}),
    ],
)
def test_without_the_base_a_rollout_that_it_controls_is_none(
    stable: int, weight: int, aliases: dict[str, int] | None
) -> None:
    entry = make_entry(stable=stable, weight=weight)
    adapter = AdapterView("support", {}, {"other": 1, "stable": 1}, {}, frozenset(), entry)
    seen = Sight(Group("g", base=False)).view(View(1, {"support": adapter})).adapters["support"]
    if aliases is None:
        assert seen is adapter
    else:
        assert (seen.rollout, seen.aliases) == (None, aliases)
    with_base = Sight(Group("g", adapters=("support",))).view(View(1, {"support": adapter}))
    assert with_base.adapters["support"] is adapter


def test_a_salt_is_the_roots_the_groups_and_the_clients() -> None:
    def salt(key: bytes, group: str, own: str | None = None) -> str:
        fields = {} if own is None else {"cache_salt": Raw(msgspec.json.encode(own))}
        GroupSalt(key, group).season(fields)
        return bytes(fields["cache_salt"]).decode()

    found = {
        salt(key, group, own)
        for key in (b"a" * 32, b"b" * 32)
        for group in ("ours", "theirs")
        for own in (None, "ours", "theirs", "ours\x00theirs")
    }
    assert len(found) == 16
