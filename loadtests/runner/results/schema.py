"""Write `report.schema.json`, the JSON schema of a report: `python -m loadtests.runner.results.schema`."""

from __future__ import annotations

import json
from pathlib import Path

from loadtests.runner.results.documents import Report

PATH = Path(__file__).with_name("report.schema.json")


def main() -> None:
    """Write the file."""
    PATH.write_text(json.dumps(Report.model_json_schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
