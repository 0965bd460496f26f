"""Two canary rollouts under load: a better version is promoted by itself, a bad one is rolled back.

    python deploy/examples/04_canary.py http://127.0.0.1:8000

The bad one has the weights of `legal`: well formed, and wrong for the task. No request may fail; the live
status is the product's own `wardrobe rollout status --watch`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.examples import session
from deploy.examples.clients import Crowd
from deploy.examples.session import FOLDER, wardrobe, wardrobe_json
from deploy.examples.tasks import DemoTask, medical_task

POLICY = Path(__file__).with_name("rollout.yaml")
OPTIONS = {"max_tokens": session.ANSWER_TOKENS}
WARM_ANSWERS = 40
"""Answers by stable before a rollout starts, so that there is something to compare with."""


def main(arguments: Sequence[str]) -> int:
    """Roll both out; return 1 unless the good one is promoted, the bad one is not, and nothing failed."""
    (url,) = arguments
    made, task = session.made(), medical_task()
    good = asyncio.run(roll_out(url, task, made["second"], "closed"))
    bad = asyncio.run(roll_out(url, task, register_wrong(made["legal"]["version"]), "rolled_back"))
    return 0 if good and bad else 1


def register_wrong(legal: int) -> int:
    """Register legal's weights as a version of medical; return its number."""
    folder = FOLDER / "wrong"
    if not folder.is_dir():
        wardrobe("export", f"legal@{legal}", folder)
    note = "trained on licences, by mistake"
    return int(wardrobe_json("register", "medical", folder, "--note", note)["version"])


async def roll_out(url: str, task: DemoTask, number: int, wanted: str) -> bool:
    """Roll a version out under load to its end; return True when it ended as `wanted` and nothing failed."""
    name = f"{task.name}@{number}"
    async with session.connect(url) as client, Crowd(client, task, OPTIONS) as crowd:
        await crowd.wait_answers(WARM_ANSWERS)
        began = time.monotonic()
        # The demo may run again on the day on which it took this version back.
        await asyncio.to_thread(wardrobe, "rollout", "start", name, "--policy", POLICY, "--force")
        await watch(task.name)
        seconds = time.monotonic() - began
    status = wardrobe_json("rollout", "status", task.name)
    print(f"{name}: {status['state']} ({status['reason']}) after {seconds:.0f} s: {decided(status)}")
    print(f"  answered by {crowd.answered_by()}; failed: {len(crowd.errors())}")
    for error in crowd.errors()[:1]:
        print(f"  first failure: {error}")
    if status["state"] != wanted:
        print(f"error: {name} was to end {wanted}; see `wardrobe rollout explain`", file=sys.stderr)
    return status["state"] == wanted and not crowd.errors()


async def watch(adapter: str) -> None:
    """Show the live status until the rollout is over."""
    command = (session.COMMAND, "rollout", "status", adapter, "--watch")
    # It ends with 1, and says so, when the version was taken back: here that may be what is wanted.
    quiet = subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stderr=quiet)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()


def decided(status: dict[str, Any]) -> str:
    """Return the sentence of the decision that promoted the version or took it back."""
    found = [one["sentence"] for one in status["decisions"] if one["event"] in {"promote", "guard"}]
    return str(found[-1] if found else status["sentence"])


if __name__ == "__main__":
    sys.exit(session.start(main))
