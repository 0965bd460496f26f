"""The page of a rollout: where it stands, its acts with their reasons, and what was written stays text."""

from __future__ import annotations

import re

import httpx
import pytest

from serve.console.pages.rollouts import ACTS
from tests.fakes.served import Served

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
PAGE = "/console/rollouts/support"


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller looks once, at the start."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)


def act(served: Served, word: str, **fields: str) -> httpx.Response:
    path = f"{PAGE}/do/{word}"
    found = re.search(r'name="change" value="([0-9a-f]{64})"', served.client.get(path).text)
    assert found is not None
    return served.client.post(path, data={"change": found[1], **fields})


def test_an_adapter_without_a_rollout_says_how_to_start_one(served: Served) -> None:
    missing = served.client.get(PAGE)
    assert (missing.status_code, "has had no rollout" in missing.text) == (404, True)
    assert act(served, "pause").status_code == 404


def test_a_rollout_is_steered_and_every_reason_is_in_its_log(served: Served) -> None:
    served.publish("support", 2)
    served.open_rollout(canary=2)
    page = served.client.get(PAGE).text
    assert "<b>ramping</b>" in page
    assert "/do/pause" in page
    assert "/do/resume" not in page
    command = "wardrobe rollout pause support --why &#39;the shop is closed&#39;"
    assert command in served.client.get(f"{PAGE}/do/pause?why=the+shop+is+closed").text
    done = act(served, "pause", why=HOSTILE)
    assert (done.status_code, done.headers["location"]) == (303, f"{PAGE}?done=pause")
    page = served.client.get(done.headers["location"]).text
    assert "The rollout is paused." in page
    assert "<b>paused</b>" in page
    assert "/do/resume" in page
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    again = act(served, "pause")
    assert (again.status_code, 'role="alert"' in again.text) == (409, True)
    assert act(served, "resume").status_code == 303
    assert act(served, "abort", why="x" * 1_001).status_code == 400
    assert act(served, "abort", why="worse").status_code == 303
    page = served.client.get(PAGE).text
    assert "<b>rolled back</b>" in page
    assert "worse" in page
    assert "/do/" not in page
    log = served.registry.rollout_log("support")
    assert [one.event for one in log if one.who == "anonymous"] == ["pause", "resume", "abort"]
    assert len(ACTS) == 4


def test_no_act_without_the_sessions_token(served: Served) -> None:
    served.publish("support", 2)
    served.open_rollout(canary=2)
    for one in ACTS:
        assert served.client.post(f"{PAGE}/do/{one.word}", data={"why": "x"}).status_code == 403
    assert len(served.registry.rollout_log("support")) == 1
