"""The balancers drill: two real replicas over one root behind the Rust vllm-router, or behind Ray Serve.

    python -m loadtests.drills.balancers router
    python -m loadtests.drills.balancers ray

What is registered once must be served by both (asked by `python -m deploy.verify`, as a user would), and
under streaming load a rollout's step, and its abort, must decide on both within a second. Then one replica's
engine is killed with -9, one replica's launcher likewise (only what was being answered there may fail, and it
must come back by itself; behind the router the drill is the supervisor), and all replicas are restarted one
after the other (nothing may fail). The report goes to `bench-results/drill-balancer-NAME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.bench.results import write_drill
from loadtests.drills import acts
from loadtests.drills.stages import BALANCERS, OPTIONS, REPLICAS, REPOSITORY, BalancedStage, LiveReplica
from loadtests.markers import marker_root
from registry.foreign import python
from registry.store import Registry

LIMITS = (
    "One machine: balancer, replicas and clients share its cores, so times are longer than where each has "
    "its own; SmolLM2-135M on the CPU, uncompiled, one thread per engine; no network between them."
)

PARTS = ("fleet", "steps", "engine_killed", "launcher_killed", "rolling_restart")


def play(name: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Play the drill behind the balancer `name` and return the report."""
    adapters = marker_root(folder / "root", cache, {"before": ("alpha",), "step": ("alpha", "alpha")})
    report: dict[str, Any] = {"passed": False, "balancer": name, **_circumstances()}
    started = time.monotonic()
    with BALANCERS[name](Registry.open(folder / "root"), folder) as stage:
        stage.wait(lambda: len(stage.replicas()) == REPLICAS, "both replicas are ready")
        report["ready_seconds"] = round(time.monotonic() - started, 1)
        report["fleet"] = _say(_verify(stage, adapters["bravo"]))
        report["steps"] = _say([_row(move) for move in acts.step(stage, "step")])
        for part, process in (("engine_killed", _engine), ("launcher_killed", _launcher)):
            report[part] = _say([_row(acts.lose(stage, "before", process))])
        report["rolling_restart"] = _say([_row(acts.roll(stage, "before"))])
    report["passed"] = all(row["kept"] for part in PARTS for row in report[part])
    return report


def _engine(replica: LiveReplica) -> int:
    return replica.engine


def _launcher(replica: LiveReplica) -> int:
    return replica.launcher


def _verify(stage: BalancedStage, adapter: Path) -> list[dict[str, Any]]:
    command = python("-m", "deploy.verify", "fleet", "--adapter", str(adapter), "--json")
    command += [word for replica in stage.replicas() for word in ("--replica", replica.url)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if not done.stdout:
        raise SystemExit(f"error: deploy.verify: exit {done.returncode}: {done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _row(act: acts.WeightChange | acts.Loss | acts.Rolling) -> dict[str, Any]:
    return {"kept": act.kept, **asdict(act)}


def _say(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def _circumstances() -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cpus": os.cpu_count(), "memory_gib": round(memory), "machine": platform.machine()},
        "limits": LIMITS,
        "settings": {"replicas": REPLICAS, "clients": acts.CLIENTS, "vllm": " ".join(OPTIONS)},
    }


def main() -> int:
    """Play the drill, write the report, and return 1 when it failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("balancer", choices=sorted(BALANCERS))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the root and all logs")
    options = parser.parse_args()
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by SIGTERM"))
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="wardrobe-drill-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        report = play(options.balancer, folder.absolute(), REPOSITORY / ".cache")
    return write_drill(f"balancer-{options.balancer}", report)


if __name__ == "__main__":
    sys.exit(main())
