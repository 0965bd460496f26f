"""A model behind an OpenAI-shaped server: what users get, with the server's own template and batching.

Owns the requests, the retries and the check that the right version answered. Invariants: a refused or
failed answer becomes a sample's `error` and is never an empty answer; a version's answers count only if
the server says the digest that the registry says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from registry.errors import WardrobeError
from train.dataset.records import ToolCall
from train.evaluation.formats.forms import SuiteMessage
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import ModelAnswer, Tools

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_DIGEST = "x-wardrobe-digest"
ANSWERS_AT_ONCE = 4
"""Requests in flight for the tokens of one text; several texts may be asked at once."""


class Unanswered(WardrobeError):
    """A request that the server did not answer as asked; not worth another try."""

    code = "unanswered"


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often a request is tried again, and how long one may take."""

    tries: int = 5
    timeout_seconds: float = 300.0
    wait_seconds: float = 0.5
    sleep: Callable[[float], None] = time.sleep


class ServedModel:
    """One model name at one server; safe to use from several threads.

    `url` is the server's root. With `digest`, an answer of another version is an error; with `strict`
    also one that does not say which version gave it. With `by_answers`, log-probabilities are those of
    answers, one request per token, not of prompts: an adapted `lm_head` may be missing from these.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        key: str | None = None,
        digest: str | None = None,
        strict: bool = False,
        by_answers: bool = False,
        patience: RetryLimits | None = None,
    ) -> None:
        self.name = name
        self._digest = digest
        self._strict = strict
        self._by_answers = by_answers
        self._patience = patience or RetryLimits()
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        root = url.rstrip("/").removesuffix("/v1")
        timeout = httpx.Timeout(self._patience.timeout_seconds, connect=10)
        self._client = httpx.Client(base_url=root, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        """Answer one question that may call `tools`; a failure is in the sample's `error`."""
        started = time.monotonic()
        path, body = _request(self.name, messages, suite)
        if tools:
            body["tools"] = list(tools)
        try:
            found = self._post(path, body)
            return _sample(found, time.monotonic() - started)
        except WardrobeError as error:
            return ModelAnswer("", finish="error", seconds=time.monotonic() - started, error=str(error))

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        """Return the summed log-probability of `expected` after `messages`, and its number of tokens.

        Uses vLLM's `prompt_logprobs` (chat) or `echo` with `logprobs` (completions), or answers. The tokens
        before the answer are counted by the server itself, with its own template.

        Raises: Unanswered: the server has neither.
        """
        if suite.api == "completions":
            echoed = self._echoed if not self._by_answers else self._completed
            return echoed(messages[-1].content, expected)
        chat = [message.written for message in messages]
        body = {"model": self.name, "max_tokens": 1, "temperature": 0.0}
        before = self._post("/v1/chat/completions", {**body, "messages": chat})
        whole = {
            **body,
            "messages": [*chat, {"role": "assistant", "content": expected}],
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        start = int(before["usage"]["prompt_tokens"])
        if self._by_answers:
            ids = self._ids(whole)
            return _summed(self._answered(ids, range(start, len(ids))))
        positions = self._post("/v1/chat/completions", {**whole, "prompt_logprobs": 0}).get("prompt_logprobs")
        if not positions:
            fact = "answers without prompt_logprobs, so it gives no perplexity"
            raise Unanswered(self.name, fact, "use vLLM, or --offline")
        return _summed([_actual(position) for position in positions[start:]])

    def token_log_probabilities(self, ids: Sequence[int]) -> list[float]:
        """Return the log-probability (nats) of each token but the first, given those before it.

        The tokens go as they are: neither the server's tokenizer nor its template has a part.

        Raises: Unanswered: the server has no `prompt_logprobs`, or refuses.
        """
        if self._by_answers:
            return self._answered(ids, range(1, len(ids)))
        body = {"model": self.name, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        found = self._post("/v1/completions", {**body, "prompt": list(ids)})
        positions = found["choices"][0].get("prompt_logprobs")
        if not positions or len(positions) != len(ids):
            raise Unanswered(self.name, "answers without prompt_logprobs of every token", "use vLLM")
        return [float(positions[at][str(ids[at])]["logprob"]) for at in range(1, len(ids))]

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Tools = ()) -> list[int]:
        """Return the token ids that the server makes of a conversation that is to be answered with `tools`.

        Raises: Unanswered: the server does not tell (`return_token_ids`), or refuses.
        """
        body = {"model": self.name, "max_tokens": 1, "temperature": 0.0}
        # Tools are shown whatever the choice; a server that parses no calls takes this one only.
        shown = {"tools": list(tools), "tool_choice": "none"} if tools else {}
        return self._ids({**body, "messages": list(messages), **shown})

    def _ids(self, body: Mapping[str, object]) -> list[int]:
        """Return the token ids of the prompt of a chat or, where `body` has a `prompt`, of a completion."""
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        found = self._post(path, {**body, "return_token_ids": True})
        ids = found.get("prompt_token_ids") or found["choices"][0].get("prompt_token_ids")
        if not ids:
            raise Unanswered(self.name, "answers without prompt_token_ids", "use vLLM")
        return [int(one) for one in ids]

    def _completed(self, prompt: str, expected: str) -> tuple[float, int]:
        body = {"model": self.name, "max_tokens": 1, "temperature": 0.0}
        before = self._ids({**body, "prompt": prompt}) if prompt else []
        ids = self._ids({**body, "prompt": prompt + expected})
        pairs = enumerate(zip(before, ids, strict=False))
        start = next((at for at, (one, other) in pairs if one != other), min(len(before), len(ids)))
        return _summed(self._answered(ids, range(max(start, 1), len(ids))))

    def _answered(self, ids: Sequence[int], places: Sequence[int]) -> list[float]:
        with ThreadPoolExecutor(ANSWERS_AT_ONCE) as pool:
            return list(pool.map(lambda at: self._answer_of(ids[:at], ids[at]), places))

    def _answer_of(self, prompt: Sequence[int], token: int) -> float:
        """Return the log-probability of `token` as the answer: the only one that is allowed."""
        body = {
            "model": self.name,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0.0,
            "allowed_token_ids": [token],
            "ignore_eos": True,
            "logprobs": 1,
        }
        found = self._post("/v1/completions", body)["choices"][0].get("logprobs") or {}
        values = found.get("token_logprobs")
        if not values:
            raise Unanswered(self.name, "answers without logprobs", "use vLLM")
        return float(values[0])

    def _echoed(self, prompt: str, expected: str) -> tuple[float, int]:
        body = {"model": self.name, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        found = self._post("/v1/completions", {**body, "prompt": prompt + expected})
        table = found["choices"][0].get("logprobs") or {}
        values, offsets = table.get("token_logprobs"), table.get("text_offset")
        if not values or not offsets:
            fact = "answers echo without logprobs, so it gives no perplexity"
            raise Unanswered(self.name, fact, "use vLLM, or --offline")
        inside = range(len(prompt), len(prompt) + len(expected))
        pairs = zip(values, offsets, strict=True)
        return _summed([value for value, at in pairs if at in inside and value is not None])

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        patience = self._patience
        for attempt in range(1, patience.tries + 1):
            last = attempt == patience.tries
            try:
                response = self._client.post(path, json=body)
            except httpx.HTTPError as error:
                if last:
                    fact = f"cannot be reached at {self._client.base_url} ({error or type(error).__name__})"
                    raise Unanswered(self.name, fact, "is the server up?") from error
                patience.sleep(patience.wait_seconds * 2 ** (attempt - 1))
                continue
            if response.status_code in RETRIED and not last:
                patience.sleep(_retry_after(response, patience.wait_seconds * 2 ** (attempt - 1)))
                continue
            return self._read(response)
        raise AssertionError("the last try returns or raises")

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            found = response.json()
        except ValueError:
            found = {}
        if response.status_code != 200 or not isinstance(found, dict):
            raise Unanswered(self.name, _complaint(response, found), "")
        told = response.headers.get(_DIGEST)
        if self._digest is not None and told != self._digest and (told is not None or self._strict):
            fact = f"was answered by {told or 'an unnamed model'}, the registry says {self._digest}"
            raise Unanswered(self.name, fact, "is this the server of this root?")
        return found


def _request(name: str, messages: Sequence[SuiteMessage], suite: Suite) -> tuple[str, dict[str, object]]:
    sampling = suite.sampling
    body: dict[str, object] = {
        "model": name,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature > 0:
        body["seed"] = sampling.seed
    if suite.api == "completions":
        return "/v1/completions", {**body, "prompt": messages[-1].content}
    return "/v1/chat/completions", {**body, "messages": [message.written for message in messages]}


def _sample(found: Mapping[str, Any], seconds: float) -> ModelAnswer:
    try:
        choice = found["choices"][0]
        message = choice.get("message") or {}
        text = choice["text"] if "text" in choice else message["content"]
        usage = found.get("usage") or {}
        return ModelAnswer(
            text=text or "",
            finish=str(choice.get("finish_reason") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
            calls=tuple(_call(call) for call in message.get("tool_calls") or ()),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise Unanswered("answer", f"is not OpenAI-shaped ({error!r})", "check the URL") from error


def _call(found: Mapping[str, Any]) -> ToolCall:
    function = found["function"]
    return ToolCall(function["name"], function["arguments"] or "{}", found.get("id") or "")


def _complaint(response: httpx.Response, found: object) -> str:
    error = found.get("error") if isinstance(found, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f"status {response.status_code}: {message or response.text[:200]}"


def _retry_after(response: httpx.Response, default: float) -> float:
    try:
        return min(30.0, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return default


def _summed(values: Sequence[float]) -> tuple[float, int]:
    return float(sum(values)), len(values)


def _actual(position: Mapping[str, Any] | None) -> float:
    # With prompt_logprobs 0 each position holds the token that stands there, and no other.
    assert position
    return float(next(iter(position.values()))["logprob"])
