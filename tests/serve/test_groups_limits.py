"""Limits of groups and keys by the door: what is refused, told, let go of and written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import NO_LIMITS, Group, GroupLimits, Scope
from registry.entries.usage.book import UsageReader
from registry.entries.usage.rows import UsageRow
from serve.groups.usage import used
from tests.fakes.raw import RawClient, request
from tests.fakes.served import Served, make_root, publish, serve, wait_until


def _key(served: Served, group: str, limits: GroupLimits, own: GroupLimits = NO_LIMITS) -> str:
    """Make a group with limits, and return the token of a key of it that the server knows."""
    root = served.registry.root
    groups = GroupStore(root)
    if group not in {one.name for one in groups.survey()[0]}:
        groups.create(Group(group, limits=limits), who="tester")
    info, token = KeyStore(root).create([Scope.INFER], who="tester", group=group, limits=own)
    served.runtime.keys.refresh()
    assert served.runtime.keys.caller(info.id) is not None
    return token


def _ask(served: Served, token: str, /, **fields: Any) -> httpx.Response:
    return _post(served, token, "/v1/chat/completions", **fields)


def _post(served: Served, token: str, path: str, /, **fields: Any) -> httpx.Response:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"authorization": f"Bearer {token}"}
    return served.client.post(path, json=body, headers=headers)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path) as one:
        yield one


def test_requests_per_minute_are_held_and_told(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(requests_per_minute=2))
    first = _ask(served, token)
    assert first.status_code == 200
    told = {name: first.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")}
    assert told == {"limit": "2", "remaining": "1"}
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert _ask(served, token).status_code == 200
    refused = _ask(served, token)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert "group acme: has 0 of 2 requests per minute left" in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert 0 < int(refused.headers["retry-after-ms"]) <= 60_500
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(served.inner.seen) == 2
    assert served.metric("wardrobe_rejections_total", reason="group_limit") == 1
    assert served.metric("wardrobe_group_requests_total", group="acme", outcome="refused") == 1
    assert served.metric("wardrobe_group_requests_total", group="acme", outcome="ok") == 2


def test_who_asks_one_after_the_other_is_never_refused_for_asking_at_once(served: Served) -> None:
    """What an answer held is free before its client has the last byte of it."""
    token = _key(served, "acme", GroupLimits(concurrency=1, output_tokens_per_minute=1_000))
    for place in range(60):
        fields = ({}, {"stream": True}, {"play": "400"})[place % 3]
        found = _ask(served, token, max_tokens=900 - 20 * place, **fields)
        assert found.status_code == (400 if "play" in fields else 200)


@pytest.mark.parametrize("before", [GroupLimits(requests_per_minute=100), NO_LIMITS])
def test_a_request_that_began_under_other_limits_brings_them_not_back(
    served: Served, before: GroupLimits
) -> None:
    """Its key was looked at, then its group was changed, then its body came."""
    slow, token, third = (_key(served, "acme", before) for _ in range(3))
    body = b'{"model": "support", "messages": []}'
    headers = [f"authorization: Bearer {slow}", f"content-length: {len(body)}", "expect: 100-continue"]
    with RawClient(served.client.base_url.port or 0) as client:
        client.send(request("POST", "/v1/chat/completions", [*headers, "content-type: application/json"]))
        assert client.answer().status == 100
        limits = GroupLimits(requests_per_minute=1)
        GroupStore(served.registry.root).change("acme", lambda one: replace(one, limits=limits), who="tester")
        served.runtime.keys.refresh()
        assert _ask(served, token).status_code == 200
        client.send(body)
        assert client.answer().status == 429
    assert [_ask(served, one).status_code for one in (token, third)] == [429, 429]


def test_another_group_and_who_has_no_limit_feel_nothing_of_it(served: Served) -> None:
    full = _key(served, "acme", GroupLimits(requests_per_minute=1))
    other = _key(served, "beta", GroupLimits(requests_per_minute=1))
    free = _key(served, "default", NO_LIMITS)
    assert _ask(served, full).status_code == 200
    assert _ask(served, full).status_code == 429
    assert _ask(served, other).status_code == 200
    for _ in range(3):
        found = _ask(served, free)
        assert found.status_code == 200
        assert not [name for name in found.headers if "ratelimit" in name]


def test_a_keys_own_limit_is_held_within_its_groups(served: Served) -> None:
    group = GroupLimits(requests_per_minute=3)
    small, large = (
        _key(served, "acme", group, own) for own in (GroupLimits(requests_per_minute=1), NO_LIMITS)
    )
    assert _ask(served, small).status_code == 200
    refused = _ask(served, small)
    assert refused.status_code == 429
    assert refused.json()["error"]["message"].startswith("key ")
    assert _ask(served, large).status_code == 200
    assert _ask(served, large).status_code == 200
    assert _ask(served, large).status_code == 429


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_reserved_by_its_cap_and_settled_by_its_usage(served: Served, cap: str) -> None:
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=100))
    refused = _ask(served, token, **{cap: 101})
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["type"] == "tokens"
    assert _ask(served, token, n=2, **{cap: 51}).status_code == 429
    # What is used is what the answer tells: 3 tokens each, so the bounds come back.
    for _ in range(10):
        assert _ask(served, token, n=2, **{cap: 30}).status_code == 200
    left = _ask(served, token, **{cap: 10})
    assert left.headers["x-ratelimit-limit-tokens"] == "100"
    assert int(left.headers["x-ratelimit-remaining-tokens"]) == 100 - 10 * 3 - 10


def test_an_answer_without_a_cap_is_capped_by_the_limit(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=80))
    assert _ask(served, token, n=2).status_code == 200
    assert served.inner.seen[-1].body["max_completion_tokens"] == 40
    assert _ask(served, token, max_tokens=5).status_code == 200
    assert "max_completion_tokens" not in served.inner.seen[-1].body


def test_a_stream_is_settled_by_a_usage_that_its_client_did_not_ask_for(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=100))
    plain = _ask(served, token, max_tokens=50, stream=True)
    assert plain.status_code == 200
    assert '"usage"' not in plain.text
    assert plain.text.endswith("data: [DONE]\n\n")
    assert served.inner.seen[-1].body["stream_options"] == {"include_usage": True}
    asked = _ask(served, token, max_tokens=50, stream=True, stream_options={"include_usage": True})
    assert '"usage"' in asked.text
    odd = {"include_usage": False, "continuous_usage_stats": True}
    mended = _ask(served, token, max_tokens=50, stream=True, stream_options=odd)
    assert mended.status_code == 200
    assert '"usage"' not in mended.text
    assert served.inner.seen[-1].body["stream_options"] == {"include_usage": True}
    left = _ask(served, token, max_tokens=50)
    assert int(left.headers["x-ratelimit-remaining-tokens"]) == 100 - 3 * 3 - 50


def test_a_client_that_leaves_pays_for_what_it_saw(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=100, concurrency=1))
    body = {"model": "support", "messages": [], "stream": True, "max_tokens": 90, "play": "slow"}
    headers = {"authorization": f"Bearer {token}"}
    with served.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream:
        pieces = stream.iter_raw()
        next(pieces)
        busy = _ask(served, token, max_tokens=1)
        assert busy.status_code == 429
        assert busy.json()["error"]["type"] in {"requests", "tokens"}
    served.settled()
    left = _ask(served, token, max_tokens=90)
    assert left.status_code == 200
    assert 7 <= int(left.headers["x-ratelimit-remaining-tokens"]) <= 10
    assert served.metric("wardrobe_group_requests_total", group="acme", outcome="cancelled") == 1


@pytest.mark.parametrize("limits", [GroupLimits(output_tokens_per_minute=100), NO_LIMITS])
def test_an_answer_that_was_left_costs_no_more_than_it_might_have_had(
    served: Served, limits: GroupLimits
) -> None:
    """By a version's pace of a million tokens a second, the time would say more."""
    token = _key(served, "acme", limits)
    body = {"model": "support", "messages": [], "max_tokens": 5, "n": 2, "play": "hang"}
    assert _ask(served, token, max_tokens=5).status_code == 200
    (series,) = (one for one in served.runtime.metrics.series() if one.labels[0] == "support")
    series.per_token.observe(1e-6)
    with httpx.Client(base_url=served.server.url, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {token}"})
    served.settled()
    assert [row.output_tokens for row in served.runtime.admission.ledger.rows()] == [3 + 2 * 5]


@pytest.mark.parametrize("play", ["500", "400", "raise", "cut", "error_first"])
def test_what_fails_is_let_go_of(served: Served, play: str) -> None:
    limits = GroupLimits(
        output_tokens_per_minute=50, input_tokens_per_minute=5_000, concurrency=1, tokens_per_day=6_000
    )
    token = _key(served, "acme", limits)
    streams = play in {"cut", "error_first"}
    for _ in range(3):
        try:
            _ask(served, token, max_tokens=50, play=play, stream=streams)
        except httpx.HTTPError:
            assert play in {"raise", "cut"}
    served.settled()
    good = _ask(served, token, max_tokens=50)
    assert good.status_code == 200
    account = served.runtime.admission._accounts["group", "acme"]
    wait_until(lambda: all(meter.held == 0 for meter in account.meters), "nothing is held")


def test_an_unknown_model_costs_nothing(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(requests_per_minute=1))
    assert _ask(served, token, model="nobody").status_code == 404
    assert _ask(served, token).status_code == 200


def test_a_days_budget_is_refused_until_midnight_and_survives_a_restart(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path) as served:
        token = _key(served, "acme", GroupLimits(tokens_per_day=2_000))
        assert _ask(served, token, max_tokens=10).status_code == 200
        spent = _ask(served, token, max_tokens=1_999)
        assert spent.status_code == 429
        error = spent.json()["error"]
        assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
        assert spent.headers["x-should-retry"] == "false"
        assert 0 < int(spent.headers["retry-after"]) <= 86_400
    rows = [
        row
        for period in UsageReader(registry.root).between("2000-01-01", "2999-12-31")
        for row in period.rows
    ]
    assert [(row.group, row.adapter, row.requests, row.refused, row.tokens) for row in rows] == [
        ("acme", "support", 1, 1, 10)
    ]
    with serve(registry, tmp_path) as served:
        left = _ask(served, token, max_tokens=10)
        assert left.status_code == 200
        assert used(served.runtime.admission.ledger.rows(), ("group", "acme")) == 20


def test_a_prompt_that_is_too_long_for_its_group_is_told_so(served: Served) -> None:
    token = _key(served, "acme", GroupLimits(longest_prompt=900))
    found = _ask(served, token, messages=[{"role": "user", "content": "x" * 900}])
    assert found.status_code == 400
    assert found.json()["error"]["code"] == "context_length_exceeded"


def test_anthropics_clients_are_told_in_their_own_words(served: Served) -> None:
    limits = GroupLimits(requests_per_minute=1, output_tokens_per_minute=100, input_tokens_per_minute=9_000)
    token = _key(served, "acme", limits)
    found = _post(served, token, "/v1/messages", max_tokens=20)
    assert found.status_code == 200
    assert found.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert found.headers["anthropic-ratelimit-output-tokens-remaining"] == "80"
    assert found.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    refused = _post(served, token, "/v1/messages", max_tokens=20)
    assert refused.status_code == 429
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "x-ratelimit-limit-requests" not in refused.headers


def test_the_canary_that_failed_is_not_paid_for(served: Served) -> None:
    served.publish("support", 2, no_stable=True)
    served.open_rollout(stable=1, canary=2, weight=10_000)
    served.inner.plays["support@2"] = "500"
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=100, concurrency=1))
    found = _ask(served, token, max_tokens=50)
    assert found.status_code == 200
    assert found.headers["x-wardrobe-adapter"] == "support@1"
    served.settled()
    assert served.runtime.admission.ledger.rows() == [
        UsageRow("acme", served.runtime.admission.ledger.rows()[0].key, "support", 1, 0, 7, 3, 0)
    ]
    assert _ask(served, token, max_tokens=97).status_code == 200


