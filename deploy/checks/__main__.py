"""Render the chart with given values and check what comes out: `python -P -m deploy.checks [-f VALUES]`.

Exit code 0: nothing was found; 1: findings, one a line; 2: wrong values or usage.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from deploy.checks.chart import CHART, render
from deploy.checks.rules import check_rules
from deploy.checks.schemas import KUBERNETES, check_schemas
from deploy.checks.settings_schema import write_schema
from registry.errors import UsageError, WardrobeError


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, render and check; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m deploy.checks", description=__doc__)
    parser.add_argument("-f", "--values", type=Path, action="append", default=[], help="as helm's -f")
    parser.add_argument("--chart", type=Path, default=CHART, help="another chart's folder")
    parser.add_argument("--kubernetes", default=KUBERNETES, metavar="1.N", help=f"default {KUBERNETES}")
    parser.add_argument("--print", dest="show", action="store_true", help="print the objects too")
    parser.add_argument("--write-schema", action="store_true", help="bring values.schema.json up to date")
    options = parser.parse_args(arguments)
    if options.write_schema:
        print(write_schema())
        return 0
    try:
        return _check(options)
    except WardrobeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> int:
    values: dict[str, Any] = {}
    for path in options.values:
        values = _merge(values, _read(path))
    manifests = render(values, chart=options.chart)
    if options.show:
        print("---\n".join(yaml.safe_dump(dict(one.body), sort_keys=False) for one in manifests))
    findings = [*check_schemas(manifests, options.kubernetes), *check_rules(manifests)]
    for finding in findings:
        print(finding)
    kinds = Counter(one.kind for one in manifests)
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{len(manifests)} objects ({summary}): {len(findings)} findings", file=sys.stderr)
    return 1 if findings else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(str(path), f"cannot be read ({error})", "check -f") from error
    if not isinstance(found, dict):
        raise UsageError(str(path), "holds no map", "see values.yaml")
    return found


def _merge(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


if __name__ == "__main__":
    sys.exit(main())
