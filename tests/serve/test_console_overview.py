"""The overview: what it counts, what it says needs attention, and that hostile text stays text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from registry.api.documents import ReplicaDocument
from registry.names import STABLE
from registry.views.view import AdapterView, View
from serve.console.pages.attention import NAMED, matters
from serve.console.traffic import MAX_ADAPTERS, OTHER, Traffic
from serve.exposition import Histogram, bucket_quantile
from serve.outcomes import Outcome
from serve.router.telemetry.metrics import TTFT_SECONDS
from tests.fakes.clock import Clock
from tests.fakes.served import Served

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@dataclass
class Counts:
    """The counters of one arm."""

    adapter: str
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_SECONDS))

    def ask(self, outcome: Outcome = Outcome.OK, first: float | None = None) -> None:
        self.outcomes["chat", outcome] += 1
        if first is not None:
            self.ttft.observe(first)


def replica(**changes: object) -> ReplicaDocument:
    plain: dict[str, object] = {
        "replica": "r1", "url": "http://r1", "state": "ready", "live": True, "resident": [], "capacity": 4,
        "base_fingerprint": "f", "started_at": 1.0, "pid": 1,
    }  # fmt: skip
    return ReplicaDocument.model_validate(plain | changes)


def adapter(name: str, stable: int | None = 1, quarantined: dict[int, str] | None = None) -> AdapterView:
    aliases = {} if stable is None else {STABLE: stable}
    return AdapterView(name, {}, aliases, quarantined or {}, frozenset())


def test_traffic_is_what_was_counted_since_and_ages_by_the_minute() -> None:
    clock = Clock(6_000.0)
    traffic, old, new = Traffic(clock), Counts("support"), Counts("support")
    old.ask(first=0.02)
    traffic.sample([old])
    clock.now += 60
    new.ask(Outcome.ENGINE_ERROR)
    new.ask(Outcome.CLIENT_ERROR)
    old.ask(first=0.02)
    traffic.sample([old, new])
    traffic.sample([old, new])
    (found,) = traffic.adapters()
    assert (found.requests, found.failed, found.failed_share) == (4, 1, 0.25)
    assert found.median is not None
    assert 0.01 < found.median < 0.025
    assert [(one.requests, one.failed) for one in traffic.minutes()][-2:] == [(1, 0), (3, 1)]
    clock.now += 59 * 60
    assert traffic.adapters()[0].requests == 3
    clock.now += 60
    assert traffic.adapters() == []
    assert sum(one.requests for one in traffic.minutes()) == 0


def test_counters_that_begin_anew_count_nothing_twice() -> None:
    clock = Clock(6_000.0)
    traffic, before, after = Traffic(clock), Counts("support"), Counts("support")
    for _ in range(5):
        before.ask()
    traffic.sample([before])
    after.ask()
    traffic.sample([after])
    after.ask()
    traffic.sample([after])
    assert traffic.adapters()[0].requests == 6


def test_the_traffic_of_many_adapters_is_bounded_and_none_is_lost() -> None:
    clock = Clock(6_000.0)
    traffic, many = Traffic(clock), [Counts(f"a{n}") for n in range(MAX_ADAPTERS + 50)]
    for _ in range(100):
        for one in many:
            one.ask()
        traffic.sample(many)
        clock.now += 60
    found = {one.adapter: one.requests for one in traffic.adapters()}
    assert len(found) == MAX_ADAPTERS + 1
    assert found[OTHER] == 50 * found["a0"]
    assert len(traffic._minutes) == 60


def test_a_quantile_is_within_its_bucket() -> None:
    assert bucket_quantile([], (), 0.5) is None
    assert bucket_quantile([0, 10, 0], (1.0, 2.0), 0.5) == 1.5
    assert bucket_quantile([0, 0, 3], (1.0, 2.0), 0.5) == 2.0


def test_what_needs_attention_names_few_counts_the_rest_and_puts_the_worst_first() -> None:
    every = [adapter(f"bare{n}", None) for n in range(40)]
    every += [adapter("broken", 3, {3: "digest"}), adapter("fine")]
    view = View(1, {one.name: one for one in every})
    replicas = [replica(live=False), replica(problems=["keys: away"], notes=["compile"], state="draining")]
    found = matters(view, replicas, keys_in_use=False)
    assert [one.level for one in found] == ["error", "error", *["warning"] * (NAMED + 1), *["info"] * 3]
    assert found[0].sentence.startswith("Nothing answers as broken: its stable, broken@3, is in quarantine")
    bare = [one.sentence for one in found if "has no stable" in one.sentence]
    assert "and so is it with 35 more" in bare[-1]
    many = matters(View(1, {}), [replica(problems=[f"p{n}" for n in range(400)])], keys_in_use=True)
    assert [one.sentence for one in many][NAMED - 1 :] == ["r1: p4", "r1 has 395 more problems."]
    assert matters(View(1, {"fine": adapter("fine")}), [replica()], keys_in_use=True) == []


def test_the_page_tells_of_servers_rollouts_and_traffic(served: Served) -> None:
    served.publish("support", 2)
    served.open_rollout(canary=2)
    served.chat("support@1", stream=True)
    served.settled()
    served.runtime.traffic.sample(served.runtime.metrics.series())
    page = served.client.get("/console").text
    assert "1 of 1</b> servers ready" in page
    assert (
        '<a href="/console/rollouts/support">support</a></td><td>@1</td><td>@2</td><td>ramping</td>' in page
    )
    assert "1 requests, 0 without a whole answer, at the server r1." in page


def test_hostile_text_stays_text(served: Served, tmp_path: Path) -> None:
    served.publish("support", 2)
    served.publish("legal", 3)
    served.registry.quarantine("legal", 1, HOSTILE, who=HOSTILE)
    served.open_rollout(canary=2, sentence=HOSTILE, state="paused", resumes="ramping")
    served.runtime.watcher.refresh()
    page = served.client.get("/console").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
