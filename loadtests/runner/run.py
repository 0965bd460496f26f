"""A whole run: check the server, execute the plan, write the folder.

The folder holds `requests.jsonl` (as it happens), then `report.json`, `report.md`, `report.html` and
`junit.xml`. Invariant: after Ctrl-C or SIGTERM the same files are there, marked partial.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.runner.plan import ArrivalPlan
from loadtests.runner.records import FILE, RecordFile, RequestRecord, read_records
from loadtests.runner.results.documents import Report
from loadtests.runner.results.junit import junit
from loadtests.runner.results.markdown import markdown
from loadtests.runner.results.page import page
from loadtests.runner.results.report import Facts, build_report
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import ServerTarget
from registry.errors import Conflict, Denied, UsageError, WardrobeError

if TYPE_CHECKING:
    from loadtests.runner.actions import Actions
    from registry.api.client import HttpClient

Advance = Callable[[int], None]
REPORT = "report.json"
_SAMPLE = 1_500


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run: its report, and the folder that holds it."""

    report: Report
    folder: Path


def fresh_folder(out: Path | None, name: str) -> Path:
    """Make and return the folder of a run; by default one of its own under `load-results`.

    Raises: Conflict: a folder that holds something.
    """
    folder = out or Path("load-results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(str(folder), "is there already and not empty", "choose a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_plan(scenario: Scenario) -> ArrivalPlan:
    """Return the plan of a scenario.

    Raises: UsageError: when not one request would be measured.
    """
    plan = ArrivalPlan(scenario)
    if not len(plan) or plan.times[-1] < scenario.warmup_seconds:
        fact = f"{len(plan)} requests, none of them after the warm-up"
        raise UsageError(scenario.name, fact, "raise duration_seconds or arrival.rate")
    return plan


def run(plan: ArrivalPlan, target: ServerTarget, folder: Path, advance: Advance = lambda _: None) -> Done:
    """Run a plan against a server and write everything into `folder` (which is empty).

    Raises: what `ServerTarget.check` raises, before the first request.
    """
    import_client()
    scenario = plan.scenario
    target.check(list(dict.fromkeys(one.model for one in plan)), scenario.needs)
    actions, close = _actions(scenario, target)
    from loadtests.runner.execution import Execution

    started = time.time()
    try:
        with RecordFile(folder / FILE) as sink:
            execution = Execution(plan, target.url, target.key, sink, actions, advance)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_interruptible(execution.run))
    finally:
        close()
    facts = Facts(
        scenario=scenario,
        tool="wardrobe loadtest",
        url=target.url,
        started_at=started,
        end_seconds=execution.clock(),
        partial=execution.partial,
        shed=execution.shed,
        feedback_sent=execution.rated,
        events=actions.events if actions else (),
        changes=actions.changes if actions else (),
    )
    return Done(write(facts, folder), folder)


def write(facts: Facts, folder: Path) -> Report:
    """Write the reports of a run whose records lie in `folder`, and return the document."""
    sample = ReservoirSample(_SAMPLE)
    report = build_report(facts, sample.passing(read_records(folder / FILE)))
    (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    (folder / "junit.xml").write_text(junit(report), encoding="utf-8")
    (folder / "report.html").write_text(page(report, sample.records()), encoding="utf-8")
    return report


class ReservoirSample:
    """At most `size` of the records that pass through it, each with the same chance."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[RequestRecord] = []

    def passing(self, records: Iterable[RequestRecord]) -> Iterator[RequestRecord]:
        """Yield every record, and keep some."""
        rng = random.Random(self._size)
        for index, record in enumerate(records):
            if index < self._size:
                self._kept.append(record)
            elif (place := rng.randrange(index + 1)) < self._size:
                self._kept[place] = record
            yield record

    def records(self) -> list[RequestRecord]:
        """Return what was kept, in the order it was due."""
        return sorted(self._kept, key=lambda one: one.at)


def import_client() -> None:
    """Pass when aiohttp is installed.

    Raises: UsageError: it is not.
    """
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        remedy = "install the extra `load` (pip install 'wardrobe-llm[load]')"
        raise UsageError("loadtest", "needs aiohttp, which is not installed", remedy) from error


def _actions(scenario: Scenario, target: ServerTarget) -> tuple[Actions | None, Callable[[], None]]:
    if not scenario.actions:
        return None, lambda: None
    from loadtests.runner.actions import Actions
    from registry.api.client import HttpClient

    client = HttpClient(target.admin_url or target.url, key=target.key)
    if any(one.action != "command" for one in scenario.actions):
        _check_admin(client, target)
    return Actions(scenario, client), client.close


def _check_admin(client: HttpClient, target: ServerTarget) -> None:
    """Ask the admin API now, so that a wrong key or address is no failed action in the middle of a run."""
    from registry.api import operations

    try:
        operations.show_status(client)
    except Denied:
        raise
    except WardrobeError as error:
        fact = f"has no admin API, which the scenario's actions need ({error.fact})"
        remedy = "is it a balancer? Give --admin-url http://host:port of a replica behind it"
        raise UsageError(target.admin_url or target.url, fact, remedy) from error


async def _interruptible(work: Callable[[], object]) -> None:
    """Run `work()`; Ctrl-C and SIGTERM end it alike, also where a shell's background job ignores Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await work()  # type: ignore[misc]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