def test_many_at_once_never_pass_a_limit_and_leave_little_of_it(served: Served) -> None:
    """Each may use 10 tokens and uses 3, so the last that is let in leaves less than 10."""
    token = _key(served, "acme", GroupLimits(output_tokens_per_minute=200))
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=served.server.url, timeout=20) as client:
            body = {"model": "support", "messages": [], "max_tokens": 10}
            while len(statuses) < 400 and statuses.count(200) < 200 // 3:
                found = client.post(
                    "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {token}"}
                )
                statuses.append(found.status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.settled()
    assert set(statuses) <= {200, 429}
    assert 200 - 10 < 3 * statuses.count(200) <= 200
    assert len(served.inner.seen) == statuses.count(200)


def test_two_servers_of_a_root_hold_half_of_a_limit_each(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path, replica="r1") as one, serve(registry, tmp_path, replica="r2") as other:
        token = _key(one, "acme", GroupLimits(requests_per_minute=4, tokens_per_day=10_000))
        other.runtime.keys.refresh()
        both = (one, other)
        # A server looks for others as soon as somebody has a limit.
        assert [_ask(server, token, max_tokens=5).status_code for server in both] == [200, 200]
        shared = [server.runtime.admission.shares for server in both]
        wait_until(lambda: all(share.replicas == 2 for share in shared), "they know of each other")
        assert [_ask(server, token, max_tokens=5).status_code for server in both] == [200, 200]
        refused = [_ask(server, token, max_tokens=5) for server in both]
        assert [answer.status_code for answer in refused] == [429, 429]
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in refused} == {"2"}
        # Of a day's budget each knows what the other one used.
        budgets = [server.runtime.admission._accounts["group", "acme"].budget for server in both]
        wait_until(lambda: all(one is not None and one.elsewhere == 20 for one in budgets), "they have heard")
