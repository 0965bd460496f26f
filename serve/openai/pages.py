"""Lists in pages: a cursor is the id of the last object that the client has seen (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from registry.entries.openai.ids import ID_CHARACTERS
from serve.openai.errors import RequestRefused

Order = Literal["asc", "desc"]

_Item = TypeVar("_Item")


def cut(
    newest_first: Sequence[_Item],
    identify: Callable[[_Item], str],
    *,
    after: str | None,
    limit: int,
    order: Order = "desc",
) -> tuple[Sequence[_Item], bool]:
    """Return the page behind `after`, and whether there is more.

    What was deleted since it was seen is gone on from all the same: ids sort by time. Raises:
    RequestRefused: `after` is no id.
    """
    items = newest_first if order == "desc" else newest_first[::-1]
    begin = 0 if after is None else _behind([identify(one) for one in items], after, order)
    return items[begin : begin + limit], begin + limit < len(items)


def listed(data: Sequence[Mapping[str, object]], *, more: bool) -> dict[str, object]:
    """Return a list object; the first and the last id are left out where there are none."""
    page: dict[str, object] = {"object": "list", "data": data, "has_more": more}
    if data:
        page |= {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return page


def _behind(ids: Sequence[str], after: str, order: Order) -> int:
    if after in ids:
        return ids.index(after) + 1
    prefix, stamp = after[:-ID_CHARACTERS], after[-ID_CHARACTERS:]
    if not prefix or not (stamp.isascii() and stamp.isalnum()):
        fact = f"Invalid 'after': '{after[:100]}' is no id."
        raise RequestRefused(fact, param="after", reason="invalid_value")
    older = order == "desc"
    return next((at for at, one in enumerate(ids) if (one[-ID_CHARACTERS:] < stamp) == older), len(ids))
