"""Adapter traffic for locust.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --adapters a,b -u 8 -t 60s --headless

`--shape step|spike|soak` lets users come and go (the peak is -u). With `--scenario FILE` the runner's own
plan is sent, open loop, whatever -u says. Locust's tables show TTFT, TPOT and E2E by adapter and arm; its
aggregated row is the requests (E2E) alone. Our own report (JSON, Markdown, HTML, JUnit, raw requests) is
written beside them, and decides locust's exit code where there is a scenario.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from geventhttpclient.client import HTTPClientPool
from locust import FastHttpUser, LoadTestShape, events, task

from loadtests.runner.plan import ArrivalPlan
from loadtests.runner.records import RequestRecord
from loadtests.swarm.asking import ask
from loadtests.swarm.journal import SwarmJournal
from loadtests.swarm.options import SwarmOptions, add_options, scenario_of
from loadtests.swarm.shapes import users_at
from registry.errors import WardrobeError

_DEFAULT_SECONDS = 60.0
_NETWORK_SECONDS = 600.0


class SwarmRun:
    """What the users of one test share: the plan, the journal, the options."""

    def __init__(self, environment: Any) -> None:
        options: SwarmOptions = environment.parsed_options
        self.options = options
        scenario = scenario_of(options)
        self.plan = ArrivalPlan(scenario)
        folder = Path(options.report) if options.report else None
        closed = not options.scenario
        self.journal = SwarmJournal(scenario, environment.host or "", folder, closed_loop=closed)
        self.numbers = itertools.count()


class AdapterUser(FastHttpUser):
    """Asks an adapter, waits for the whole answer, and asks again."""

    network_timeout = _NETWORK_SECONDS

    def wait_time(self) -> float:
        """Return how long the user thinks."""
        return float(self.environment.parsed_options.think_seconds)

    @task
    def ask(self) -> None:
        """Ask once."""
        run: SwarmRun = self.environment.wardrobe_run
        planned = run.plan[next(run.numbers) % len(run.plan)]
        ask(self.client, self.environment.stats, run.journal, planned, run.options.api_key)


class ScenarioUser(FastHttpUser):
    """Sends a scenario's whole plan, each request when it is due; there is one such user."""

    fixed_count = 1
    network_timeout = _NETWORK_SECONDS
    client_pool = HTTPClientPool(concurrency=10_000)

    @task
    def send_the_plan(self) -> None:
        """Begin every request in time, wait for the last answer, and end the test."""
        run: SwarmRun = self.environment.wardrobe_run
        pool = Pool()
        for planned in run.plan:
            gevent.sleep(max(0.0, planned.at - run.journal.clock()))
            if len(pool) >= run.journal.scenario.max_in_flight:
                self._refuse(run, RequestRecord(planned.index, planned.at, planned.model, 0, planned.stream))
                continue
            pool.spawn(ask, self.client, self.environment.stats, run.journal, planned, run.options.api_key)
        pool.join()
        run.journal.complete = True
        gevent.spawn(self.environment.runner.quit)
        gevent.sleep(_NETWORK_SECONDS)

    @staticmethod
    def _refuse(run: SwarmRun, record: RequestRecord) -> None:
        record.sent = record.ended = run.journal.clock()
        record.fail("shed", f"{run.journal.scenario.max_in_flight} in flight already (max_in_flight)")
        run.journal.shed += 1
        run.journal.keep(record)


class _Shape(LoadTestShape):
    """Lets users come and go as `--shape` says; -u is the peak, -t the whole time."""

    abstract = True  # locust would take it for every test; it is chosen by --shape below

    def __init__(self, shape: str, seconds: float, peak: int) -> None:
        super().__init__()
        self.shape, self.seconds, self.peak = shape, seconds, peak

    def tick(self) -> tuple[int, float] | None:
        """Return the users wanted now and how fast to get there, None at the end."""
        users = users_at(self.shape, self.get_run_time(), self.seconds, self.peak)
        return None if users is None else (users, float(max(self.peak, 1)))


@events.init_command_line_parser.add_listener
def _options(parser: Any, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _init(environment: Any, **_: Any) -> None:
    # NOTE: gevent counts from the loop's last turn, and there was none while all this was imported: on a slow
    # machine locust's run time would be over at its start.
    gevent.get_hub().loop.update_now()
    options = environment.parsed_options
    try:
        scenario_of(options)
    except WardrobeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    environment.user_classes = [ScenarioUser if options.scenario else AdapterUser]
    if options.shape != "none" and not options.scenario:
        shape = _Shape(options.shape, options.run_time or _DEFAULT_SECONDS, options.num_users or 1)
        shape.runner = environment.runner
        environment.shape_class = shape


@events.test_start.add_listener
def _start(environment: Any, **_: Any) -> None:
    environment.wardrobe_run = SwarmRun(environment)


@events.test_stop.add_listener
def _stop(environment: Any, **_: Any) -> None:
    _finish(environment)


@events.quitting.add_listener
def _quit(environment: Any, **_: Any) -> None:
    _finish(environment)


def _finish(environment: Any) -> None:
    run: SwarmRun | None = getattr(environment, "wardrobe_run", None)
    if run is None:
        return
    report = run.journal.finish()
    if run.options.scenario:
        environment.process_exit_code = 0 if report.passed else 1
    print(f"report: {run.journal.folder / 'report.html'}", file=sys.stderr)
    environment.wardrobe_run = None
