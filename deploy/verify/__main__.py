"""Check a running deployment: `python -P -m deploy.verify fleet …` and `python -P -m deploy.verify load …`.

`fleet` asks replicas by their own addresses whether they know and decide alike. `load` streams through a
balancer until told to stop (Ctrl-C ends it early), and counts the answers that were cut or refused; kill or
restart replicas meanwhile. Exit code 0: all promises kept; 1: one was not; 2: wrong usage. WARDROBE_KEY is
the key, of scope admin for `fleet`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from deploy.verify.fleet import Fleet, FleetFinding
from deploy.verify.load import LoadRun

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, check, and return the exit code."""
    options = _parser().parse_args(arguments)
    key = os.environ.get("WARDROBE_KEY", "")
    findings = _fleet(options, key) if options.what == "fleet" else _load(options, key)
    try:
        return 0 if _tell(findings, as_json=options.json) else 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -P -m deploy.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="what", required=True)
    fleet = verbs.add_parser("fleet", help="register once, served by all; a step applies everywhere")
    fleet.add_argument(
        "--replica", action="append", required=True, type=_url, metavar="URL", help="one per replica"
    )
    fleet.add_argument(
        "--adapter", type=_adapter, required=True, metavar="DIR", help="a PEFT folder for the base"
    )
    fleet.add_argument(
        "--name", default=f"verify-{secrets.token_hex(3)}", help="the adapter's name in the root"
    )
    fleet.add_argument("--patience", type=float, default=120, metavar="S", help="for loading (default 120)")
    load = verbs.add_parser("load", help="stream through a balancer and count what fails")
    load.add_argument("--url", required=True, type=_url, help="the balancer")
    load.add_argument("--model", required=True, help="an adapter, or the base's served name")
    load.add_argument("--seconds", type=float, default=60, metavar="S", help="how long (default 60)")
    load.add_argument("--stop-file", type=Path, metavar="FILE", help="end as soon as this file exists")
    load.add_argument("--clients", type=int, default=4, metavar="N", help="streams at a time (default 4)")
    load.add_argument("--max-tokens", type=int, default=64, metavar="N", help="per stream (default 64)")
    load.add_argument("--allow", type=int, default=0, metavar="N", help="failures that are none (default 0)")
    for verb in (fleet, load):
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with http:// or https://")
    return text.rstrip("/")


def _adapter(text: str) -> Path:
    if not (folder := Path(text)).joinpath("adapter_config.json").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no PEFT folder: it has no adapter_config.json")
    return folder


def _fleet(options: argparse.Namespace, key: str) -> Iterable[FleetFinding]:
    return Fleet(options.replica, key, options.name, options.adapter, options.patience).check()


def _load(options: argparse.Namespace, key: str) -> Iterable[FleetFinding]:
    body = {
        "model": options.model,
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": options.max_tokens,
    }
    headers = {"authorization": f"Bearer {key}"} if key else {}
    end = time.monotonic() + options.seconds
    with LoadRun(options.url, body, headers, options.clients) as load, contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < end and not (options.stop_file and options.stop_file.exists()):
            time.sleep(0.1)
    failed = load.failed()
    faults = Counter(stream.fault for stream in failed)
    seen = f"{len(load.streams)} streams, {faults.total()} failed {dict(faults) or ''}".rstrip()
    if failed and failed[0].text:
        seen += f"; the first said {failed[0].text[-200:].strip()}"
    kept = faults.total() <= options.allow and len(load.streams) > faults.total()
    yield FleetFinding(f"at most {options.allow} streams fail", kept, seen)


def _tell(findings: Iterable[FleetFinding], *, as_json: bool) -> bool:
    """Print each finding when it is there, as JSON all at the end; return whether every promise was kept."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            print(f"{'ok' if finding.kept else '!!'}  {finding.promise}: {finding.seen}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return all(finding.kept for finding in found)


if __name__ == "__main__":
    sys.exit(main())
