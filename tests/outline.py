"""Reads a page as a browser would: do its tags nest, and would it load or run anything?"""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "br", "input"}


class Outline(HTMLParser):
    """What a page opens and does not close, and what it would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        names = {name for name, _ in attrs}
        hostile = {name for name in names if name.startswith("on")} | names & {"src", "href", "style"}
        if tag in {"script", "link", "img", "iframe", "object", "form", "a"} or hostile:
            self.loads.append(f"{tag} {sorted(hostile)}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "line"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def assert_harmless(page: str) -> Outline:
    """Assert that a page is whole, loads and runs nothing, and asks the browser to hold it to that."""
    outline = Outline(page)
    assert outline.open == []
    assert outline.loads == []
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page
    return outline
