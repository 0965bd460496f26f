"""Debian's real Prometheus and Alertmanager on free ports, with the committed files and quicker clocks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.watching import FOLDER, filled, tool

PATIENCE = 40.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running one; `log` is what it printed."""

    url: str
    log: Path

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON of its API's answer."""
        return httpx.get(f"{self.url}{path}", params=query, timeout=10).raise_for_status().json()

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression is now (Prometheus)."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["data"]["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped (Prometheus)."""
        found: list[dict[str, Any]] = self.get("/api/v1/targets")["data"]["activeTargets"]
        return found

    def value(self, expression: str) -> float:
        """Return the one value of an expression, 0 where there is none."""
        found = self.ask(expression)
        return float(found[0]["value"][1]) if found else 0.0


def wait(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `condition()` is true."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def lay_out(folder: Path, *, server: str, alertmanager: str, key: str, node: str = "") -> Path:
    """Copy the committed files to `folder` with addresses, a key and clocks of a second; return the folder.

    Everything else stays as it is committed.
    """
    shutil.copytree(
        FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*_tests", "grafana")
    )
    (folder / "secrets").mkdir()
    for name in ("wardrobe-key", "wardrobe-admin-key"):
        (folder / "secrets" / name).write_text(key)
    _replace(folder / "targets" / "wardrobe.yml", "wardrobe:8000", server)
    if node:
        (folder / "targets" / "node.yml").write_text(f"- targets: ['{node}']\n")
    _replace(folder / "prometheus.yml", "alertmanager:9093", alertmanager)
    _replace(folder / "prometheus.yml", "_interval: 15s", "_interval: 1s")
    _replace(folder / "rules" / "slo.yml", "interval: 30s", "interval: 1s")
    _replace(folder / "alertmanager.yml", "wardrobe:8000", server)
    return folder


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} holds no {old!r} any more"
    path.write_text(text.replace(old, new))


@contextmanager
def prometheus(folder: Path, port: int) -> Iterator[Daemon]:
    """Run Prometheus over the files of `folder`."""
    own = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with _daemon("prometheus", port, folder / "prometheus.log", *own) as daemon:
        yield daemon


@contextmanager
def alertmanager(folder: Path, port: int) -> Iterator[Daemon]:
    """Run Alertmanager over the files of `folder`, in no cluster."""
    own = [f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'alerts'}"]
    with _daemon(
        "prometheus-alertmanager", port, folder / "alertmanager.log", *own, "--cluster.listen-address="
    ) as daemon:
        yield daemon


@contextmanager
def _daemon(name: str, port: int, log: Path, *options: str) -> Iterator[Daemon]:
    command = [tool(name), f"--web.listen-address=127.0.0.1:{port}", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    daemon = Daemon(f"http://127.0.0.1:{port}", log)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return httpx.get(f"{daemon.url}/-/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait(is_ready, f"{name} is ready")
        yield daemon
    finally:
        process.terminate()
        process.wait(20)


# What shows nothing where nothing went wrong: the queries hold one of these.
SILENT = (
    "wardrobe_upstream_retries_total", "wardrobe_rollback_duration_seconds", "wardrobe_rejections_total",
)  # fmt: skip


def empty_pictures(watch: Daemon, dashboard: Path, rolling: str) -> list[tuple[str, str]]:
    """Return title and expression of each query that stays without data; `rolling` has an open rollout."""
    adapter = rolling if dashboard.stem == "wardrobe-rollout" else ".*"
    asked = [
        (panel["title"], filled(target["expr"], adapter=adapter))
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(asked) >= 9
    empty = [one for one in asked if not any(name in one[1] for name in SILENT)]
    ends = time.monotonic() + PATIENCE
    while empty and time.monotonic() < ends:  # a recorded series is two evaluations behind
        empty = [one for one in empty if not watch.ask(one[1])]
        time.sleep(0.5)
    return empty


def address(url: str) -> str:
    """Return HOST:PORT of a URL."""
    return re.sub(r"^https?://", "", url)
