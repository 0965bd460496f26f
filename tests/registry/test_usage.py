"""Books of usage: nothing counts twice or is lost, whatever is summed, killed or late."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from registry.entries.usage.book import (
    PeriodUsage,
    UsageBook,
    UsageReader,
    day_names,
    fold,
    month_names,
    outlived_months,
)
from registry.entries.usage.report import totals
from registry.entries.usage.rows import OTHER, UsageRow, bounded, day_of, merged
from registry.errors import CorruptStore, UsageError
from registry.settings.prices import NO_PRICES, PriceTable, TokenPrice
from registry.storage import files
from registry.store import Registry
from tests.contracts.crashing import kill_at

DAYS = ("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02")


def row(group: str = "legal", key: str = "k", adapter: str = "support", n: int = 1) -> UsageRow:
    return UsageRow(group, key, adapter, n, n // 2, 10 * n, 5 * n, 3 * n)


def whole(rows: list[UsageRow]) -> UsageRow:
    total = UsageRow("", "", "")
    for one in rows:
        total = total.plus(one)
    return total


def all_of(root: Path, since: str = "2000-01-01", until: str = "2100-01-01") -> UsageRow:
    return whole([one for period in UsageReader(root).between(since, until) for one in period.rows])


def write(root: Path) -> None:
    for place, day in enumerate(DAYS, 1):
        for replica in ("one", "two"):
            UsageBook(root, replica).put(day, [row(n=place), row("sales", "s", n=place)])


def test_a_replica_goes_on_from_what_it_wrote(tmp_path: Path) -> None:
    book = UsageBook(tmp_path, "one")
    assert book.kept("2026-01-31") == []
    rows = [row(), row(adapter="base", n=7)]
    book.put("2026-01-31", rows)
    assert sorted(book.kept("2026-01-31"), key=str) == sorted(rows, key=str)
    book.put("2026-01-31", [*rows, row(n=2)])  # cumulative: it replaces
    assert all_of(tmp_path) == whole([*rows, row(n=2)])


def test_other_replicas_are_counted_beside_the_own(tmp_path: Path) -> None:
    write(tmp_path)
    reader = UsageReader(tmp_path)
    assert whole(reader.day(DAYS[0], without="one").rows) == whole([row(), row("sales", "s")])
    assert len(reader.day(DAYS[0]).rows) == 2


def test_sums_of_days_and_months_hold_what_the_books_held(tmp_path: Path) -> None:
    write(tmp_path)
    before = all_of(tmp_path)
    fold(tmp_path, "2026-02-03", days=400)  # the last two days are not settled
    assert day_names(tmp_path) == list(DAYS)
    assert sorted(path.name for path in (tmp_path / "usage" / "days").iterdir()) == [DAYS[3]]
    assert all_of(tmp_path) == before
    fold(tmp_path, "2026-03-20", days=30)
    assert (month_names(tmp_path), day_names(tmp_path)) == (["2026-01"], list(DAYS[2:]))
    assert all_of(tmp_path) == before
    periods = [one.period for one in UsageReader(tmp_path).between("2026-01-15", "2026-03-01")]
    assert periods == ["2026-01", *DAYS[2:]]
    fold(tmp_path, "2026-06-20", days=30)
    assert (month_names(tmp_path), day_names(tmp_path)) == (["2026-01", "2026-02"], [])
    assert all_of(tmp_path) == before
    assert all_of(tmp_path, "2026-02-01") == whole([row(n=n) for n in (3, 3, 3, 3, 4, 4, 4, 4)])
    gone = outlived_months(tmp_path, "2026-06-20", months=4)
    assert [path.name for path in gone] == ["2026-01.json"]


def test_what_comes_late_stands_beside_the_sum_and_counts(tmp_path: Path) -> None:
    write(tmp_path)
    fold(tmp_path, "2026-02-10", days=400)
    before = all_of(tmp_path)
    UsageBook(tmp_path, "three").put(DAYS[0], [row(n=50)])
    assert all_of(tmp_path) == before.plus(row(n=50))
    fold(tmp_path, "2026-02-10", days=400)
    assert all_of(tmp_path) == before.plus(row(n=50))
    UsageBook(tmp_path, "one").put(DAYS[0], [row(n=99)])  # what a sum took in, again: not twice
    assert all_of(tmp_path) == before.plus(row(n=50))


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_a_kill_at_any_step_of_a_fold_loses_and_doubles_nothing(tmp_path: Path, links: bool) -> None:
    template = tmp_path / "template"
    write(template)
    before = all_of(template)
    steps: list[str] = []
    probe = tmp_path / "probe"
    shutil.copytree(template, probe)
    with files.watch_steps(steps.append):
        fold(probe, "2026-03-20", days=30)
    assert len(steps) > 20
    for index, step in enumerate(steps):
        world = tmp_path / "world"
        shutil.copytree(template, world)
        kill_at(index, lambda world=world: fold(world, "2026-03-20", days=30), links=links)  # type: ignore[misc]
        assert all_of(world) == before, step
        fold(world, "2026-03-20", days=30)
        assert all_of(world) == before, step
        assert day_names(world) == list(DAYS[2:]), step
        shutil.rmtree(world)


def test_a_damaged_book_hides_no_other_and_is_never_summed(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "usage" / "days" / DAYS[0] / "one.json"
    good = path.read_bytes()
    broken = [b"", b"{", b"[]", b'{"rows": 1}', b'{"rows": [["a", "b", "c", 1, 2, 3, 4]]}']
    broken += [
        b'{"rows": [["a", "b", "c", 1, 2, 3, 4, -5]]}',
        b'{"rows": [["a", "b", "c", true, 2, 3, 4, 5]]}',
    ]
    for content in broken:
        path.write_bytes(content)
        found = UsageReader(tmp_path).day(DAYS[0])
        assert (list(found.problems), whole(found.rows)) == ([str(path)], whole([row(), row("sales", "s")]))
        with pytest.raises(CorruptStore):
            UsageBook(tmp_path, "one").kept(DAYS[0])
    fold(tmp_path, "2026-06-20", days=30)
    assert path.read_bytes() == broken[-1]
    path.write_bytes(good)
    assert whole(UsageReader(tmp_path).day(DAYS[0]).rows) == whole([row(), row("sales", "s")] * 2)


def test_a_document_is_bounded_and_no_group_loses_a_token() -> None:
    rng = random.Random(7)
    rows = [
        row(f"g{rng.randrange(60)}", f"k{rng.randrange(400)}", f"a{rng.randrange(9)}", rng.randrange(1, 99))
        for _ in range(5_000)
    ]
    found = bounded(rows, 200)
    assert len(found) <= 200
    for group in {one.group for one in rows}:
        own = whole([one for one in rows if one.group == group])
        assert whole([one for one in found if one.group == group]) == own
    heaviest = max(merged(rows), key=lambda one: one.tokens)
    assert heaviest in found
    assert sorted(bounded(found, 200), key=str) == sorted(found, key=str)
    many = [row(f"g{number}") for number in range(3_000)]
    small = bounded(many)
    assert len(small) <= 2_000
    assert whole(small) == whole(many)
    assert any(one.group == OTHER for one in small)


def test_totals_are_the_same_sum_whatever_they_are_asked_by() -> None:
    rng = random.Random(3)
    periods = [
        PeriodUsage(day, [row(rng.choice("ab"), rng.choice("kl"), rng.choice("xy"), n) for n in range(1, 9)])
        for day in DAYS
    ]
    prices = PriceTable("EUR", {"x": TokenPrice(2.0, 4.0)})
    every = whole([one for period in periods for one in period.rows])
    for by in ((), ("day",), ("group", "adapter"), ("day", "group", "key", "adapter")):
        found = totals(periods, by, prices)
        assert sum(one.requests for one in found) == every.requests
        assert sum(one.input_tokens for one in found) == every.input_tokens
        cost = sum(one.cost or 0.0 for one in found)
        assert cost == pytest.approx(sum(one.cost or 0.0 for one in totals(periods, (), prices)))
    (plain,) = totals(periods, (), NO_PRICES)
    assert (plain.cost, plain.unpriced_tokens) == (None, every.tokens)


def test_the_longest_pattern_that_fits_has_the_price() -> None:
    prices = PriceTable(
        "EUR",
        {
            "*": TokenPrice(1, 1),
            "legal-*": TokenPrice(2, 2),
            "legal-de-*": TokenPrice(3, 3, 0.5),
            "legal-de-1": TokenPrice(4, 4),
        },
    )
    costs = {
        name: prices.cost(name, 1_000_000, 0) for name in ("base", "legal-x", "legal-de-2", "legal-de-1")
    }
    assert costs == {"base": 1.0, "legal-x": 2.0, "legal-de-2": 3.0, "legal-de-1": 4.0}
    assert prices.cost("legal-de-2", 1_000_000, 1_000_000, 500_000) == 4.75
    assert prices.cost("support", 0, 0) == 0.0
    assert NO_PRICES.cost("support", 1, 1) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('currency = "EUR"', "prices.per_million: is missing"),
        ('[prices.per_million."*"]\ninput = 1\noutput = 1', "prices.currency: is missing"),
        ('currency = "EUR"\n[prices.per_million."*"]\ninput = 1', "output: is missing"),
        ('currency = "EUR"\n[prices.per_million."*"]\ninput = -1\noutput = 1', "must be a number from 0"),
        ('currency = "EUR"\n[prices.per_million."*"]\ninput = true\noutput = 1', "must be a number from 0"),
        ('currency = "EUR"\n[prices.per_million."*"]\ninputs = 1\noutput = 1', "unknown setting"),
        ('currency = ""\n[prices.per_million]', "1 to 8 characters"),
        ('currency = "EUR"\nper_million = 3', "must hold keys and values"),
        ('currency = "EUR"\n[prices.per_million]\nsupport = 3', "must hold keys and values"),
        ('curency = "EUR"\n[prices.per_million]', "did you mean"),
    ],
)
def test_prices_that_are_none_are_named(text: str, told: str, registry: Registry) -> None:
    path = registry.root / "wardrobe.toml"
    path.write_text(f"{path.read_text()}\n[prices]\n{text}\n")
    with pytest.raises(UsageError, match=told.replace(".", r"\.")):
        registry.catalogue.root.prices()


def test_a_new_name_of_the_base_leaves_the_prices(registry: Registry) -> None:
    path = registry.root / "wardrobe.toml"
    prices = '[prices]\ncurrency = "EUR"\n[prices.per_million.support]\ninput = 0.4\noutput = 1\n'
    path.write_text(f"{path.read_text()}\n{prices}")
    Registry.init(registry.root, registry.base.path, name="renamed")
    again = Registry.open(registry.root)
    assert again.base.name == "renamed"
    assert again.catalogue.root.prices() == PriceTable("EUR", {"support": TokenPrice(0.4, 1.0)})


def test_collecting_sums_and_then_drops(registry: Registry) -> None:
    day = "2020-05-05"
    UsageBook(registry.root, "one").put(day, [row()])
    registry.gc(apply=True)
    assert (day_names(registry.root), month_names(registry.root)) == ([], [])
    assert not json.loads((registry.root / "layout.json").read_bytes()).get("usage")
    recent = day_of(registry.catalogue.clock() - 40 * 86_400)
    UsageBook(registry.root, "one").put(recent, [row()])
    registry.gc(apply=True)
    assert day_names(registry.root) == [recent]
    assert list((registry.root / "usage" / "days").iterdir()) == []
    assert all_of(registry.root) == whole([row()])
