"""Operations over HTTP: the admin API of a running server, called with httpx.

Owns the mapping between the server's errors and our error tree; routes are the tables' business. Invariant:
the key is sent to the given URL only; redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from registry import errors
from registry.api import documents as doc
from registry.api import operations, transfer
from registry.api.operation import PREFIX, Operation
from registry.errors import InvalidAdapter, UsageError, WardrobeError

_P = ParamSpec("_P")
_Answer = TypeVar("_Answer")

# Hashing a version of several GB on the server takes a while; connecting does not.
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
# Files are not JSON: these are sent and fetched in ways of their own.
_SENDERS: Mapping[Operation[..., Any], Callable[..., Any]] = {
    operations.register: transfer.upload,
    operations.export: transfer.download,
}


class HttpClient:
    """Answers by asking the server at `url` (`http://host:port`); a context manager, or close it."""

    def __init__(
        self, url: str, *, key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = _checked_url(url)
        self._http = httpx.Client(
            base_url=self._url, headers=_authorization(key), timeout=_TIMEOUT, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def answer(self, operation: Operation[_P, _Answer], /, *args: _P.args, **kwargs: _P.kwargs) -> _Answer:
        """Return what the server answers to `operation`.

        Raises: WardrobeError: the server's refusal as our own error, or that it cannot be reached.
        """
        if operation in _SENDERS:
            answer: _Answer = _SENDERS[operation](self, *args, **kwargs)
            return answer
        asked = operation.request(*args, **kwargs)
        body = None if asked.body is None else asked.body.model_dump(mode="json")
        response = self.exchange(asked.method, asked.path, params=asked.query, json=body)
        return self.read(operation, response)

    def read(self, operation: Operation[_P, _Answer], response: httpx.Response) -> _Answer:
        """Return the answer that a response holds.

        Raises: WardrobeError: the server is not a Wardrobe.
        """
        try:
            return operation.answers.validate_json(response.content)
        except ValidationError as error:
            raise self._foreign(response) from error

    def exchange(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send one request to `path` under the admin API and return the successful response.

        Raises: WardrobeError: as `answer`.
        """
        with self._reaching():
            response = self._http.request(method, PREFIX + path, **content)
        if not response.is_success:
            raise self._refusal(response)
        return response

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the bytes of a file under the admin API as they arrive.

        Raises: WardrobeError: as `answer`.
        """
        with self._reaching(), self._http.stream("GET", PREFIX + path) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield response.iter_bytes()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            fact = "did not answer in time"
            raise WardrobeError(self._url, fact, "see whether the server is alive and try again") from error
        except httpx.TransportError as error:
            fact = f"cannot be reached ({error})"
            raise WardrobeError(self._url, fact, "start the server, or correct --url") from error

    def _refusal(self, response: httpx.Response) -> WardrobeError:
        try:
            body = doc.ErrorDocument.model_validate_json(response.content).error
        except ValidationError:
            return self._foreign(response)
        if response.status_code == 401:
            return errors.Denied(self._url, body.message, "give a key with --key or WARDROBE_KEY")
        return _rebuilt(body, response.status_code)

    def _foreign(self, response: httpx.Response) -> WardrobeError:
        fact = f"answered {response.status_code} in a form that no Wardrobe server sends"
        return WardrobeError(self._url, fact, "correct --url: it is the server's root, http://host:port")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an IPv6 address without its bracket, a port that is not a number
        valid = False
    if not valid:
        fact = f"{url!r} is not http://host:port or https://host:port"
        raise UsageError("--url", fact, "write for instance http://127.0.0.1:8000", param="url")
    return url.rstrip("/")


def _authorization(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not key.isascii() or not key.isprintable():
        raise UsageError("--key", "holds characters that no key has", "copy it again", param="key")
    return {"authorization": f"Bearer {key}"}


def _rebuilt(body: doc.ErrorBody, status: int) -> WardrobeError:
    """Return the error that the server raised; its message is whole, so it becomes the fact."""
    kind = _BY_CODE.get(body.code or "")
    if kind is InvalidAdapter:
        return InvalidAdapter("", body.message, reason="", param=body.param)
    error = (kind or WardrobeError)("", body.message, param=body.param)
    error.http_status, error.type, error.code = status, body.type, body.code or error.code
    return error


def _tree(kind: type[WardrobeError]) -> Iterator[type[WardrobeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


# Only the tree of `registry.errors`: a code of the server's own tree becomes a plain WardrobeError.
_BY_CODE = {kind.code: kind for kind in _tree(WardrobeError) if kind.__module__ == errors.__name__}
