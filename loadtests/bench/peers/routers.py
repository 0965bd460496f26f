"""The routers' half: one mock API server reached directly, through our router, and through its peers.

    python -m loadtests.bench.peers routers [--rounds 5] [--seconds 2]

Ours answers inside the mock's process, as it does inside vLLM's; a peer is a process of its own before the
same mock. Every round drives all arms in turn and begins with another one; a figure compares an arm with
the direct one of the same round. CPU time is that of all servers in the arm, so it says what a request
costs however the cores are shared out. Writes bench-results/peers-routers.json and .md.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.mock import ADAPTER
from loadtests.bench.peers.answers import complaint
from loadtests.bench.peers.environments import PeerUnavailable, requirements
from loadtests.bench.peers.options import PeerOptions
from loadtests.bench.peers.processes import Peer, cpu_seconds, litellm, nginx, vllm_router
from loadtests.bench.peers.turns import (
    DIRECT,
    OURS,
    REFERENCE,
    LoadKind,
    Measured,
    RouterTurn,
    figures,
    notes,
    summary,
)
from loadtests.bench.results import publish
from loadtests.bench.router import mock_server
from loadtests.bench.wrk import drive, request_body

LOADS = tuple(LoadKind(kind, connections) for kind in ("json", "stream") for connections in (1, 16))
SETTLE_SECONDS = 0.2
"""After each turn: what a server still does for answers that have left counts as theirs."""

Start = Callable[[int, Path], AbstractContextManager[Peer]]

PEERS: dict[str, tuple[str, Start]] = {
    "vllm-router": ("vllm-router", vllm_router),
    "litellm": ("LiteLLM proxy", litellm),
}
"""By the name of the package: what the tables call it, and how it is started."""


@dataclass(frozen=True, slots=True)
class RouterArm:
    """A way to the mock: its port, and the processes that work for its answers."""

    name: str
    port: int
    processes: tuple[int, ...]


def run(options: PeerOptions) -> bool:
    """Measure all routers and publish; return whether all bars held and no peer was missing."""
    if shutil.which("wrk") is None:
        sys.stderr.write("error: wrk: is not installed; `apt-get install wrk`\n")
        return False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    with ExitStack() as stack:
        ports = stack.enter_context(mock_server())
        arms = own_arms(ports)
        missing = _start_peers(stack, arms, ports, options.cache)
        warm(arms)
        measured = measure(arms, LOADS, options)
    complete = not missing.keys() - {REFERENCE}
    if options.quick:
        print(summary(measured))
        return complete
    held = publish("peers-routers", figures(measured), notes=notes(missing), summary=summary(measured) + "\n")
    return held and complete


def own_arms(ports: dict[str, int]) -> list[RouterArm]:
    """Return the mock itself and our router around it, which share a process."""
    return [
        RouterArm(DIRECT, ports["bare"], (ports["pid"],)),
        RouterArm(OURS, ports["routed"], (ports["pid"],)),
    ]


def _start_peers(
    stack: ExitStack, arms: list[RouterArm], ports: dict[str, int], cache: Path
) -> dict[str, str]:
    """Start the peers and add them to `arms`; return why others are missing."""
    wanted: dict[str, Start] = {
        f"{title} {requirements(name)[name]}": start for name, (title, start) in PEERS.items()
    }
    missing = {}
    for label, start in {REFERENCE: nginx, **wanted}.items():
        try:
            peer = stack.enter_context(start(ports["bare"], cache))
        except PeerUnavailable as error:
            missing[label] = str(error)
            continue
        if wrong := complaint(peer.port):
            missing[label] = wrong
        else:
            arms.append(RouterArm(label, peer.port, (ports["pid"], peer.pid)))
    for label, reason in missing.items():
        sys.stderr.write(f"{label}: not measured: {reason}\n")
    return missing


def warm(arms: Sequence[RouterArm]) -> None:
    """Send every arm a second of either kind, so that nothing is loaded or compiled while it is measured."""
    for arm in arms:
        for kind in ("json", "stream"):
            drive(arm.port, request_body(ADAPTER, stream=kind == "stream"), 16, 1)


def measure(arms: Sequence[RouterArm], loads: Sequence[LoadKind], options: PeerOptions) -> Measured:
    """Drive all arms under every load, round by round; each round begins with another arm."""
    measured: Measured = {(load, arm.name): [] for load in loads for arm in arms}
    for number in range(options.rounds):
        first = number % len(arms)
        for load in loads:
            for arm in [*arms[first:], *arms[:first]]:
                measured[load, arm.name].append(_turn(arm, load, options.seconds))
        print(f"  round {number + 1} of {options.rounds}", flush=True)
    return measured


def _turn(arm: RouterArm, load: LoadKind, seconds: int) -> RouterTurn:
    before = cpu_seconds(arm.processes)
    run = drive(arm.port, request_body(ADAPTER, stream=load.kind == "stream"), load.connections, seconds)
    time.sleep(SETTLE_SECONDS)
    used = cpu_seconds(arm.processes) - before
    return RouterTurn(run, used * 1e6 / max(run.requests, 1))
