"""Run the application on this machine, or on the Ray cluster that RAY_ADDRESS names.

    python -P -m deploy.ray --root wardrobe-data --replicas 2

SIGUSR1 restarts the replicas, one after the other. It ends with SIGTERM or SIGINT: the replicas finish what
they have. In a cluster that is there to stay, use `serve deploy deploy/ray/serve.yaml` instead.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import queue
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from deploy.ray.options import RayOptions
from registry.wording import fact_of

# Read by Ray at import: no reports home; requests go to all nodes' replicas alike; one whose adapter no
# replica is known to hold waits for that to be told no longer than a load takes (Ray's own: 1 s).
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0",
    "RAY_SERVE_MULTIPLEXED_MODEL_ID_MATCHING_TIMEOUT_S": "0.1",
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, run until told to stop, and return the exit code."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    host, port = given.pop("host"), given.pop("port")
    try:
        options = RayOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"{first['loc'][0]}: {fact_of(first)}")
    if not (options.root / "layout.json").is_file():
        print(f"error: {options.root}: is not a root; `wardrobe --root DIR init` makes one", file=sys.stderr)
        return 1
    if not _is_loopback(host) and not _has_keys(options):
        print(
            f"error: --host {host}: is reached from other machines and no key exists; `wardrobe keys create`",
            file=sys.stderr,
        )
        return 1
    return _run(options, host, port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -P -m deploy.ray", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the root that all share")
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder of the base model")
    parser.add_argument("--replicas", type=int, metavar="N", help="replicas (default 2)")
    parser.add_argument("--command", metavar="CMD", help="what starts a replica (default: wardrobe)")
    parser.add_argument("--vllm", metavar="OPTIONS", help="vLLM's own options, in one string")
    parser.add_argument("--cpus-per-replica", type=float, metavar="N")
    parser.add_argument("--gpus-per-replica", type=float, metavar="N")
    parser.add_argument(
        "--max-ongoing", type=int, metavar="N", help="requests at once of a replica (default 256)"
    )
    parser.add_argument(
        "--by-adapter",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask a replica that holds the adapter, else any (default: the former)",
    )
    parser.add_argument("--drain-seconds", type=float, metavar="S")
    parser.add_argument("--host", default="127.0.0.1", help="address of Ray's proxy (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port of Ray's proxy (default 8000)")
    return parser


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_keys(options: RayOptions) -> bool:
    command = [*shlex.split(options.command), "--root", str(options.root), "keys", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and '"id"' in done.stdout


def _run(options: RayOptions, host: str, port: int) -> int:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    from deploy.ray.app import build

    told = queue.SimpleQueue[int]()
    ray.init(include_dashboard=False, log_to_driver=True, logging_level="warning")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("stopped before the replicas were ready"))
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(build(options), name="wardrobe", route_prefix="/")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda told_number, _: told.put(told_number))
        print(f"ready on http://{host}:{port}  {options.replicas} replicas over {options.root}", flush=True)
        while told.get() == signal.SIGUSR1:
            _restart(options)
        print("stopping: the replicas finish what they have", flush=True)
        # A shutdown begins with the proxies, and would cut what they carry.
        serve.delete("wardrobe")
    except RuntimeError as error:
        # What a replica said as it ended is in the lines above: Ray passes its workers' on.
        print(
            f"error: ray: {str(error).splitlines()[0]}; see the replica's last words above", file=sys.stderr
        )
        return 1
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


def _restart(options: RayOptions) -> None:
    """Replace all replicas while they serve; where that fails, those that run go on."""
    from ray import serve

    from deploy.ray.app import build

    print("restarting: one replica after the other", flush=True)
    try:
        serve.run(build(options), name="wardrobe", route_prefix="/")
    except RuntimeError as error:
        print(f"error: ray: not restarted: {str(error).splitlines()[0]}", file=sys.stderr)
    else:
        print("restarted", flush=True)


if __name__ == "__main__":
    sys.exit(main())
