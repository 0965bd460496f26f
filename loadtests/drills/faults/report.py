"""The fault drill's report: JSON with everything, and a table per scene."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from loadtests.bench.results import FOLDER

JSON_FILE = FOLDER / "drill-faults.json"
TABLE_FILE = FOLDER / "drill-faults.md"
_ROOT = re.compile(r"/[\w/.-]*wardrobe-drill-\w+/(?:point|disk/root)")
_HEAD = """\
# The fault drill

`python -m loadtests.drills.faults`: the real vLLM with SmolLM2-135M on two shared cores, a root on a small
disk of its own, four users who ask and rate all the time, one whose key is revoked. `keys_stale_seconds` is
15 (default 30), `engine.hang_seconds` the default. Seconds include the `wardrobe` command where there is one.
"""


def write(reports: dict[str, Any]) -> None:
    """Write `reports` over the scenes of the same name."""
    FOLDER.mkdir(exist_ok=True)
    known = json.loads(JSON_FILE.read_text()) if JSON_FILE.exists() else {}
    dated = {name: {"at": time.strftime("%Y-%m-%d"), **one} for name, one in reports.items()}
    # Where the disk was mounted is this machine's alone.
    merged = json.loads(_ROOT.sub("ROOT", json.dumps({**known, **dated})))
    JSON_FILE.write_text(json.dumps(merged, indent=2) + "\n")
    TABLE_FILE.write_text(_HEAD + "".join(_section(name, one) for name, one in merged.items()))


def _section(name: str, one: dict[str, Any]) -> str:
    verdict = "passed" if one["passed"] else "FAILED"
    rows = "".join(
        f"| {row['what']} | {_cell(row['seen'])} | {row['bar']} | {'yes' if row['ok'] else '**no**'} |\n"
        for row in one["findings"]
    )
    told = "; ".join(dict.fromkeys(why for look in one["readyz"] for why in look["why"]))
    return (
        f"\n## {name}: {verdict}, {one['seconds']:.0f} s, {one['requests']} requests ({one['at']})\n\n"
        f"| what | seen | bar | held |\n|---|---|---|---|\n{rows}"
        + (f"\n`/readyz` said: {_cell(told)}\n" if told else "")
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
