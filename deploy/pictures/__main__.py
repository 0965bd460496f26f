"""Write docs/pictures: `python -m deploy.pictures`, or with the rest of the reference `make reference`."""

from __future__ import annotations

from deploy.pictures.files import FOLDER, PICTURES, write_pictures

changed = write_pictures()
print(f"{FOLDER.name}: {len(PICTURES)} pictures, changed: {', '.join(changed) or 'none'}")
