"""The tables of operations and the routes that are made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.types import Receive, Scope, Send

from registry import errors
from registry.api.client import HttpClient
from registry.api.documents import VersionRequest
from registry.api.operation import PREFIX, Client, LocalClient, OperationTable
from registry.records import AliasMove
from registry.store import Registry
from serve.control.app import TABLES, application
from serve.control.caller import Control
from serve.control.handlers import OWN
from serve.control.layer import add_handlers
from serve.control.routes import routes
from tests.fakes.base import make_base
from tests.fakes.control import FakeState
from tests.fakes.http_server import served

table = OperationTable("tests")


@table.add("PUT", "/adapters/{name}/echo/{alias}", status=202)
def echo(
    local: LocalClient,
    name: str,
    alias: str,
    body: VersionRequest,
    seq: Annotated[int, Field(ge=1)] = 1,
) -> AliasMove:
    """Answer with what was asked."""
    return AliasMove(name, alias, seq, body.version, None, local.who, "echo", 1.5)


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """Serve the table of this module alone."""
    app = FastAPI()
    add_handlers(app)
    app.include_router(routes(table, {}))
    control = Control(registry, FakeState(registry))

    async def let_in(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"who": "anna", "control": control}
        await app(scope, receive, send)

    with served(let_in) as url:
        yield url


def test_a_function_in_a_table_is_a_route_and_a_call_of_any_client(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "root", make_base(tmp_path / "base"))
    with serving(registry) as url, HttpClient(url) as remote:
        clients: tuple[Client, ...] = (LocalClient(registry, "anna"), remote)
        for client in clients:
            move = echo(client, "support", "night", VersionRequest(version=3), seq=7)
            assert move == AliasMove("support", "night", 7, 3, None, "anna", "echo", 1.5)
            assert echo(client, "support", "night", VersionRequest(version=3)).seq == 1
            with pytest.raises(errors.InvalidName):
                echo(client, "../x", "night", VersionRequest(version=3))
        with pytest.raises(errors.UsageError, match="seq"):
            echo(remote, "support", "night", VersionRequest(version=3), seq=0)


def test_every_row_has_one_route_and_every_route_a_row() -> None:
    rows = [(row.method, PREFIX + row.path, row.status) for one in TABLES for row in one]
    made = [
        (method, route.path, route.status_code)
        for route in application().routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert sorted(made) == sorted(rows)
    assert len(set(rows)) == len(rows) > 25


def test_a_handler_of_its_own_answers_a_row_of_a_table() -> None:
    rows = {row for one in TABLES for row in one}
    assert set(OWN) <= rows
