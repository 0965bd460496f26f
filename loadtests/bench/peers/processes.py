"""The peers as processes: how each is started before the mock, and what CPU time a process has used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.mock import ADAPTER
from loadtests.bench.peers.environments import PeerUnavailable, environment
from loadtests.live import becomes_ready, free_port

REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 90
_TICK = os.sysconf("SC_CLK_TCK")

LITELLM_CONFIG = {
    "litellm_settings": {"set_verbose": False, "callbacks": [], "num_retries": 0, "request_timeout": 600}
}
"""Without a database, callbacks or retries: what its documentation's own benchmark has."""

LITELLM_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # No other arm checks keys here either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


NGINX_CONFIG = """
daemon off; pid {folder}/pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 100000000;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
"""What any process in between costs: connections kept, chunks handed on at once, nothing read or written."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer: its port, and the process that leads its session."""

    port: int
    pid: int


@contextmanager
def vllm_router(upstream: int, cache: Path) -> Iterator[Peer]:
    """Run the Rust router as `deploy/router/start.sh` runs it, before the one port `upstream`."""
    programs, port = environment("vllm-router", cache), free_port()
    command = [str(REPOSITORY / "deploy" / "router" / "start.sh"), f"http://127.0.0.1:{upstream}"]
    settings = {
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "VLLM_ROUTER": str(programs / "vllm-router"),
    }
    with _running("vllm-router", command, settings, port, "/health") as peer:
        yield peer


@contextmanager
def litellm(upstream: int, cache: Path) -> Iterator[Peer]:
    """Run the LiteLLM proxy with one worker, as its documentation says for production, before `upstream`."""
    programs, port = environment("litellm", cache), free_port()
    target = {"model": f"openai/{ADAPTER}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": ADAPTER, "litellm_params": target}], **LITELLM_CONFIG}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(config, file)
        file.flush()
        command = [str(programs / "litellm"), "--config", file.name, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        with _running("litellm", command, LITELLM_ENVIRONMENT, port, "/health/liveliness") as peer:
            yield peer


@contextmanager
def nginx(upstream: int, _cache: Path) -> Iterator[Peer]:
    """Run the machine's nginx, where there is one, as a bare pass-through before `upstream`."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise PeerUnavailable("nginx", "is not installed", "apt-get install nginx-light")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, upstream=upstream))
        with _running("nginx", [program, "-c", str(config)], {}, port, "/") as peer:
            yield peer


@contextmanager
def _running(
    name: str, command: Sequence[str], settings: Mapping[str, str], port: int, ready: str
) -> Iterator[Peer]:
    """Run a command in a session of its own until the block ends.

    Raises: PeerUnavailable: with the end of its log, when it does not become ready.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if not becomes_ready(process, f"http://127.0.0.1:{port}{ready}", START_SECONDS):
                log.seek(0)
                said = "; ".join(log.read().strip().splitlines()[-3:])
                raise PeerUnavailable(name, f"did not answer within {START_SECONDS} s: {said}")
            yield Peer(port, process.pid)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session; one that has ended by itself is nothing to complain of."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def cpu_seconds(processes: Sequence[int]) -> float:
    """Return the CPU time, user and kernel, of these processes and of the sessions that they lead."""
    used = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (line := _stat(entry)):
            session, seconds = session_and_seconds(line)
            used += seconds if int(entry.name) in processes or session in processes else 0.0
    return used


def session_and_seconds(stat: str) -> tuple[int, float]:
    """Parse a line of /proc/PID/stat; the program's name may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[3]), (int(fields[11]) + int(fields[12])) / _TICK


def _stat(process: Path) -> str:
    try:
        return (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
