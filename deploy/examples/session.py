"""What the examples share: the `wardrobe` command on one root, questions to one server, and what was made."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.examples.rows import DemoRow
from deploy.examples.scores import AccuracyScore
from deploy.examples.tasks import DemoTask
from registry.errors import NotFound, WardrobeError
from registry.home import at_home

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ROOT = at_home(os.environ.get("WARDROBE_ROOT") or "wardrobe-data").resolve()
"""The root, as the `wardrobe` command finds it too."""
FOLDER = ROOT / "demo"
"""Rows, configurations, and `made.json`: what an earlier example left for the next one."""

ANSWER_TOKENS = 12
COMMAND = Path(sys.executable).parent / "wardrobe"


def run(*command: str | Path, captured: bool = True) -> str:
    """Run a command and return what it printed, if `captured`; its progress and errors go to our stderr.

    It never waits for a keyboard, and hears of a Ctrl-C once and from us: a training takes a second one as
    "at once". After the first one it is waited for: a training writes a checkpoint behind its step.

    Raises: WardrobeError: when it fails.
    """
    pipe = subprocess.PIPE if captured else None
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, text=True, process_group=0
    ) as process:
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            try:
                process.wait()
            except KeyboardInterrupt:
                process.terminate()
            raise
    if process.returncode != 0:
        raise WardrobeError(" ".join(map(str, command)), f"ended with exit code {process.returncode}")
    return (printed or "").strip()


def wardrobe(*arguments: str | Path) -> str:
    """Run a `wardrobe` command on the root and return what it printed."""
    return run(COMMAND, *arguments)


def wardrobe_json(*arguments: str | Path) -> Any:
    """Run a `wardrobe` command with --json and return the parsed answer."""
    return json.loads(wardrobe(*arguments, "--json"))


def versions(adapter: str) -> dict[str, int]:
    """Return the live versions of `adapter` by their note; empty when there is no such adapter."""
    if adapter not in {entry["adapter"] for entry in wardrobe_json("list")}:
        return {}
    return {entry["note"]: entry["version"] for entry in wardrobe_json("show", adapter)["versions"]}


def made() -> dict[str, Any]:
    """Return what the earlier examples made.

    Raises: NotFound: they did not run on this root.
    """
    try:
        found: dict[str, Any] = json.loads((FOLDER / "made.json").read_text())
    except FileNotFoundError as error:
        raise NotFound(str(ROOT), "nothing was trained here", "run 01_train.py first") from error
    return found


def keep(**facts: object) -> None:
    """Add to what was made."""
    path = FOLDER / "made.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | facts, indent=1) + "\n")


def connect(url: str) -> AsyncOpenAI:
    """Return the official client without retries: a failure has to show."""
    import openai

    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


async def score(client: AsyncOpenAI, model: str, task: DemoTask, *, helped: bool = False) -> AccuracyScore:
    """Ask `model` every held-out row, 16 at a time; an answer that is not exactly the label is wrong.

    `helped`: the labels are listed in the prompt, and vLLM lets the model say nothing else.
    """
    turn = asyncio.Semaphore(16)

    async def is_right(row: DemoRow) -> bool:
        async with turn:
            said = await client.chat.completions.create(
                model=model,
                messages=task.helped_messages(row) if helped else task.messages(row),
                temperature=0,
                max_tokens=ANSWER_TOKENS,
                extra_body={"structured_outputs": {"choice": list(task.labels)}} if helped else {},
            )
        return (said.choices[0].message.content or "").strip() == row.label

    found = await asyncio.gather(*map(is_right, task.held_out))
    return AccuracyScore(sum(found), len(found))


def start(main: Callable[[Sequence[str]], int]) -> int:
    """Run an example and return its exit code: 130 after Ctrl-C or SIGTERM, 1 after an error."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what commands print comes between
    # A shell starts background jobs with SIGINT ignored; SIGTERM has to work there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except WardrobeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
