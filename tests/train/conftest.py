"""The real SmolLM2 tokenizer and template, made once per session from the installed package."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.openai_account import ROWS, FakeAccount, account_server
from tests.train.bases import smollm2


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Return SmolLM2's tokenizer."""
    return smollm2()


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage(request: pytest.FixtureRequest) -> None:
    """Keep the collector from what is there already: every training calls it, and torch is large."""
    if request.node.get_closest_marker("training") is not None:
        gc.collect()
        gc.freeze()


@pytest.fixture
def account() -> FakeAccount:
    """Return an account with one job, of `ROWS`."""
    found = FakeAccount()
    found.add(1, ROWS)
    return found


@pytest.fixture
def url(account: FakeAccount) -> Iterator[str]:
    """Serve the account, and return where."""
    with account_server(account) as found:
        yield found
