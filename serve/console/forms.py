"""Forms as browsers send them: small, of text only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qs

from starlette.requests import Request

from registry.errors import UsageError

ROWS = 50
"""The rows of one kind that a page holds at most."""

_FIELDS = 100
_LONGEST_SEARCH = 100
_LARGEST_NUMBER = 999_999_999


_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class SentForm:
    """The fields of a form, or of a query; one may come several times."""

    fields: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """Return a field without spaces around it, '' when it was not sent."""
        found = self.fields.get(name, ())
        return found[0].strip() if found else ""

    def texts(self, name: str) -> list[str]:
        """Return every value of a field."""
        return list(self.fields.get(name, ()))

    def number(self, name: str) -> int:
        """Return a field that is a whole number from 1 on.

        Raises: UsageError.
        """
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= _LARGEST_NUMBER):
            raise UsageError(
                name, f"{text[:40]!r} is no number of a version", "write for instance 3", param=name
            )
        return int(text)


async def read_form(request: Request) -> SentForm:
    """Return the form that a request holds.

    Raises: UsageError: it has too many fields.
    """
    return _parse((await request.body()).decode("utf-8", "replace"))


def read_query(request: Request) -> SentForm:
    """Return the fields of an address.

    Raises: UsageError: it has too many fields.
    """
    return _parse(request.url.query)


def search_text(request: Request) -> str:
    """Return what is searched for, in small letters."""
    return request.query_params.get("q", "").strip().lower()[:_LONGEST_SEARCH]


def cut(found: Sequence[_Row], request: Request) -> tuple[Sequence[_Row], dict[str, object]]:
    """Return the rows of the page of a list that is asked for, and what its pager shows."""
    number = _page_number(request)
    first = (number - 1) * ROWS
    return found[first : first + ROWS], {"page": number, "more": len(found) > first + ROWS}


def _page_number(request: Request) -> int:
    """Return which page of a list is asked for, from 1 on; the first where that is not said well."""
    text = request.query_params.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1


def _parse(text: str) -> SentForm:
    try:
        return SentForm(parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS))
    except ValueError as error:
        raise UsageError("form", f"has more than {_FIELDS} fields", "send fewer") from error
