"""One operation of the admin API, and who answers it: the root itself, or a server over HTTP.

Owns how a function becomes a row of a table: its method, path and status stand in the row, what it takes and
answers in its signature. The routes, the HTTP client, the command line and the reference all read the row.
Invariant: an argument that stands in the path is checked as a name before it is used.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter

from registry.entries.groups import check_group_name
from registry.entries.rights import Scope
from registry.names import check_adapter_name, check_alias_name
from registry.records import RolloutEntry
from registry.store import Registry

PREFIX = "/admin/v1"
"""The path below which a server answers operations."""
SCOPE = Scope.ADMIN
"""What a key must allow before a server answers any of them."""

Notify = Callable[[RolloutEntry | None, RolloutEntry], None]
"""Is told of a change of a rollout once it is made: the entry before, None for the first, and the new."""

_P = ParamSpec("_P")
_Answer = TypeVar("_Answer")
_CHECKS: Mapping[str, Callable[[str], str]] = {
    "name": check_adapter_name,
    "alias": check_alias_name,
    "group": check_group_name,
}


class Client(Protocol):
    """Who answers operations; every refusal is a `WardrobeError`."""

    def answer(self, operation: Operation[_P, _Answer], /, *args: _P.args, **kwargs: _P.kwargs) -> _Answer:
        """Return the answer to `operation` with these arguments."""
        ...


def _tell_nobody(_before: RolloutEntry | None, _after: RolloutEntry) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LocalClient:
    """Answers on the root itself; `who` signs every change, `notify` is told of rollouts, must not block."""

    registry: Registry
    who: str
    notify: Notify = _tell_nobody

    def answer(self, operation: Operation[_P, _Answer], /, *args: _P.args, **kwargs: _P.kwargs) -> _Answer:
        """Call the operation's function."""
        operation.bind(*args, **kwargs)
        return operation.function(self, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request: `path` under `PREFIX`, the query, and the body if there is one."""

    method: str
    path: str
    query: Mapping[str, object]
    body: BaseModel | None


@dataclass(frozen=True, eq=False)
class Operation(Generic[_P, _Answer]):
    """One row: `function` answers `method` `path`; call it with any client, and the function's arguments.

    Arguments named in the path go there, a document is the body, all others are the query. `changes` says
    that a server must route by what was changed before it answers.
    """

    method: str
    path: str
    function: Callable[Concatenate[LocalClient, _P], _Answer]
    status: int
    changes: bool

    def __call__(self, client: Client, *args: _P.args, **kwargs: _P.kwargs) -> _Answer:
        """Return the answer of `client`."""
        return client.answer(self, *args, **kwargs)

    @property
    def name(self) -> str:
        """The name of the function, which is the operation's id in the OpenAPI document."""
        return self.function.__name__

    @cached_property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The function's parameters without the client, their annotations evaluated."""
        hints = get_type_hints(self.function, include_extras=True)
        _, *own = inspect.signature(self.function).parameters.values()
        return tuple(one.replace(annotation=hints[one.name]) for one in own)

    @cached_property
    def answer_type(self) -> type[_Answer]:
        """The type of the answer."""
        found: type[_Answer] = get_type_hints(self.function)["return"]
        return found

    @cached_property
    def answers(self) -> TypeAdapter[_Answer]:
        """What reads an answer from JSON."""
        return TypeAdapter(self.answer_type)

    def bind(self, *args: _P.args, **kwargs: _P.kwargs) -> dict[str, Any]:
        """Return the arguments by name, those of the path checked.

        Raises: InvalidName.
        """
        bound = inspect.Signature(self.parameters).bind(*args, **kwargs).arguments
        return {name: self._checked(name, value) for name, value in bound.items()}

    def request(self, *args: _P.args, **kwargs: _P.kwargs) -> HttpRequest:
        """Return the request that asks a server for this operation.

        Raises: InvalidName.
        """
        found = self.bind(*args, **kwargs)
        body = next((value for value in found.values() if isinstance(value, BaseModel)), None)
        rest = {name: value for name, value in found.items() if value is not None and value is not body}
        query = {name: value for name, value in rest.items() if name not in self._in_path}
        return HttpRequest(self.method, self.url(**rest), query, body)

    def url(self, **arguments: object) -> str:
        """Return the path with its arguments filled in, escaped.

        Raises: InvalidName.
        """
        values = {name: str(self._checked(name, arguments[name])) for name in self._in_path}
        return self.path.format_map({name: quote(value, safe="") for name, value in values.items()})

    @cached_property
    def _in_path(self) -> frozenset[str]:
        return frozenset(re.findall(r"{(\w+)}", self.path))

    def _checked(self, name: str, value: Any) -> Any:
        return _CHECKS[name](value) if name in self._in_path and name in _CHECKS else value


class OperationTable:
    """The operations about one subject, in the order of the reference; `subject` is their tag in OpenAPI."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._rows: list[Operation[..., Any]] = []

    def __iter__(self) -> Iterator[Operation[..., Any]]:
        return iter(self._rows)

    def add(
        self, method: str, path: str, *, status: int = 200, changes: bool | None = None
    ) -> Callable[[Callable[Concatenate[LocalClient, _P], _Answer]], Operation[_P, _Answer]]:
        """Return what makes a function a row; it `changes` something unless it is a GET or said not to."""

        def added(function: Callable[Concatenate[LocalClient, _P], _Answer]) -> Operation[_P, _Answer]:
            row = Operation(method, path, function, status, method != "GET" if changes is None else changes)
            self._rows.append(row)
            return row

        return added
