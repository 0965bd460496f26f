"""Write docs/reference: `make reference`."""

from __future__ import annotations

from deploy.reference.pages import FOLDER, PAGES, write_pages

changed = write_pages()
print(f"{FOLDER.name}: {len(PAGES)} pages, changed: {', '.join(changed) or 'none'}")
