"""The observability files as tests read them, and Debian's tools that judge them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "observability"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
RULE_TESTS = sorted((FOLDER / "rules_tests").glob("*.yml"))
GRAFANA = sorted((FOLDER / "grafana").glob("*.json"))

# What stands for Grafana's variables where an expression is parsed or asked.
VALUES = {"$__rate_interval": "5m", "$__range": "1h"}


def tool(name: str) -> str:
    """Return the path of a tool; CI must have it, a developer's machine need not."""
    found = shutil.which(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    assert found is not None, f"{name} is not installed: see the packages of .ci/run"
    return found


def run(
    name: str, *arguments: str | Path, cwd: Path | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a tool on what it is `given` and return what it printed."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=cwd)


def rules() -> list[dict[str, Any]]:
    """Return every rule of every file."""
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    """Return the rules that are alerts."""
    return [rule for rule in rules() if "alert" in rule]


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield every selector of an expression.

    Raises: ValueError: it does not parse.
    """
    found: list[promql_parser.VectorSelector] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    yield from found


def filled(expression: str, **values: str) -> str:
    """Return an expression with Grafana's variables replaced; one that is not given is `.*`."""
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], ".*"), expression)
