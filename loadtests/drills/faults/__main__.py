"""The fault drill, on the real vLLM under traffic.

    python -m loadtests.drills.faults [--scenes away,read_only,full,engine,evidence,door]

A root that is away, read-only or full, a stopped engine, hostile callers; in each a key is revoked. It needs
Linux and the right to mount. The report goes to `bench-results/drill-faults.json` and `.md`; scenes that were
not played this time keep their last one. Each wait is bounded; all scenes take about ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtests.drills.faults import door, report, scenes
from loadtests.drills.faults.stage import KEYS_STALE_SECONDS, play
from loadtests.drills.faults.volume import Volume, may_mount, start_again_inside, volume
from loadtests.live import Live, wardrobe_json
from loadtests.markers import marker_root

OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "2", "--max-cpu-loras", "4")
SCENES = {
    "away": scenes.away,
    "read_only": scenes.read_only,
    "full": scenes.full,
    "engine": scenes.engine,
    "evidence": scenes.evidence,
    "door": door.door,
}
ENVIRONMENT = {
    "WARDROBE_KEYS_STALE_SECONDS": str(KEYS_STALE_SECONDS),
    "WARDROBE_LIMITS__TOTAL_SECONDS": "80",
    "WARDROBE_LIMITS__MAX_CONCURRENCY": "16",
}


def main() -> int:
    """Run the drill and return 1 when a scene failed, 2 where it cannot run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    if unknown := set(options.scenes.split(",")) - SCENES.keys():
        parser.error(f"no scene {', '.join(sorted(unknown))}; there are {', '.join(SCENES)}")
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
        folder = Path(scratch)
        if not may_mount(folder):
            return start_again_inside()
        with volume(folder) as disk:
            reports = _play(options.scenes.split(","), folder, disk, options.cache)
    report.write(reports)
    return 0 if reports and all(one["passed"] for one in reports.values()) else 1


def _play(names: list[str], folder: Path, disk: Volume, cache: Path) -> dict[str, Any]:
    marker_root(disk.point, cache, {_adapter(name): ("alpha",) * 3 for name in names})
    admin = wardrobe_json(disk.point, "keys", "create", "--scope", "admin")["token"]
    log = folder / "serve.log"
    reports: dict[str, Any] = {}
    try:
        with Live.running(disk.point, log, *OPTIONS, environment=ENVIRONMENT) as live:
            for name in names:
                print(f"scene {name}", flush=True)
                reports[name] = asyncio.run(play(SCENES[name], live, disk, admin, _adapter(name)))
    finally:
        if not reports or not all(one["passed"] for one in reports.values()):
            print(log.read_text()[-6000:], end="")
    return reports


def _adapter(scene: str) -> str:
    return scene.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
