"""A batch is moved by its log alone: events follow each other by one table, and one server has it in hand."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.entries.openai.batch_states import BatchEvent, BatchState, next_state
from registry.entries.openai.batches import Batch, BatchProgress, BatchStore
from registry.errors import ClaimLost, Conflict, NotFound, WardrobeError
from registry.store import Registry

CHAT = "/v1/chat/completions"


@pytest.fixture
def store(registry: Registry) -> BatchStore:
    return BatchStore(registry.root)


def make(store: BatchStore, who: str = "alice") -> Batch:
    return store.create(CHAT, "file-1", who=who, metadata={"a": "b"}, output_lifetime=3600)


def test_every_event_in_every_state_is_decided_and_nothing_follows_an_end() -> None:
    decided = {}
    for state, event in itertools.product((None, *BatchState), BatchEvent):
        with contextlib.suppress(Conflict):
            decided[state, event] = next_state(state, event)
    assert {state for (_, event), state in decided.items() if event is BatchEvent.CREATED} == {"validating"}
    assert not [state for state, _ in decided if state is not None and state.final]
    held = {BatchEvent.CLAIMED, BatchEvent.RELEASED}
    assert all(before == after for (before, event), after in decided.items() if event in held)
    assert set(decided.values()) == set(BatchState)


def test_what_was_asked_is_there_again(registry: Registry, store: BatchStore) -> None:
    batch = make(store)
    again = BatchStore(registry.root).find(batch.id)
    assert again.request == batch.request
    assert again.request.ends_at == int(again.log()[0].at) + 86_400
    assert (again.last().state, again.last().holder) == (BatchState.VALIDATING, None)
    assert again.progress() == BatchProgress()
    again.tell(BatchProgress(3, 1))
    assert batch.progress() == BatchProgress(3, 1)


def test_a_server_that_lost_a_batch_can_say_nothing_of_it(store: BatchStore) -> None:
    batch = make(store)
    batch.append(BatchEvent.CLAIMED, who="one", holder="one")
    batch.append(BatchEvent.CLAIMED, who="two", holder="two")
    for event in (BatchEvent.STARTED, BatchEvent.RELEASED):
        with pytest.raises(ClaimLost, match="in the hands of two"):
            batch.append(event, who="one", holder="one")
    assert batch.append(BatchEvent.WITHDRAWN, who="alice").holder == "two"
    with pytest.raises(Conflict, match="cancelling"):
        batch.append(BatchEvent.STARTED, who="two", holder="two")
    assert batch.append(BatchEvent.RELEASED, who="two", holder="two").holder is None


def test_of_many_that_claim_a_batch_one_gets_it(registry: Registry, store: BatchStore) -> None:
    batch = make(store)

    def claim(number: int) -> bool:
        mine = BatchStore(registry.root).find(batch.id)
        try:
            mine.append(BatchEvent.CLAIMED, who="x", holder=f"server {number}", expected_seq=1)
        except ClaimLost:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1
    assert len(batch.log()) == 2


def test_batches_are_listed_newest_first_and_a_damaged_one_hides_no_other(
    registry: Registry, store: BatchStore
) -> None:
    mine, damaged, other = make(store), make(store), make(store, who="ben")
    assert [one.id for one in store.list()] == sorted((mine.id, damaged.id, other.id), reverse=True)
    request = registry.root / "batches" / damaged.id / "request.json"
    request.write_text("{")
    fresh = BatchStore(registry.root)
    assert [one.id for one in fresh.list("alice")] == [mine.id]
    assert {batch.id for batch, _ in fresh.unfinished()} == {mine.id, other.id}
    log = registry.root / "batches" / mine.id / "log" / "2.json"
    log.write_text('{"seq": 2, "at": 1, "who": "x", "event": "sold", "state": "validating", "facts": {}}')
    fresh = BatchStore(registry.root)
    assert {batch.id for batch, _ in fresh.unfinished()} == {other.id}
    with pytest.raises(WardrobeError, match="no entry of a batch"):
        fresh.find(mine.id).last()


@pytest.mark.parametrize("name", ["", "batch_1", "../files", "batch_" + "a" * 23 + "/"])
def test_an_id_of_no_batch_is_not_found(store: BatchStore, name: str) -> None:
    with pytest.raises(NotFound, match="No batch found with id"):
        store.find(name)


def test_a_batch_that_cannot_be_made_leaves_nothing(registry: Registry, store: BatchStore) -> None:
    folder: Path = registry.root / "batches"
    folder.write_text("a file stands here")
    with pytest.raises(WardrobeError):
        make(store)
    assert not list((registry.root / "staging").iterdir())
