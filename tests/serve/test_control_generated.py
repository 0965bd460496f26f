"""A client that openapi-python-client makes from the admin API's document, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from serve.control.app import control_schema
from tests.fakes.control import admin_server
from tests.fakes.driving import make_root

CALLS = """
import json, sys

from client import AuthenticatedClient
from client.api.adapters import list_adapters, remove_alias, set_alias, show_adapter
from client.api.operations import show_status
from client.api.rollouts import abort_rollout, plan_rollout, show_rollout, start_rollout
from client.models import (
    ErrorDocument, ErrorMetric, MoveRequest, Policy, PolicyMetrics, RampStep, StartRequest, WhyRequest,
)

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2]) as client:
    steps = [RampStep(weight=1_000, min_units=10, min_seconds=1.0)]
    policy = Policy(steps=steps, metrics=PolicyMetrics(errors=ErrorMetric(margin=1.5), latency=None))
    plan = plan_rollout.sync("support", client=client, body=StartRequest(version=2, policy=policy))
    started = start_rollout.sync("support", client=client, body=StartRequest(version=2, policy=policy))
    status = show_rollout.sync("support", client=client)
    ended = abort_rollout.sync("support", client=client, body=WhyRequest(why="a test"))
    moved = set_alias.sync("support", "night", client=client, body=MoveRequest(version=1))
    removed = remove_alias.sync("support", "night", client=client)
    missing = show_adapter.sync("nobody", client=client)
    assert isinstance(missing, ErrorDocument)
    found = {
        "adapters": [one.adapter for one in list_adapters.sync(client=client).adapters],
        "metrics": [one.metric for one in plan.metrics],
        "canary": started.status.canary,
        "states": [status.state, ended.state],
        "moves": [moved.version, removed.version],
        "code": missing.error.code,
        "auth": show_status.sync(client=client).auth,
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder that the generator wrote into, and what it said."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(json.dumps(control_schema()))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document)]
    options = ["--meta", "none", "--output-path", str(folder / "client"), "--fail-on-warning"]
    # It formats what it wrote with the ruff that it finds on the path.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*command, *options], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_the_generator_leaves_nothing_out(generated: tuple[Path, str]) -> None:
    folder, said = generated
    assert "warning" not in said.lower()
    models = {path.stem for path in (folder / "client/models").glob("*.py")}
    assert models >= {"policy", "policy_metrics", "start_request", "error_document"}


def test_the_generated_client_starts_a_rollout_and_moves_an_alias(
    generated: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = generated
    registry = make_root(tmp_path)
    _, token = KeyStore(registry.root).create([Scope.ADMIN], who="tester")
    with admin_server(registry.root) as url:
        done = subprocess.run(
            [sys.executable, "-c", CALLS, url, token],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "adapters": ["raw", "support"],
        "metrics": ["errors", "feedback", "format"],
        "canary": "support@2",
        "states": ["preloading", "rolled_back"],
        "moves": [1, None],
        "code": "not_found",
        "auth": True,
    }
