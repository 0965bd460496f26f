"""Write the files of the dashboards: `python -m deploy.observability.dashboards`."""

from __future__ import annotations

from deploy.observability.dashboards.files import FOLDER, write_files

print(f"{FOLDER.name}: {write_files()} dashboards")
