"""Ask the base and the adapters what nobody trained on, beside cheap methods on the same rows.

    python deploy/examples/02_ask.py http://127.0.0.1:8000

The base gets every help: the labels are listed, and it may say nothing else. An adapter is asked plainly.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from deploy.examples import session
from deploy.examples.scores import compare, score_majority
from deploy.examples.tasks import DemoTask, legal_task, medical_task


def main(arguments: Sequence[str]) -> int:
    """Ask, compare, print."""
    (url,) = arguments
    made = session.made()
    print("right answers to held-out rows, with the 95 % interval")
    for task in (medical_task(), legal_task()):
        asyncio.run(ask(url, task, made["base"], **made[task.name]))
    return 0


async def ask(url: str, task: DemoTask, base: str, version: int, rows: int) -> None:
    """Ask the base and the adapter's stable version."""
    async with session.connect(url) as client:
        helped = await session.score(client, base, task, helped=True)
        adapter = await session.score(client, task.name, task)
    print(f"{task.title}, {len(task.labels)} labels")
    print(helped.line("base, helped"))
    print(score_majority(task.train, task.held_out).line("most frequent label"))
    print("\n".join(compare(f"{task.name}@{version}", adapter, task.train[:rows], task.held_out)))


if __name__ == "__main__":
    sys.exit(session.start(main))
