"""The routes of the admin API, one for each row of the tables of operations.

Owns how a row becomes a route; what it does and answers stands in the row. Invariant: a row has exactly one
route, of the same method, path and status.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from registry.api.operation import PREFIX, Operation, OperationTable
from registry.names import check_adapter_name
from serve.control.caller import AdminCaller, CallerOf, caller_of
from serve.control.errors import REFUSALS
from serve.control.schema import ALIAS, NAME


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """A handler written for FastAPI, for a row whose function cannot answer; `options` are FastAPI's."""

    handler: Callable[..., Awaitable[Any]]
    options: Mapping[str, Any] = field(default_factory=dict)


def _checked(
    name: Annotated[
        str, Path(description="The adapter's name.", json_schema_extra=NAME, examples=["support"])
    ],
) -> str:
    return check_adapter_name(name)


Name = Annotated[str, Depends(_checked)]
Number = Annotated[int, Path(ge=1, le=999_999_999, description="The version's number.", examples=[3])]
Alias = Annotated[
    str,
    Path(
        description="The alias: `stable`, or one of your own.", json_schema_extra=ALIAS, examples=["stable"]
    ),
]
Group = Annotated[str, Path(description="The group's name.", json_schema_extra=NAME, examples=["legal"])]
_IN_PATH: Mapping[str, Any] = {"name": Name, "number": Number, "alias": Alias, "group": Group}


def routes(table: OperationTable, own: Mapping[Operation[..., Any], OwnRoute]) -> APIRouter:
    """Return the routes of a table; a row in `own` is answered by the handler there."""
    router = APIRouter(
        prefix=PREFIX, tags=[table.subject], responses=REFUSALS, dependencies=[Depends(caller_of)]
    )
    for row in table:
        route = own.get(row) or OwnRoute(_handler(row))
        router.add_api_route(
            row.path, route.handler, methods=[row.method], status_code=row.status, **route.options
        )
    return router


def _handler(row: Operation[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def handler(caller: AdminCaller, **arguments: Any) -> Any:
        return await caller.answer(row, arguments)

    caller = inspect.Parameter("caller", inspect.Parameter.KEYWORD_ONLY, annotation=CallerOf)
    handler.__name__, handler.__doc__ = row.name, row.function.__doc__
    signature = inspect.Signature([caller, *_parameters(row)], return_annotation=row.answer_type)
    handler.__signature__ = signature  # type: ignore[attr-defined]  # what FastAPI reads
    return handler


def _parameters(row: Operation[..., Any]) -> Iterable[inspect.Parameter]:
    for one in row.parameters:
        in_path = f"{{{one.name}}}" in row.path
        kind = _IN_PATH.get(one.name, one.annotation) if in_path else one.annotation
        yield one.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
