"""The page of changes, and the operation behind it: the last ones first, without reading all there were."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from registry.api import operations
from registry.api.operation import LocalClient
from registry.errors import InvalidName, NotFound
from registry.store import Registry
from registry.views import history
from registry.views.history import AuditWish
from tests.fakes.served import Served, make_root, publish

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def told(page: str) -> list[str]:
    """Return the subjects of the page's rows."""
    return re.findall(r"<td>(?:[a-z]+)</td><td>([^<]*)</td><td class=", page)


def test_the_newest_changes_are_those_of_the_whole_audit(registry: Registry, tmp_path: Path) -> None:
    for seed in range(2, 8):
        publish(registry, tmp_path, f"a{seed}", seed)
        registry.set_alias("support", f"w{seed}", 1, who="anna")
    every = sorted(registry.audit(), key=lambda one: (one.at, one.subject), reverse=True)
    assert registry.newest_changes(AuditWish(), 500) == (every, None)
    assert registry.newest_changes(AuditWish(), 5)[0] == every[:5]
    before = every[4].at
    assert registry.newest_changes(AuditWish(before), 5)[0] == [one for one in every if one.at < before][:5]
    mine = [one for one in every if one.who == "anna"]
    assert registry.newest_changes(AuditWish(who="anna", action="alias"), 500)[0] == mine
    own = [one for one in every if one.subject.startswith("a3@")]
    assert registry.newest_changes(AuditWish(adapter="a3"), 500)[0] == own
    local = LocalClient(registry, "tester")
    with pytest.raises(NotFound):
        operations.show_newest_changes(local, adapter="none")
    with pytest.raises(InvalidName):
        operations.show_newest_changes(local, adapter="../support")


def test_adapters_that_rest_are_not_read_for_the_newest_changes(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "resting", 2)
    for folder in ("support", "resting"):
        os.utime(registry.root / "changes" / folder, (1_000.0, 1_000.0))
    publish(registry, tmp_path, "busy", 3)
    wanted = registry.newest_changes(AuditWish(adapter="busy"), 500)[0]
    (registry.root / "adapters/resting/aliases/stable/1.json").write_text(
        "broken"
    )  # would be told if it were read
    assert registry.newest_changes(AuditWish(), len(wanted)) == (wanted, None)
    assert "unreadable" in {one.action for one in registry.newest_changes(AuditWish(), 500)[0]}


def test_no_more_than_so_many_adapters_are_read_and_it_is_said_how_far_that_goes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ADAPTERS_READ", 1)
    publish(registry, tmp_path, "busy", 3)
    os.utime(registry.root / "changes/support", (1_000.0, 1_000.0))
    found, reached = registry.newest_changes(AuditWish(), 500)
    assert {one.subject.partition("@")[0] for one in found} == {"busy"}
    assert reached == 1_060.0


def test_the_page_filters_turns_and_keeps_what_was_written_text(served: Served) -> None:
    for n in range(60):
        served.registry.set_alias("support", f"w{n}", 1, who="anna")
    first = served.client.get("/console/audit").text
    assert told(first) == [f"support@w{n}" for n in range(59, 9, -1)]
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    second = served.client.get(older[1].replace("&amp;", "&")).text
    assert told(second)[:10] == [f"support@w{n}" for n in range(9, -1, -1)]
    assert 'rel="next"' not in second
    assert told(served.client.get("/console/audit?action=publish").text) == ["support@1"]
    assert "Nothing that fits." in served.client.get("/console/audit?who=berta").text
    served.registry.attest("support", 1, "force", {"why": HOSTILE}, who=HOSTILE)
    for address in ("", f"?who={HOSTILE}", f"?adapter=support&action={HOSTILE}", "?before=<script>alert(1)"):
        page = served.client.get(f"/console/audit{address}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
    assert "&lt;script&gt;" in served.client.get("/console/audit").text
    assert served.client.get("/console/audit?adapter=none").status_code == 404
    assert served.client.get("/console/audit?adapter=../x").status_code == 400


def test_an_empty_root_has_no_changes(tmp_path: Path) -> None:
    assert make_root(tmp_path).newest_changes(AuditWish(), 50) == ([], None)
