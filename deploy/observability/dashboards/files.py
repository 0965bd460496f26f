"""The dashboards as the files that Grafana's provisioning reads."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.observability.dashboards.adapter import ADAPTER
from deploy.observability.dashboards.fleet import FLEET
from deploy.observability.dashboards.rollout import ROLLOUT
from deploy.observability.dashboards.training import TRAINING

DASHBOARDS = (FLEET, ADAPTER, ROLLOUT, TRAINING)
FOLDER = Path(__file__).resolve().parent.parent / "grafana"


def render_files() -> dict[str, str]:
    """Return the text of each dashboard's file, by its name."""
    return {
        f"{one.uid}.json": json.dumps(one.render(), indent=1, ensure_ascii=False) + "\n" for one in DASHBOARDS
    }


def write_files(folder: Path = FOLDER) -> int:
    """Write them, take away those of dashboards that are no more, and return how many there are."""
    folder.mkdir(exist_ok=True)
    texts = render_files()
    for path in folder.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return len(texts)
