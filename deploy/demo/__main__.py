"""`python -m deploy.demo [--root DIR]`: what `make demo` runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.demo import report
from deploy.demo.data import DemoTask
from deploy.demo.story import Story
from deploy.demo.swap import SwapVerdict
from registry.errors import WardrobeError
from registry.home import at_home


def main() -> int:
    """Run the demo and return the exit code: 1 when a step failed or the swap was not clean."""
    options = _parse()
    # A shell starts background jobs with SIGINT ignored; SIGTERM has to work there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    story = Story(options.root.resolve(), Console(highlight=False))
    try:
        verdict = _play(story)
    except KeyboardInterrupt:
        story.console.print("stopped; what was finished is kept, and nothing is left running")
        return 130
    except WardrobeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _tell(story, verdict)
    return 0 if verdict.clean and not any(one.failures for one in story.rollouts) else 1


def _play(story: Story) -> SwapVerdict:
    story.prepare_root()
    story.prepare_data()
    story.train()
    server = story.serve()
    try:
        story.wait_ready(server)
        return asyncio.run(story.ask_all(server))
    finally:
        server.stop()


def _tell(story: Story, verdict: SwapVerdict) -> None:
    console = story.console
    results = sorted(story.results, key=lambda one: (_place(story, one.task), one.rows, one.cheap))
    console.print()
    console.print(report.accuracy_table(results))
    console.print("base, helped: labels listed in its prompt, and nothing else allowed as an answer")
    for sentence in report.conclusions(results):
        console.print(f"· {sentence}")
    console.print()
    console.print(report.swap_table(verdict, story.medical.name))
    if verdict.first_error:
        console.print(f"  first failure: {verdict.first_error}", markup=False)
    console.print()
    console.print(report.rollouts_table(story.rollouts))
    for outcome in story.rollouts:
        console.print(f"· {outcome.version}: {outcome.sentence}", markup=False)
        if outcome.first_error:
            console.print(f"  first failure: {outcome.first_error}", markup=False)
    console.print()
    console.print(report.steps_table(story.steps))
    console.print("The server is stopped; the root, the data and the trained adapters are kept.")
    config = story.folder / f"legal-{len(story.legal.train)}.json"
    report.print_next(console, story.root, story.medical.held_out[0].text, config)


def _place(story: Story, task: DemoTask) -> int:
    return story.tasks.index(task)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    default = at_home(os.environ.get("WARDROBE_ROOT") or "wardrobe-data")
    parser.add_argument("--root", type=Path, default=default, help="root of all state (default %(default)s)")
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # As Ctrl-C does: inside asyncio that cancels the questions instead of raising somewhere in its loop.
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
