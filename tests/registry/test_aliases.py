from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.entries.aliases import LoggedMove, undo_target
from registry.errors import CorruptStore
from registry.store import Registry
from tests.fakes.store import put


def log(*moves: int | tuple[int, int]) -> list[LoggedMove]:
    """Build a log: a number is a forward move, (version, seq) a rollback to the state of seq."""
    found = []
    for seq, move in enumerate(moves, 1):
        version, restores = move if isinstance(move, tuple) else (move, None)
        found.append(LoggedMove("a", "stable", seq, version, "d", "w", "y", float(seq), restores))
    return found


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ((), None),
        ((1,), None),
        ((1, 2), 1),
        ((1, 2, 3), 2),
        ((1, 2, 3, (2, 2)), 1),
        ((1, 2, 3, (2, 2), (1, 1)), None),
        ((1, 2, 3, (2, 2), 4), 2),
        ((1, 2, 3, (1, 1), 4), 1),
        ((1, 2, 1), 2),
        ((1, 2, 1, (2, 2)), 1),
    ],
)
def test_a_rollback_undoes_the_last_forward_move(moves: tuple[int, ...], expected: int | None) -> None:
    target = undo_target(log(*moves), {1, 2, 3, 4})
    assert (target.version if target else None) == expected


@pytest.mark.parametrize(("usable", "expected"), [({1, 2, 3}, 2), ({1, 3}, 1), ({3}, None), (set(), None)])
def test_a_rollback_skips_what_may_not_be_served(usable: set[int], expected: int | None) -> None:
    target = undo_target(log(1, 2, 3), usable)
    assert (target.version if target else None) == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 15))
def test_rollbacks_walk_back_through_the_forward_moves_and_end(forward: list[int], times: int) -> None:
    moves = log(*forward)
    distinct = [v for n, v in enumerate(forward) if n == 0 or v != forward[n - 1]]
    for _ in range(times):
        target = undo_target(moves, set(range(1, 6)))
        distinct.pop()
        if target is None:
            assert distinct == []
            return
        assert target.version == distinct[-1]
        last = len(moves) + 1
        moves.append(LoggedMove("a", "stable", last, target.version, "d", "w", "r", float(last), target.seq))


def test_an_entry_that_names_another_number_is_refused(registry: Registry) -> None:
    put(registry)
    folder = registry.root / "adapters/support/aliases/stable"
    (folder / "1.json").rename(folder / "2.json")
    with pytest.raises(CorruptStore, match="holds entry 1"):
        registry.aliases("support")


def test_what_is_no_alias_is_passed_over(registry: Registry) -> None:
    put(registry)
    (registry.root / "adapters/support/aliases/.DS_Store").write_text("")
    (registry.root / "adapters/support/aliases/Backup Copy").mkdir()
    (registry.root / "adapters/support/aliases/stable/notes.txt").write_text("")
    assert registry.aliases("support") == {"stable": 1}
