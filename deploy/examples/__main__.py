"""Run the examples in order, with one server: `python -m deploy.examples [--root DIR]`, or `make demo`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.examples import session
from deploy.examples.tasks import medical_task
from loadtests.live import Live

SCRIPTS = sorted(Path(__file__).parent.glob("0*.py"))
# The whole of a held-out answer fits easily; a smaller cache starts faster.
SERVER_OPTIONS = ("--max-model-len", "1024")


def main(arguments: Sequence[str]) -> int:
    """Run all; a promise that is not kept ends it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.examples", description=__doc__)
    parser.add_argument("--root", type=Path, default=session.ROOT, help="root of all state (%(default)s)")
    root = parser.parse_args(arguments).root.resolve()
    os.environ["WARDROBE_ROOT"] = str(root)
    began = time.monotonic()
    first, *others = SCRIPTS
    try:
        play(first)
        server = Live.start(root, root / "demo" / "server.log", *SERVER_OPTIONS)
        try:
            print("== wardrobe serve: vLLM starts, about a minute", flush=True)
            print(f"   at {server.url}, ready after {server.wait_ready(600):.0f} s")
            for script in others:
                play(script, server.url)
        finally:
            server.stop()
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and nothing is left running")
        return 130
    print(f"all: {time.monotonic() - began:.0f} s. The server is stopped; root, data and adapters are kept.")
    question = medical_task().held_out[0].text
    print("\n".join(["To try next (with .venv/bin on the PATH)", *next_commands(root, question)]))
    return 0


def play(script: Path, *arguments: str) -> None:
    """Run one example and say how long it took.

    Raises: WardrobeError: when it ends with another code than 0.
    """
    print(f"== {script.name}", flush=True)
    began = time.monotonic()
    session.run(sys.executable, "-P", script, *arguments, captured=False)
    print(f"   {time.monotonic() - began:.0f} s", flush=True)


def next_commands(root: Path, question: str) -> list[str]:
    """Return commands to try."""
    messages = [{"role": "system", "content": "ICD-10 chapter?"}, {"role": "user", "content": question}]
    body = shlex.quote(json.dumps({"model": "medical", "messages": messages}))
    there = root == Path("wardrobe-data").resolve()
    wardrobe = "wardrobe" if there else f"wardrobe --root {shlex.quote(str(root))}"
    return [
        f"  {wardrobe} serve                          # start the server again, on port 8000",
        f"  curl -s localhost:8000/v1/chat/completions -H 'content-type: application/json' -d {body}",
        f"  {wardrobe} promote medical@2              # move stable; rollback undoes it",
        f"  {wardrobe} show medical@1 --json          # data hash, config, seed, losses",
        f"  {wardrobe} history medical                # what was live when, by whom and why",
        f"  {wardrobe} rollout explain medical        # why the last canary was taken back",
        f"  {wardrobe} train run {root / 'demo' / 'legal-600.yaml'}",
        f"  {wardrobe} status",
    ]


if __name__ == "__main__":
    sys.exit(session.start(main))
