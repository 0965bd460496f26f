"""The books of usage: what each replica counted in a day, the sums of days, and of months.

Owns `usage/days/<day>/<replica>.json` (replaced as a whole by its one writer, and cumulative: a kill loses
what was counted since the last write, and nothing counts twice), `usage/totals/<day>.json` and
`usage/months/<month>.json`. A sum names what it took in; that is removed, and passed over until it is.
Invariants: a sum is written once; what came too late for it stands beside it and counts; a reader opens what
he is asked for and nothing older.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from registry.entries.usage.rows import UsageRow, bounded, encode_rows, merged, read_rows
from registry.errors import CorruptStore, Missing
from registry.names import check_replica_name
from registry.storage import disk, files
from registry.storage.entry import encode, encode_claim

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
SETTLED_DAYS = 2
"""A day is summed when it ended so long ago that no clock and no late write is still in it."""


class UsageBook:
    """The book of one replica."""

    def __init__(self, root: Path, replica: str) -> None:
        self._folder = _days(root)
        self._replica = check_replica_name(replica)

    def put(self, day: str, rows: Iterable[UsageRow]) -> None:
        """Replace what this replica counted in `day` (UTC); `rows` are all of it, from the day's beginning.

        Raises: StorageFailed: what was there is still there.
        """
        path = self._path(day)
        files.make_directory(path.parent)
        files.replace(path, encode({"replica": self._replica, "rows": encode_rows(bounded(rows))}))

    def kept(self, day: str) -> list[UsageRow]:
        """Return what this replica wrote of `day`, to go on from after a restart.

        Raises: CorruptStore; StorageFailed.
        """
        try:
            return read_rows(self._path(day))[1]
        except Missing:
            return []

    def _path(self, day: str) -> Path:
        return self._folder / day / f"{self._replica}.json"


@dataclass(slots=True)
class PeriodUsage:
    """What was used in one day, or in a month whose days were summed; `problems` by file that is left out."""

    period: str
    rows: list[UsageRow] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


class UsageReader:
    """What all replicas of a root counted; every call reads the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def day(self, day: str, *, without: str | None = None) -> PeriodUsage:
        """Return what was used in one day; `without` leaves out one replica's own file.

        Raises: StorageFailed: it cannot be told.
        """
        found = PeriodUsage(day)
        # The replicas' files first: one that a sum takes in meanwhile is then found in the sum.
        own = _documents(_days(self._root) / day, found.problems)
        total = _sum(_totals(self._root) / f"{day}.json", "replicas", found.problems)
        for name, rows in own.items():
            if name not in total.taken and name != without:
                found.rows += rows
        found.rows = merged([*found.rows, *total.rows])
        return found

    def between(self, since: str, until: str) -> Iterator[PeriodUsage]:
        """Yield what was used from the day `since` to `until`, both included, by day, oldest first.

        Days that were summed to their month come as that whole month, and first.
        Raises: StorageFailed.
        """
        days = [day for day in day_names(self._root) if since <= day <= until]
        found = [self.day(day) for day in days]
        taken: set[str] = set()
        for month in month_names(self._root):
            if since[:7] <= month <= until[:7]:
                usage = PeriodUsage(month)
                total = _sum(_months(self._root) / f"{month}.json", "days", usage.problems)
                usage.rows = total.rows
                taken |= total.taken
                yield usage
        yield from (one for one in found if one.period not in taken)


def fold(root: Path, today: str, *, days: int) -> None:
    """Sum the days that are over, and to months those that ended more than `days` days ago.

    Any process may, several at once too. What cannot be read stays as it is. Raises: StorageFailed.
    """
    settled = _before(today, SETTLED_DAYS)
    for day in disk.names(_days(root)):
        if _is_day(day) and day <= settled:
            _fold_day(root, day)
    for month in sorted({day[:7] for day in day_names(root)}):
        if f"{month}-31" < _before(today, max(days, SETTLED_DAYS)):
            _fold_month(root, month)


def outlived_months(root: Path, today: str, *, months: int) -> list[Path]:
    """Return the sums of months that are kept no longer: older than `months` months.

    Raises: StorageFailed.
    """
    year, month = int(today[:4]), int(today[5:7])
    first = year * 12 + month - 1 - months
    oldest = f"{first // 12:04}-{first % 12 + 1:02}"
    return [_months(root) / f"{name}.json" for name in month_names(root) if name < oldest]


def day_names(root: Path) -> list[str]:
    """Return the days of which there is a book that no month has taken in, oldest first.

    Raises: StorageFailed.
    """
    names = {*disk.names(_days(root)), *_stems(_totals(root))}
    return sorted(name for name in names if _is_day(name))


def month_names(root: Path) -> list[str]:
    """Return the months whose days were summed, oldest first.

    Raises: StorageFailed.
    """
    return sorted(name for name in _stems(_months(root)) if _MONTH.fullmatch(name))


@dataclass(frozen=True, slots=True)
class _Sum:
    rows: list[UsageRow] = field(default_factory=list)
    taken: frozenset[str] = frozenset()


def _fold_day(root: Path, day: str) -> None:
    folder, path = _days(root) / day, _totals(root) / f"{day}.json"
    own = _documents(folder, {})
    if own:
        _claim(path, "replicas", own)
        taken = _sum(path, "replicas", {}).taken
        for name in sorted(own.keys() & taken):
            files.remove(folder / f"{name}.json")
    files.remove_empty(folder)


def _fold_month(root: Path, month: str) -> None:
    path, reader = _months(root) / f"{month}.json", UsageReader(root)
    found = [reader.day(day) for day in day_names(root) if day.startswith(month)]
    whole = {one.period: one.rows for one in found if not one.problems}
    if whole:
        _claim(path, "days", whole)
        for day in sorted(whole.keys() & _sum(path, "days", {}).taken):
            files.remove(_totals(root) / f"{day}.json")
            files.remove_tree(_days(root) / day)


def _claim(path: Path, word: str, parts: Mapping[str, list[UsageRow]]) -> None:
    rows = bounded(row for part in parts.values() for row in part)
    files.make_directory(path.parent)
    files.claim(path, encode_claim({word: [*sorted(parts)], "rows": encode_rows(rows)}))


def _sum(path: Path, word: str, problems: dict[str, str]) -> _Sum:
    try:
        entry, rows = read_rows(path)
        return _Sum(rows, frozenset(entry.texts(word)))
    except Missing:
        return _Sum()
    except CorruptStore as error:
        problems[str(path)] = str(error)
        return _Sum()


def _documents(folder: Path, problems: dict[str, str]) -> dict[str, list[UsageRow]]:
    found = {}
    for name in _stems(folder):
        path = folder / f"{name}.json"
        try:
            found[name] = read_rows(path)[1]
        except Missing:
            continue  # a sum took it in between the listing and the reading
        except CorruptStore as error:
            problems[str(path)] = str(error)
    return found


def _stems(folder: Path) -> list[str]:
    return [name.removesuffix(".json") for name in disk.names(folder) if name.endswith(".json")]


def _is_day(name: str) -> bool:
    return _DAY.fullmatch(name) is not None


def _before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _days(root: Path) -> Path:
    return root / "usage" / "days"


def _totals(root: Path) -> Path:
    return root / "usage" / "totals"


def _months(root: Path) -> Path:
    return root / "usage" / "months"
