"""The drill of the migration.

    python -P -m loadtests.drills.migrate --base FOLDER [--kills 5] [--seed N]

An old provider (our own API) holds three jobs of 200 rows each. One command fetches, records, trains, judges
and serves them, is killed with SIGKILL at random moments, and begun again with the same words; once it gets a
Ctrl-C. Then it is counted: what was fetched, asked, trained or published twice. A client whose base_url alone
has changed asks the real server for the old names. Before that, each fault of an account and of a disk is
played once. The report goes to `bench-results/drill-migrate.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from loadtests.bench.results import write_drill
from loadtests.drills.migrate import faults
from loadtests.drills.migrate.command import THREADS, MigrationCommand
from loadtests.drills.migrate.figures import LONGEST_SECONDS, MigrationFigures, measure
from loadtests.drills.migrate.provider import Provider, provider
from loadtests.drills.migrate.tasks import TASKS
from loadtests.live import Live, wardrobe
from registry.store import Registry

BUDGET = 6_000
"""Tokens for 120 questions of at most 40: there is room for what the kills make it ask again, and no more."""
_FIRST_SECONDS = (2.0, 30.0)
"""When the first kill may come: while it fetches and records."""
_OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "4")
_TOLD_LINES = 400


def main() -> int:
    """Run the drill and say what came of it; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description="Take an account over by one command that is killed.")
    parser.add_argument("--base", type=Path, required=True, help="a normal model folder")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--span", type=float, default=420.0, help="seconds over which the kills are spread")
    parser.add_argument("--answer-seconds", type=float, default=0.5, help="how long an old model takes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-migrate-") as folder:
        report = json.dumps(play(Path(folder), asked)).replace(folder, "FOLDER")
        return write_drill("migrate", json.loads(report))


def play(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Play everything and return the report."""
    (folder / "old").mkdir()
    root = folder / "new"
    wardrobe(root, "init", "--base", asked.base)
    with provider(folder / "old", asked.answer_seconds) as old:
        print("faults", flush=True)
        (folder / "faults").mkdir()
        scenes = faults.play(faults.AccountStage(old, root, folder / "faults"))
        before = application(f"{old.url}/v1", old)
        old.door.asked.clear()
        old.models.asked.clear()
        print("migration", flush=True)
        figures, interruption = migrate(folder, root, old, asked)
        missed = figures.faults(asked.kills, len(TASKS))
        print(f"  {figures}\n  missed: {missed or 'nothing'}", flush=True)
        named = [one for one, verdict in figures.verdicts.items() if verdict == "pass"]
        command(folder, root, old, "--serve-anyway").finish()
        evals = import_evals(folder, root)
        with Live.running(root, folder / "serve.log", *_OPTIONS) as live:
            after = application(f"{live.url}/v1", old)
    missed += [f"the fault {one.name} was told wrongly" for one in scenes if not one.passed]
    missed += [f"{one} does not answer" for one in before if not after.get(one)]
    missed += [] if interruption["passed"] else ["Ctrl-C"]
    missed += [f"the eval of {one} was not imported" for one, good in evals.items() if not good]
    return {
        **dataclasses.asdict(figures),
        "interruption": interruption,
        "named_by_verdict": named,
        "answers_of_old_models": before,
        "answers_of_the_server": after,
        "evals": evals,
        "faults": [dataclasses.asdict(one) for one in scenes],
        "seed": asked.seed,
        "threads": os.environ.get(THREADS, "1"),
        "bars": {"seconds": LONGEST_SECONDS},
        "missed": missed,
        "passed": not missed,
    }


def command(folder: Path, root: Path, old: Provider, *more: str) -> MigrationCommand:
    """Return the one command."""
    words = ("--train", "--budget", str(BUDGET), *more)
    return MigrationCommand(old.url, old.key, folder / "out", root, folder / "migrate.log", words)


def migrate(
    folder: Path, root: Path, old: Provider, asked: argparse.Namespace
) -> tuple[MigrationFigures, dict[str, Any]]:
    """Run the command to its end through all kills and one Ctrl-C; return what was measured."""
    one = command(folder, root, old)
    began = time.monotonic()
    for moment in moments(asked.kills, asked.span, random.Random(asked.seed)):
        left = moment - (time.monotonic() - began)
        if not one.kill_after(max(1.0, left)):
            break
        print(f"  {time.monotonic() - began:.0f} s: killed during {one.kills[-1].during}", flush=True)
    interruption = interrupt(one)
    print(f"  {time.monotonic() - began:.0f} s: interrupted: {interruption}", flush=True)
    code, report = one.finish()
    seconds = time.monotonic() - began
    told = (folder / "migrate.log").read_text().splitlines()
    print("\n".join(f"    {line}" for line in told[-_TOLD_LINES:]), flush=True)
    print(f"  exit {code} after {seconds:.0f} s", flush=True)
    return measure(old, Registry.open(root), one.kills, report, BUDGET, seconds), interruption


def moments(kills: int, span: float, dice: random.Random) -> list[float]:
    """Return when the kills come, in seconds from the begin: one early, one in each part of the rest."""
    if not kills:
        return []
    first = dice.uniform(*_FIRST_SECONDS)
    part = (span - _FIRST_SECONDS[1]) / max(1, kills - 1)
    later = [dice.uniform(0, part) + _FIRST_SECONDS[1] + part * number for number in range(kills - 1)]
    return [first, *later]


def interrupt(one: MigrationCommand) -> dict[str, Any]:
    """Press Ctrl-C twenty seconds after the start; it has to end by itself, with a word."""
    with one.started() as process:
        time.sleep(20)
        if process.poll() is not None:
            return {"passed": False, "code": process.returncode}
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        seconds, code = round(time.monotonic() - began, 1), process.returncode
    said = [line for line in one.log.read_text().splitlines() if "the same command goes on" in line]
    return {"passed": code == faults.INTERRUPTED and bool(said), "code": code, "seconds": seconds}


def application(base_url: str, old: Provider) -> dict[str, str]:
    """Ask each fine-tuned model one question, as the application does; only `base_url` is ever another."""
    import openai

    answers = {}
    with openai.OpenAI(base_url=base_url, api_key=old.key, max_retries=0, timeout=120) as client:
        for task in TASKS:
            chat: Any = task.messages(task.pairs()[0][0])
            model = str(old.jobs[task.name].fine_tuned_model)
            said = client.chat.completions.create(model=model, messages=chat, temperature=0, max_tokens=40)
            answers[task.name] = said.choices[0].message.content or ""
    return answers


def import_evals(folder: Path, root: Path) -> dict[str, bool]:
    """Make a suite of each task's eval as the old provider exports it, a Promptfoo config."""
    found = {}
    for task in TASKS:
        config = folder / f"{task.name}.promptfoo.yaml"
        config.write_text(task.evals())
        suite = folder / f"{task.name}.yaml"
        done = wardrobe(root, "eval", "import", config, "-o", suite, check=False)
        items = suite.with_name(f"{task.name}.items.jsonl")
        found[task.name] = done.returncode == 0 and items.read_bytes().count(b"\n") == len(task.pairs()[-20:])
    return found


if __name__ == "__main__":
    sys.exit(main())
