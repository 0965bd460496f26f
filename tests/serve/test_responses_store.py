"""What is kept of responses: within a count, a size and an age, and for the key that asked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.responses.store import ResponseStore
from serve.settings import ResponseSettings


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(name: str, size: int = 1) -> bytes:
    output = [{"type": "message", "id": f"msg_{name}", "content": "x" * size}]
    return json.dumps({"id": f"resp_{name}", "output": output}).encode()


def store(clock: Clock | None = None, **limits: float) -> ResponseStore:
    return ResponseStore(ResponseSettings.model_validate(limits), clock or Clock())


def keep(found: ResponseStore, owner: str, name: str, size: int = 1) -> None:
    found.keep(owner, answer(name, size), (), (b'{"role":"user","content":"Hi"}',), None)


def test_a_response_is_found_by_its_owner_alone() -> None:
    kept = store()
    keep(kept, "anna", "1")
    found = kept.find("anna", "resp_1")
    assert found is not None
    assert json.loads(found.answer)["id"] == "resp_1"
    assert len(found.items) == 2
    assert kept.find("bert", "resp_1") is kept.find("anna", "resp_2") is None
    assert kept.find_item("anna", "msg_1") == found.outputs[0]
    assert kept.find_item("bert", "msg_1") is None


def test_a_response_is_forgotten_when_it_is_removed_or_old() -> None:
    clock = Clock()
    kept = store(clock, keep_seconds=10)
    keep(kept, "anna", "1")
    clock.now = 9.9
    assert kept.find("anna", "resp_1") is not None
    keep(kept, "anna", "2")
    clock.now = 10.0
    assert kept.find("anna", "resp_1") is None
    assert kept.find_item("anna", "msg_1") is None
    assert kept.remove("anna", "resp_2")
    assert not kept.remove("anna", "resp_2")
    assert (kept.count, kept.size_bytes) == (0, 0)


def test_what_is_old_goes_when_others_come_though_nobody_asks_for_it() -> None:
    clock = Clock()
    kept = store(clock, keep_seconds=10)
    keep(kept, "anna", "1")
    clock.now = 20.0
    keep(kept, "bert", "2")
    assert kept.count == 1


def test_whoever_holds_most_gives_way_so_one_key_cannot_push_out_all() -> None:
    kept = store(max_count=4)
    keep(kept, "bert", "mine")
    for number in range(20):
        keep(kept, "anna", str(number))
    assert kept.find("bert", "resp_mine") is not None
    assert [kept.find("anna", f"resp_{n}") is not None for n in range(16, 20)] == [False, True, True, True]


def test_one_that_is_larger_than_all_the_room_is_not_kept_and_pushes_nobody_out() -> None:
    kept = store(max_bytes=5_000)
    keep(kept, "anna", "small")
    keep(kept, "anna", "large", 6_000)
    assert kept.find("anna", "resp_large") is None
    assert kept.find("anna", "resp_small") is not None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"id": 1, "output": []}', b"\xff"])
def test_what_is_no_response_is_not_kept(body: bytes) -> None:
    kept = store()
    kept.keep("anna", body, (), (), None)
    assert kept.count == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 3_000)), max_size=40),
    st.integers(1, 5),
    st.integers(600, 6_000),
)
def test_the_limits_hold_whatever_is_kept(
    steps: list[tuple[str, int, int]], max_count: int, max_bytes: int
) -> None:
    kept = store(max_count=max_count, max_bytes=max_bytes)
    for owner, name, size in steps:
        keep(kept, owner, f"{owner}{name}", size)
        assert kept.count <= max_count
        assert kept.size_bytes <= max_bytes
    every = [kept.find(owner, f"resp_{owner}{n}") for owner in "abc" for n in range(10)]
    present = [one for one in every if one is not None]
    assert (len(present), sum(one.size_bytes for one in present)) == (kept.count, kept.size_bytes)
