"""The raw events of a locust run, and our own report from them.

Locust's CSV loses the end of a run (issues 1806, 2299, 2340) and rounds times of 100 ms and more, so no
bar is held against it: every request is a record here as it is in the runner's.
"""

from __future__ import annotations

import time
from pathlib import Path

from loadtests.runner.records import FILE, UNFINISHED, RecordFile, RequestRecord
from loadtests.runner.results.documents import Report
from loadtests.runner.results.report import Facts
from loadtests.runner.run import fresh_folder, write
from loadtests.runner.scenario import Scenario

OPEN_LOOP, CLOSED_LOOP = "locust", "locust, closed loop"
_LEAST_SECONDS = 0.001


class SwarmJournal:
    """Keeps the records of one run in a fresh folder; `finish` writes the reports there."""

    def __init__(self, scenario: Scenario, url: str, folder: Path | None, *, closed_loop: bool) -> None:
        self.scenario = scenario
        self.url = url
        self.closed_loop = closed_loop
        self.folder = fresh_folder(folder, scenario.name)
        self.complete = closed_loop
        self.shed = 0
        self._sink = RecordFile(self.folder / FILE)
        self._open: dict[int, RequestRecord] = {}
        self._started_at = time.time()
        self._began = time.perf_counter()
        self._report: Report | None = None

    def clock(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self._began

    def begin(self, record: RequestRecord) -> None:
        """Note a request that is about to be sent."""
        self._open[id(record)] = record

    def keep(self, record: RequestRecord) -> None:
        """Write a request that has ended; one after the report is dropped."""
        self._open.pop(id(record), None)
        if self._report is None:
            self._sink.write(record)

    def finish(self) -> Report:
        """Write the reports, once; what is still in flight is `unfinished`. Return the document."""
        if self._report is not None:
            return self._report
        now = self.clock()
        for record in list(self._open.values()):
            record.ended, record.outcome, record.error = now, UNFINISHED, ""
            self._sink.write(record)
        self._sink.__exit__()
        scenario = self.scenario
        if self.closed_loop:
            length = max(now - scenario.warmup_seconds, _LEAST_SECONDS)
            scenario = scenario.model_copy(update={"duration_seconds": length})
        facts = Facts(
            scenario=scenario,
            tool=CLOSED_LOOP if self.closed_loop else OPEN_LOOP,
            url=self.url,
            started_at=self._started_at,
            end_seconds=now,
            partial=not self.complete,
            shed=self.shed,
        )
        self._report = write(facts, self.folder)
        return self._report
