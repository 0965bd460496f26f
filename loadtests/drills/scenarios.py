"""The packaged scenarios on real servers of this machine: prepared, served, run, and summed up.

    python -m loadtests.drills.scenarios [--names bad-canary,swap-churn] [--set KEY=VALUE] [--full]
    python -m loadtests.drills.scenarios --scenes [--names churn,feedback]

Adapters are random weights of the base's shapes, on a root of its own. What a small machine cannot hold, or
what would take hours, is set otherwise (`SETTINGS`), and the result says so. The `scenes` beside this file
are the drills of churn and of every way in which a rollout can go; their adapters tell by their text which
one answered. `replica-loss` has two servers behind the Rust vllm-router, churn one with few places for
adapters; all others share one. Each run's folder goes to `load-results/drill-NAME`, a summary of all to
`bench-results/drill-scenarios.json` and `.md`; ends with 1 when one failed.
"""

from __future__ import annotations

import argparse
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
from loadtests.markers import marker_root
from loadtests.runner.loading import load_scenario
from loadtests.runner.results.documents import Report
from loadtests.runner.scenario import Scenario
from registry.store import Registry

OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "16", "--max-cpu-loras", "16")
# So few places that the churn loads and evicts all the time.
FEW = (*OPTIONS[:4], "--max-loras", "4", "--max-cpu-loras", "6")
LOSS, CHURN = "replica-loss", "churn"
SCENES = {path.stem: path for path in sorted((Path(__file__).parent / "scenes").glob("[!p]*.yaml"))}
"""The drills' own scenarios by name; beside them lie their policies."""
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
    parser.add_argument("--names", metavar="NAME,NAME")
    parser.add_argument("--scenes", action="store_true", help="the drills of churn and rollouts")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--full", action="store_true", help="as the files are: hours with the soak")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    every = list(SCENES if options.scenes else SETTINGS)
    names = options.names.split(",") if options.names else every
    if unknown := sorted(set(names) - set(every)):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(every)}")
    settings = {name: [*([] if options.full else SETTINGS.get(name, ())), *options.changes] for name in names}
    if options.full and "smoke" in settings:
        settings["smoke"] += SETTINGS["smoke"]
    # A plain SIGTERM would leave the servers and their root behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
            begin = play_scenes if options.scenes else play
            passed = [keep(one).passed for one in begin(Path(scratch), options.cache, settings)]
    except KeyboardInterrupt:
        print("interrupted: what had ended is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0 if all(passed) else 1


def play(scratch: Path, cache: Path, settings: Mapping[str, Sequence[str]]) -> Iterator[ScenarioResult]:
    """Run every scenario of `settings` with what is set for it, and yield what came out."""
    root = prepare(scratch, cache, list(settings))
    alone = [name for name in settings if name != LOSS]
    if alone:
        with Live.running(root, scratch / "serve.log", *OPTIONS, environment=ONE_THREAD) as live:
            yield from (run(root, name, settings[name], "--url", live.url) for name in alone)
    if LOSS in settings:
        with behind_router(Registry.open(root), scratch) as stage:
            admin = stage.replicas()[0].url
            yield run(root, LOSS, settings[LOSS], "--url", stage.url, "--admin-url", admin)


def play_scenes(
    scratch: Path, cache: Path, settings: Mapping[str, Sequence[str]]
) -> Iterator[ScenarioResult]:
    """Run every scene of `settings`, with the adapters that its `expect` names, and yield what came out."""
    root = scratch / "root"
    expected = {name: load_scenario(str(SCENES[name])) for name in settings}
    marker_root(root, cache, {one.adapters.models[0]: _versions(one) for one in expected.values()})
    for options, names in ((FEW, {CHURN}), (OPTIONS, settings.keys() - {CHURN})):
        if chosen := [name for name in settings if name in names]:
            log = scratch / f"serve-{chosen[0]}.log"
            with Live.running(root, log, *options, environment=ONE_THREAD) as live:
                yield from (run(root, name, settings[name], "--url", live.url) for name in chosen)


def _versions(scenario: Scenario) -> list[str]:
    """Return the marker adapters of versions 1 and 2; a version that must not answer has the first one's."""
    said = list(scenario.expect.values())
    return [one.lower() for one in (said if len(said) > 1 else said * 2)]


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
    done = wardrobe(
        root, "loadtest", "run", SCENES.get(name, name), "--out", folder, *server, *words, check=False
    )
    print(f"\n== {name} ==\n{done.stdout}{done.stderr}", flush=True)
    report = Report.model_validate_json((folder / "report.json").read_text())
    return outcome(name, report, changes, load)


if __name__ == "__main__":
    sys.exit(main())
