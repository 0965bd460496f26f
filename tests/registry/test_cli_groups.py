"""`wardrobe groups`, `wardrobe usage` and the groups of keys: beside the files and over HTTP alike."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import httpx
import pytest

from registry.entries.keyring import KeyRing
from registry.entries.rights import Group, GroupLimits, Scope
from registry.entries.usage.book import UsageBook
from registry.entries.usage.rows import UsageRow, day_of
from registry.store import Registry
from tests.fakes.control import admin_server
from tests.fakes.terminal import Terminal

CREATE = (
    "groups", "create", "legal", "--adapters", "support, legal-*", "--no-base", "--scopes", "infer,feedback",
    "--requests-per-minute", "60", "--input-tokens-per-minute", "6000", "--output-tokens-per-minute", "3000",
    "--concurrency", "4", "--tokens-per-day", "100000", "--longest-prompt", "900", "--weight", "2.5",
    "--no-evidence", "--may-set-priority",
)  # fmt: skip
LIMITS = {
    "requests_per_minute": 60, "input_tokens_per_minute": 6000, "output_tokens_per_minute": 3000,
    "concurrency": 4, "tokens_per_day": 100_000, "longest_prompt": 900,
}  # fmt: skip


def test_a_group_is_made_changed_shown_and_listed(wardrobe: Terminal, root: Path) -> None:
    made = wardrobe.ok("--json", *CREATE).json
    assert made == {
        "group": "legal", "adapters": ["support", "legal-*"], "base": False, "scopes": ["feedback", "infer"],
        "limits": LIMITS, "weight": 2.5, "evidence": False, "priority": True, "keys": 0,
    }  # fmt: skip
    assert Registry.open(root).catalogue.groups.get("legal") == Group(
        "legal",
        ("support", "legal-*"),
        base=False,
        scopes=frozenset({Scope.INFER, Scope.FEEDBACK}),
        limits=GroupLimits(**LIMITS),
        weight=2.5,
        evidence=False,
        priority=True,
    )
    changed = wardrobe.ok(
        "--json", "groups", "set", "legal", "--concurrency", "none", "--base", "--adapters", ""
    ).json
    assert changed == {**made, "base": True, "adapters": [], "limits": {**LIMITS, "concurrency": None}}
    assert wardrobe.ok("--json", "groups", "show", "legal").json == changed
    assert "6000" in wardrobe.ok("groups", "show", "legal").out
    listed = wardrobe.ok("--json", "groups", "list").json
    assert [one["group"] for one in listed] == ["default", "legal"]
    assert listed[0]["adapters"] == ["*"]
    history = wardrobe.ok("--json", "groups", "history", "legal").json
    assert [one["seq"] for one in history] == [1, 2]
    assert history[1]["changed"] == {"adapters": "none", "base": "yes", "concurrency": "none"}
    assert "concurrency: none" in wardrobe.ok("groups", "history", "legal").out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "default"), 1, "groups set"),
        (("create", "Legal"), 2, "is not a name"),
        (("create", "legal", "--adapters", "a?"), 2, "is not a pattern"),
        (("create", "legal", "--adapters", "a,,b"), 2, "empty part"),
        (("create", "legal", "--scopes", "root"), 2, "infer, tune, feedback, read, admin"),
        (("create", "legal", "--scopes", ""), 2, "at least one"),
        (("create", "legal", "--weight", "0"), 2, "is not a weight"),
        (("create", "legal", "--concurrency", "0"), 2, "none"),
        (("create", "legal", "--concurrency", "-1"), 2, "none"),
        (("set", "legal", "--base"), 1, "groups create"),
        (("show", "legal"), 1, "groups list"),
        (("history", "legal"), 1, "groups list"),
        (("show", "../default"), 2, "is not a name"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    arguments: tuple[str, ...], code: int, told: str, wardrobe: Terminal, root: Path
) -> None:
    done = wardrobe("groups", *arguments)
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert Registry.open(root).catalogue.groups.names() == []


def test_a_key_belongs_to_a_group_and_has_limits_of_its_own(root: Path) -> None:
    wardrobe = Terminal(("--root", str(root)))
    wardrobe.ok(*CREATE)
    made = wardrobe.ok("--json", "keys", "create", "--group", "legal", "--concurrency", "2").json
    assert (made["group"], made["limits"]["concurrency"], made["limits"]["tokens_per_day"]) == (
        "legal",
        2,
        None,
    )
    caller = KeyRing(root).check(made["token"])
    assert caller is not None
    assert (caller.group.name, caller.limits) == ("legal", GroupLimits(concurrency=2))
    assert "legal" in wardrobe.ok("keys", "list").out
    assert wardrobe.ok("--json", "groups", "show", "legal").json["keys"] == 1
    wardrobe.ok("keys", "revoke", made["id"])
    assert wardrobe.ok("--json", "groups", "show", "legal").json["keys"] == 0
    refused = wardrobe("keys", "create", "--group", "nobody")
    assert (refused.code, refused.out) == (1, "")


def test_status_says_how_many_keys_no_group_bounds(root: Path) -> None:
    wardrobe = Terminal(("--root", str(root)))
    wardrobe.ok("keys", "create")
    assert "groups" not in wardrobe.ok("status").out
    wardrobe.ok("groups", "create", "legal")
    wardrobe.ok("keys", "create", "--group", "legal")
    assert "1 key is of the group default" in wardrobe.ok("status").out
    status = wardrobe.ok("--json", "status").json
    assert (status["groups"], status["ungrouped_keys"]) == (1, 1)


def test_an_unknown_field_and_a_number_as_text_are_refused_over_http(root: Path) -> None:
    with admin_server(root) as url:
        for body in (
            {"group": "legal", "quota": 1},
            {"group": "legal", "limits": {"requests_per_minute": "60"}},
            {"group": "legal", "limits": {"requests_per_second": 1}},
            {"group": "legal", "limits": {"concurrency": True}},
            {"group": "legal", "base": "no"},
            {"adapters": ["*"]},
        ):
            answer = httpx.post(f"{url}/admin/v1/groups", json=body)
            assert answer.status_code == 400, body
        assert Registry.open(root).catalogue.groups.names() == []
        made = httpx.post(f"{url}/admin/v1/groups", json={"group": "legal", "limits": {"concurrency": 1}})
        assert made.status_code == 201
        kept = httpx.patch(f"{url}/admin/v1/groups/legal", json={"weight": 3}).json()
        assert (kept["weight"], kept["limits"]["concurrency"], kept["base"]) == (3.0, 1, True)


def use(root: Path) -> str:
    """Let two groups have used something today; return the day."""
    today = day_of(Registry.open(root).catalogue.clock())
    UsageBook(root, "one").put(
        today,
        [
            UsageRow("legal", "k1", "support", 3, 1, 3_000_000, 500_000, 1_000_000),
            UsageRow("legal", "k2", "base", 1, 0, 10, 5),
        ],
    )
    UsageBook(root, "two").put(today, [UsageRow("sales", "k3", "support", 2, 0, 2_000_000, 100)])
    return today


def test_usage_is_told_by_what_is_asked(wardrobe: Terminal, root: Path) -> None:
    today = use(root)
    report = wardrobe.ok("--json", "usage").json
    assert [(one["group"], one["requests"], one["refused"]) for one in report["totals"]] == [
        ("legal", 4, 1),
        ("sales", 2, 0),
    ]
    assert report["totals"][0]["cost"] is None
    assert (report["until"], report["by"], report["problems"]) == (today, ["group"], {})
    by_adapter = wardrobe.ok("--json", "usage", "--by", "adapter,day").json["totals"]
    assert [(one["day"], one["adapter"], one["input_tokens"]) for one in by_adapter] == [
        (today, "support", 5_000_000),
        (today, "base", 10),
    ]
    assert [
        one["key"] for one in wardrobe.ok("--json", "usage", "--by", "key", "--group", "sales").json["totals"]
    ] == ["k3"]
    assert wardrobe.ok("--json", "usage", "--until", "2020-01-01").json["totals"] == []
    assert "5,000,000" in wardrobe.ok("usage", "--by", "adapter").out


def test_usage_costs_what_the_table_of_prices_says(wardrobe: Terminal, root: Path) -> None:
    today = use(root)
    with (root / "wardrobe.toml").open("a") as file:
        file.write(
            '\n[prices]\ncurrency = "EUR"\n'
            '[prices.per_million."*"]\ninput = 1\noutput = 2.0\n'
            "[prices.per_million.support]\ninput = 2\noutput = 4\ncached_input = 0.5\n"
        )
    out = wardrobe.ok("usage", "--by", "group,adapter,day", "--csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(one["day"], one["group"], one["adapter"], one["cost"], one["currency"]) for one in rows] == [
        (today, "legal", "support", "6.500000", "EUR"),  # 2 M at 2, 1 M cached at 0.5, 0.5 M at 4
        (today, "sales", "support", "4.000400", "EUR"),
        (today, "legal", "base", "0.000020", "EUR"),
    ]
    assert "6.50" in wardrobe.ok("usage").out


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--until", "2026-13-01"), ("--by", "group,model"), ("--csv", "--json")],
)
def test_a_question_that_means_nothing_is_wrong_usage(arguments: tuple[str, ...], wardrobe: Terminal) -> None:
    assert wardrobe("usage", *arguments).code == 2


def test_a_book_that_cannot_be_read_is_named(wardrobe: Terminal, root: Path) -> None:
    today = use(root)
    path = root / "usage" / "days" / today / "two.json"
    path.write_bytes(b"{")
    done = wardrobe.ok("--json", "usage")
    assert [one["group"] for one in done.json["totals"]] == ["legal"]
    assert str(path) in done.err
    assert list(done.json["problems"]) == [str(path)]


def test_a_group_that_cannot_be_read_is_named_by_list_and_status(root: Path) -> None:
    wardrobe = Terminal(("--root", str(root)))
    wardrobe.ok("groups", "create", "legal")
    path = root / "groups" / "legal" / "1.json"
    path.chmod(0o644)
    path.write_bytes(b"{")
    assert "legal cannot be read" in wardrobe.ok("groups", "list").err
    assert "group legal" in wardrobe.ok("--json", "status").json["problems"]
