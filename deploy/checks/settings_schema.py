"""The part `settings` of the chart's values.schema.json, made from the server's own settings.

`python -P -m deploy.checks --write-schema` writes it; a test says when that was forgotten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.checks.chart import CHART
from serve.settings import ServeSettings

OWNED_BY_CHART = frozenset({"root", "host", "port", "model", "replica", "drain_seconds", "insecure_no_auth"})
"""Settings with a value of their own elsewhere in the chart."""


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the chart's schema with `settings` as the server has them now."""
    made = _without_titles(ServeSettings.model_json_schema())
    properties = {name: one for name, one in made["properties"].items() if name not in OWNED_BY_CHART}
    settings = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        **schema,
        "$defs": {**schema["$defs"], **made["$defs"]},
        "properties": {**schema["properties"], "settings": settings},
    }


def schema_path(chart: Path = CHART) -> Path:
    """Return the file."""
    return chart / "values.schema.json"


def rendered(schema: dict[str, Any]) -> str:
    """Return the file's text."""
    return json.dumps(schema, indent=2) + "\n"


def write_schema() -> Path:
    """Bring the file up to date and return it."""
    path = schema_path()
    path.write_text(rendered(with_settings(json.loads(path.read_text()))))
    return path


def _without_titles(value: Any) -> Any:
    """Drop what pydantic adds for forms: titles, and defaults, which are the server's to set."""
    if isinstance(value, dict):
        return {key: _without_titles(one) for key, one in value.items() if key not in {"title", "default"}}
    return [_without_titles(one) for one in value] if isinstance(value, list) else value
