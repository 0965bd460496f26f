"""An OpenAI account over HTTP: its jobs, its files, and answers of its models.

Owns the requests: only GETs, and the recorded prompts as chat or text completions. Invariants: the key goes
into one header and nowhere else, no message holds it; a redirect is never followed; what may work a moment
later is tried again, at the time the account names, and nothing else is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import httpx

from registry.errors import Denied, NotFound, UsageError
from train.evaluation.models.served import RETRIED, RetryLimits
from train.migrating.interface import AccountAway, AccountFailed, BrokenOff, JobDocument

OPENAI = "https://api.openai.com/v1"
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"})
"""Codes of a 429 that no waiting mends."""
_GONE = frozenset({"model_not_found", "model_not_available", "model_deprecated", "deprecated_model"})
_ORGANIZATION = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
_PAGE = 100
_CHUNK = 1 << 20


class ModelGone(AccountFailed):
    """A model that does not answer any more: switched off, deleted, or of another account."""


class PromptRefused(AccountFailed):
    """A prompt that the model will not answer, however often it is asked."""


PATIENCE = RetryLimits(tries=6, timeout_seconds=120)
_LONGEST_WAIT_SECONDS = 120.0
"""However long the account asks to wait."""
_TOLD_SECONDS = 1.0
"""A person is told of a wait that is longer."""


class OpenAIAccount:
    """One account; safe to use from several threads. `notice` tells a person what is waited for."""

    def __init__(
        self,
        key: str,
        base_url: str = OPENAI,
        patience: RetryLimits = PATIENCE,
        notice: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Raises: UsageError: a key or a URL that cannot be one."""
        if not key.isascii() or not key.isprintable() or not key.strip():
            raise UsageError("OPENAI_API_KEY", "is not a key", "export the account's key", param="key")
        self._key, self._patience, self._notice = key.strip(), patience, notice
        url = _checked_url(base_url)
        headers = {"authorization": f"Bearer {self._key}"}
        headers |= {name: os.environ[one] for one, name in _ORGANIZATION.items() if os.environ.get(one)}
        self._host = url.host
        self._client = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(self._patience.timeout_seconds, connect=10),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def jobs(self) -> list[JobDocument]:
        """Return every fine-tuning job, the newest first.

        Raises: Denied; AccountFailed.
        """
        found: dict[str, JobDocument] = {}
        after: str | None = None
        while True:
            more = {} if after is None else {"after": after}
            page = self._json("GET", "fine_tuning/jobs", params={"limit": _PAGE, **more})
            data = page.get("data")
            if not isinstance(data, list) or not all(isinstance(one, dict) and "id" in one for one in data):
                raise AccountFailed(
                    self._host, "does not list fine-tuning jobs as OpenAI does", "check --base-url"
                )
            new = {str(one["id"]): one for one in data if str(one["id"]) not in found}
            found |= new
            if not new or not page.get("has_more"):
                return list(found.values())
            after = str(data[-1]["id"])

    def content(self, file: str) -> Iterator[bytes]:
        """Yield the content of a file, whole or with an error.

        Raises: NotFound: it was deleted; Denied; BrokenOff; AccountFailed.
        """
        size = 0
        with closing(self._opened("GET", f"files/{file}/content")) as response:
            try:
                for chunk in response.iter_bytes(_CHUNK):
                    size += len(chunk)
                    yield chunk
            except httpx.HTTPError as error:
                raise BrokenOff(
                    file,
                    f"broke off while it was fetched ({_named(error)})",
                    "run the same command again",
                ) from error
            endless = not {"content-length", "transfer-encoding"} & response.headers.keys()
        # Then the connection's end is the content's, and a broken one looks like a whole.
        if endless and size != (told := self._json("GET", f"files/{file}").get("bytes")):
            raise BrokenOff(file, f"came with {size:,} of {told} bytes", "run the same command again")

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a prompt; `path` is `chat/completions` or `completions`.

        Raises: ModelGone; PromptRefused; Denied; AccountFailed.
        """
        return self._json("POST", path, json=dict(body))

    def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        with closing(self._opened(method, path, **content)) as response:
            try:
                response.read()
                found = response.json()
            except (httpx.HTTPError, ValueError) as error:
                raise AccountFailed(
                    self._host, f"gave no JSON for {path} ({_named(error)})", "run it again"
                ) from error
        if not isinstance(found, dict):
            raise AccountFailed(self._host, f"gave no JSON object for {path}", "check --base-url")
        return found

    def _opened(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Return a response of status 200, its body still to be read; tried as often as is worth it."""
        for attempt in range(1, self._patience.tries + 1):
            last = attempt == self._patience.tries
            wait = min(_LONGEST_WAIT_SECONDS, self._patience.wait_seconds * 2 ** (attempt - 1))
            try:
                request = self._client.build_request(method, path, **content)
                response = self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                if last:
                    fact = f"cannot be reached ({_named(error)})"
                    remedy = "check the network and --base-url, then run the same command again"
                    raise AccountAway(self._host, fact, remedy) from error
                self._rest(wait, f"cannot be reached ({_named(error)})", attempt)
                continue
            if response.status_code == httpx.codes.OK:
                return response
            found = _error(response)
            if last or not _again(response, found):
                raise self._refusal(response, found, path)
            self._rest(self._wait(response, wait), f"answers {response.status_code}", attempt)
        raise AssertionError("the last try returns or raises")

    def _rest(self, seconds: float, fact: str, attempt: int) -> None:
        if seconds > _TOLD_SECONDS:
            of = f"try {attempt + 1} of {self._patience.tries}"
            self._notice(f"{self._host} {fact}: {of} in {seconds:.0f} s")
        self._patience.sleep(seconds)

    def _wait(self, response: httpx.Response, otherwise: float) -> float:
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            with suppress(KeyError, ValueError):
                told = float(response.headers[name]) * unit
                return min(_LONGEST_WAIT_SECONDS, max(0.0, told))
        return otherwise

    def _refusal(self, response: httpx.Response, found: Mapping[str, Any], path: str) -> Exception:
        status, code = response.status_code, str(found.get("code") or "")
        told = str(found.get("message") or response.reason_phrase).replace(self._key, "(the key)")[:300]
        asked = response.request.method == "POST"
        if status == httpx.codes.UNAUTHORIZED:
            return Denied(self._host, "does not take the key (401)", "export the account's OPENAI_API_KEY")
        if asked and (status in {404, 410} or code in _GONE):
            return ModelGone("the model", f"does not answer any more ({status}: {told})")
        if asked and status in {400, 413, 422}:
            return PromptRefused("the model", f"refuses the prompt ({status}: {told})")
        if status == httpx.codes.FORBIDDEN:
            return Denied(
                self._host, f"forbids {path} ({told})", "use a key that may read files and fine-tuning jobs"
            )
        if status == httpx.codes.NOT_FOUND:
            return NotFound(path, "is not there any more (404)", "")
        if code in _SPENT:
            return AccountFailed(self._host, f"has no quota left ({told})", "pay, then run it again")
        tries = self._patience.tries
        more = f" after {tries} tries" if _again(response, found) else ""
        return AccountFailed(
            self._host, f"answers {status}{more} ({told})", "run the same command again later"
        )


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UsageError(
            "--base-url", f"is no URL ({error})", f"give one like {OPENAI}", param="base_url"
        ) from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise UsageError(
            "--base-url",
            "is not http://host… or holds a password",
            f"give one like {OPENAI}",
            param="base_url",
        )
    path = url.path.rstrip("/")
    return url.copy_with(path=f"{path}/" if path.endswith("/v1") else f"{path}/v1/", query=None)


def _error(response: httpx.Response) -> Mapping[str, Any]:
    """Return what the body says is wrong; empty where it says nothing that can be read."""
    try:
        response.read()
        found = response.json()
    except (httpx.HTTPError, ValueError):
        return {}
    finally:
        response.close()
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _again(response: httpx.Response, found: Mapping[str, Any]) -> bool:
    if response.headers.get("x-should-retry") == "false" or found.get("code") in _SPENT:
        return False
    return response.status_code in RETRIED


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__
