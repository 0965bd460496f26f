"""The packaged scenarios on real servers of this machine: prepared, served, run, and summed up.

    python -m loadtests.drills.scenarios [--names bad-canary,swap-churn] [--set KEY=VALUE] [--full]

Adapters are random weights of the base's shapes, on a root of its own. What a small machine cannot hold, or
what would take hours, is set otherwise (`SETTINGS`), and the result says so. `replica-loss` has two servers
behind the Rust vllm-router; all others share one. Each run's folder goes to `load-results/drill-NAME`, a
summary of all to `bench-results/drill-scenarios.json` and `.md`; ends with 1 when one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from loadtests.drills.outcomes import ScenarioResult, keep, outcome
from loadtests.drills.stages import ONE_THREAD, behind_router
from loadtests.live import Live, wardrobe
from loadtests.runner.loading import packaged
from loadtests.runner.results.documents import Report
from registry.store import Registry

OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "16", "--max-cpu-loras", "16")
LOSS = "replica-loss"
# A rollout is decided on the number of requests, not on their length.
_SHORT = ("prompts.tokens.mean=8", "max_tokens.mean=4")
SETTINGS: Mapping[str, Sequence[str]] = {
    "smoke": ("adapters.names=[load-000]",),
    "baseline": ("duration_seconds=40", "arrival.rate=0.8"),
    "many-adapters": ("duration_seconds=50", "arrival.rate=0.7"),
    "more-adapters-than-slots": ("duration_seconds=45",),
    "canary-ramp": ("duration_seconds=80", "actions.0.at_seconds=12", *_SHORT),
    "bad-canary": ("duration_seconds=52", "arrival.rate=6", *_SHORT),
    "swap-churn": ("duration_seconds=30", "warmup_seconds=4"),
    "soak": (
        "duration_seconds=70",
        "warmup_seconds=5",
        "arrival.stages=[{rate: 0.2, seconds: 25}, {rate: 0.4, seconds: 25}, {rate: 0.8, seconds: 12}]",
        "actions.0.every_seconds=15",
        "actions.1.every_seconds=20",
    ),
    LOSS: ("duration_seconds=60", "actions.0.at_seconds=25"),
}
"""What the drill sets otherwise than the scenario's file, in the order of the runs."""


def main() -> int:
    """Run the scenarios and return 1 when one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", default=",".join(SETTINGS), metavar="NAME,NAME")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--full", action="store_true", help="as the files are: hours with the soak")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    names = options.names.split(",")
    if unknown := sorted(set(names) - set(packaged())):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(packaged())}")
    settings = {name: [*([] if options.full else SETTINGS[name]), *options.changes] for name in names}
    if options.full and "smoke" in settings:
        settings["smoke"] += SETTINGS["smoke"]
    # A plain SIGTERM would leave the servers and their root behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
            passed = [keep(one).passed for one in play(Path(scratch), options.cache, settings)]
    except KeyboardInterrupt:
        print("interrupted: what had ended is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0 if all(passed) else 1


def play(scratch: Path, cache: Path, settings: Mapping[str, Sequence[str]]) -> Iterator[ScenarioResult]:
    """Run every scenario of `settings` with what is set for it, and yield what came out."""
    root = prepare(scratch, cache, list(settings))
    alone = [name for name in settings if name != LOSS]
    if alone:
        with _one_server(root, scratch) as url:
            yield from (run(root, name, settings[name], "--url", url) for name in alone)
    if LOSS in settings:
        with behind_router(Registry.open(root), scratch) as stage:
            admin = stage.replicas()[0].url
            yield run(root, LOSS, settings[LOSS], "--url", stage.url, "--admin-url", admin)


def prepare(folder: Path, cache: Path, names: Sequence[str]) -> Path:
    """Make a root with the adapters of all scenarios and return it."""
    base, root = cache / "smollm2-135m-instruct", folder / "root"
    wardrobe(cache, "base", "demo", base)
    wardrobe(root, "init", "--base", base)
    # smoke asks for an adapter of one's own; here it is one of baseline's.
    for name in dict.fromkeys("baseline" if name == "smoke" else name for name in names):
        print(wardrobe(root, "loadtest", "prepare", name).stdout, end="", flush=True)
    return root


def run(root: Path, name: str, changes: Sequence[str], *server: str) -> ScenarioResult:
    """Run one scenario, keep its folder, and return its summary."""
    folder = Path("load-results") / f"drill-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    load = os.getloadavg()[0]
    words = [word for change in changes for word in ("--set", change)]
    done = wardrobe(root, "loadtest", "run", name, "--out", folder, *server, *words, check=False)
    print(f"\n== {name} ==\n{done.stdout}{done.stderr}", flush=True)
    report = Report.model_validate_json((folder / "report.json").read_text())
    return outcome(name, report, changes, load)


@contextlib.contextmanager
def _one_server(root: Path, scratch: Path) -> Iterator[str]:
    live = Live.start(root, scratch / "serve.log", *OPTIONS, environment=ONE_THREAD)
    try:
        live.wait_ready()
        yield live.url
    finally:
        live.stop()


if __name__ == "__main__":
    sys.exit(main())
