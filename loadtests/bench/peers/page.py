"""The tables in docs/peers.md: the first table of each result file, between two marks."""

from __future__ import annotations

from pathlib import Path

from loadtests.bench.results import FOLDER
from registry.errors import NotFound

PAGE = Path("docs/peers.md")


def refresh(half: str, *, page: Path = PAGE, folder: Path = FOLDER) -> None:
    """Put the table of `bench-results/peers-HALF.md` into the page; without that file the page stays.

    Raises: NotFound: when the page has no place for it.
    """
    results = folder / f"peers-{half}.md"
    if not results.exists():
        return
    begin, end = marks(half)
    text = page.read_text()
    if begin not in text or end not in text:
        raise NotFound(str(page), f"has no {begin} and {end}", "put both lines where the table belongs")
    before, _, rest = text.partition(begin)
    table = first_table(results.read_text())
    page.write_text(f"{before}{begin}\n{table}{end}{rest.partition(end)[2]}")


def first_table(markdown: str) -> str:
    """Return the first run of lines that begin with a bar."""
    lines = markdown.splitlines(keepends=True)
    start = next((at for at, line in enumerate(lines) if line.startswith("|")), len(lines))
    stop = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    return "".join(lines[start:stop])


def marks(half: str) -> tuple[str, str]:
    """Return the lines before and after a half's table."""
    return f"<!-- {half} -->", f"<!-- /{half} -->"
