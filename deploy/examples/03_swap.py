"""Register, promote and roll back under load: no request may fail or be answered by a wrong version.

    python deploy/examples/03_swap.py http://127.0.0.1:8000

Eight clients stream `medical` without pause meanwhile. Then the second version, which had more rows, answers
the held-out rows by its number.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from deploy.examples import session
from deploy.examples.clients import Crowd
from deploy.examples.scores import compare
from deploy.examples.session import wardrobe, wardrobe_json
from deploy.examples.tasks import DemoTask, medical_task
from deploy.examples.verdict import StableMove, SwapVerdict, judge

# Longer than a label, so that answers are open while a version is swapped.
OPTIONS = {"max_tokens": 24, "extra_body": {"ignore_eos": True}}


def main(arguments: Sequence[str]) -> int:
    """Swap, print the verdict, ask the second version."""
    (url,) = arguments
    made, task = session.made(), medical_task()
    verdict, second = asyncio.run(swap(url, task, made["medical"]["version"], made["better"]))
    session.keep(second=second)
    print("eight clients streaming: register, promote, roll back")
    print("\n".join(verdict.lines(task.name)))
    asyncio.run(ask_by_number(url, task, second, made["better"]["rows"]))
    return 0 if verdict.clean else 1


async def swap(url: str, task: DemoTask, first: int, better: dict[str, Any]) -> tuple[SwapVerdict, int]:
    """Do the three things under load; return the verdict and the new version's number."""
    moves = [StableMove(first, time.monotonic(), time.monotonic())]
    async with session.connect(url) as client, Crowd(client, task, OPTIONS) as crowd:
        await crowd.wait_answers(16)
        order = ("register", "medical", better["folder"], "--note", better["note"])
        second = int((await asyncio.to_thread(wardrobe_json, *order))["version"])
        print(f"registered medical@{second} while {len(crowd.asked)} answers had come")
        await crowd.wait_answers(16)
        moves.append(await move(second, "promote", f"medical@{second}"))
        await crowd.wait_answers(48)
        moves.append(await move(first, "rollback", "medical"))
        await crowd.wait_answers(48)
    return judge(crowd.asked, moves), second


async def move(version: int, *command: str) -> StableMove:
    """Run a command that makes `version` stable; return when it ran."""
    began = time.monotonic()
    await asyncio.to_thread(wardrobe, *command)
    print(f"wardrobe {' '.join(command)}")
    return StableMove(version, began, time.monotonic())


async def ask_by_number(url: str, task: DemoTask, number: int, rows: int) -> None:
    """Ask the version the held-out rows, beside the cheap methods on its own rows."""
    async with session.connect(url) as client:
        score = await session.score(client, f"{task.name}@{number}", task)
    print(f"{task.title}, after {rows} rows")
    print("\n".join(compare(f"{task.name}@{number}", score, task.train[:rows], task.held_out)))


if __name__ == "__main__":
    sys.exit(session.start(main))
