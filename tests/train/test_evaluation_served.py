"""Answers over a real socket: retries, digests, log-probabilities, and failures that stay visible."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fakes.openai_server import last, openai_server, write_suite
from train.evaluation.formats.forms import SuiteMessage
from train.evaluation.formats.suites import Suite, load_suite
from train.evaluation.grading.grades import ModelAnswer, Tools
from train.evaluation.journal import AnswerJournal
from train.evaluation.models.served import RetryLimits, ServedModel, Unanswered
from train.evaluation.runner import Effort, EvaluatedArm, evaluate

QUICK = RetryLimits(tries=3, timeout_seconds=10, sleep=lambda _seconds: None)


def suite_of(folder: Path, count: int = 3, **settings: object) -> Suite:
    items = [{"prompt": f"say {n}", "expected": f"{n}"} for n in range(count)]
    return load_suite(write_suite(folder, items, **settings))


def echo(chat: list[dict[str, str]]) -> str:
    return last(chat).split()[-1]


def test_every_question_is_asked_with_the_suites_sampling(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, sampling={"max_tokens": 7, "stop": ["\n"], "temperature": 0.5, "seed": 9})
    with openai_server({"a": echo}) as (url, server):
        model = ServedModel(url + "/v1/", "a", key="secret", patience=QUICK)
        (result,) = evaluate(suite, [EvaluatedArm("a", model)], lambda _name: model, Effort(2))
        model.close()
    assert [sample.text for sample in result.samples] == ["0", "1", "2"]
    assert [grade.score for grade in result.grades["exact"]] == [1.0, 1.0, 1.0]
    wanted = {"max_tokens": 7, "stop": ["\n"], "temperature": 0.5, "seed": 9, "model": "a", "top_p": 1.0}
    assert all(wanted.items() <= body.items() for body in server.seen)


def test_a_busy_server_is_asked_again_and_a_refusal_is_kept_as_an_error(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, 1)
    with openai_server({"a": echo}, failures=[503, 429]) as (url, server):
        model = ServedModel(url, "a", patience=QUICK)
        assert model.answer(suite.questions[0], suite).text == "0"
        server.failures[:] = [400]
        refused = model.answer(suite.questions[0], suite)
        server.failures[:] = [503] * 3
        busy = model.answer(suite.questions[0], suite)
        model.close()
    assert refused.error == "a: status 400: planned 400"
    assert busy.error == "a: status 503: planned 503"
    assert (refused.text, refused.finish) == ("", "error")


def test_an_answer_without_a_server_is_an_error_and_not_wrong(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, 1)
    model = ServedModel("http://127.0.0.1:1", "a", patience=QUICK)
    (result,) = evaluate(suite, [EvaluatedArm("a", model)], lambda _name: model)
    assert result.errors == 1
    assert result.grades["exact"][0].score is None
    assert "cannot be reached" in str(result.samples[0].error)
    model.close()


def test_another_versions_answer_is_no_answer(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, 1)
    with openai_server({"a@1": echo}, digests={"a@1": "sha256:old"}) as (url, _):
        right = ServedModel(url, "a@1", digest="sha256:old", patience=QUICK)
        wrong = ServedModel(url, "a@1", digest="sha256:new", patience=QUICK)
        assert right.answer(suite.questions[0], suite).error is None
        error = wrong.answer(suite.questions[0], suite).error
        right.close()
        wrong.close()
    assert error is not None
    assert "was answered by sha256:old" in error


def test_questions_in_flight_are_bounded(tmp_path: Path) -> None:
    running, most, lock = 0, 0, threading.Lock()

    class Slow:
        name = "slow"

        def answer(self, messages: object, suite: object) -> object:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1
            return ModelAnswer("x")

    suite = suite_of(tmp_path, 24)
    model: object = Slow()
    evaluate(suite, [EvaluatedArm("slow", model)], lambda _name: model, Effort(4))  # type: ignore[arg-type,return-value]
    assert most == 4


class Stopped:
    """Answers, and is interrupted at one question."""

    name = "stopped"

    def __init__(self, at: str | None) -> None:
        self.at = at
        self.asked: list[str] = []

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        self.asked.append(messages[-1].content)
        if messages[-1].content == self.at:
            raise KeyboardInterrupt
        return ModelAnswer("x", error="status 500" if self.asked[-1] == "say 2" else None)

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        raise NotImplementedError


def test_an_interrupted_run_goes_on_and_asks_failed_questions_again(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, 8)
    folder = tmp_path / "out"
    first, second = Stopped("say 5"), Stopped(None)
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            suite, [EvaluatedArm("a", first)], lambda _name: first, Effort(1, memory=AnswerJournal(folder))
        )
    with (tmp_path / "out.answers.jsonl").open("a") as file:
        file.write('{"key": "half')
    journal = AnswerJournal(folder)
    kept = len(journal)
    assert 4 <= kept <= 6  # a question in flight may still have been answered
    evaluate(suite, [EvaluatedArm("a", second)], lambda _name: second, Effort(1, memory=journal))
    assert "say 2" in second.asked
    assert len(second.asked) == 8 - kept
    journal.finish()
    assert not list(tmp_path.glob("out*"))


def test_log_probabilities_of_the_answer_alone(tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    with openai_server({"a": echo}) as (url, server):
        model = ServedModel(url, "a", patience=QUICK)
        assert model.log_probability(suite.questions[0], "one two three", suite) == (-1.5, 3)
        assert server.seen[-1]["continue_final_message"] is True
        server.logprobs = False
        with pytest.raises(Unanswered, match="without prompt_logprobs, so it gives no perplexity"):
            model.log_probability(suite.questions[0], "one", suite)
        model.close()


def test_log_probabilities_of_plain_text_by_echo(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, api="completions", template="{{item.prompt}} ")
    with openai_server({"a": echo}) as (url, server):
        model = ServedModel(url, "a", patience=QUICK)
        assert model.log_probability(suite.questions[0], "one two three", suite) == (-0.75, 3)
        assert model.answer(suite.questions[0], suite).text == "0"
        server.logprobs = False
        with pytest.raises(Unanswered, match="echo without logprobs"):
            model.log_probability(suite.questions[0], "one", suite)
        model.close()


def test_log_probabilities_of_given_tokens_and_the_prompts_own_tokens() -> None:
    with openai_server({"m": lambda _: "x"}) as (url, server):
        model = ServedModel(url, "m")
        assert model.token_log_probabilities([7, 1, 2, 30]) == [-0.1, -0.2, -3.0]
        assert model.prompt_ids([{"role": "user", "content": "one three"}]) == [3, 5]
        server.logprobs = False
        with pytest.raises(Unanswered, match="without prompt_logprobs of every token"):
            model.token_log_probabilities([7, 1])
        with pytest.raises(Unanswered, match="without prompt_token_ids"):
            model.prompt_ids([{"role": "user", "content": "one"}])
        model.close()


def test_log_probabilities_by_answers_ask_for_one_token_each(tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    plain = suite_of(tmp_path / "plain", api="completions", template="{{item.prompt}} ")
    with openai_server({"m": lambda _: "x"}) as (url, server):
        model = ServedModel(url, "m", by_answers=True, patience=QUICK)
        assert model.token_log_probabilities([7, 1, 2, 30]) == [-0.01, -0.02, -0.3]
        asked = sorted(server.seen, key=lambda body: len(body["prompt"]))
        assert [body["prompt"] for body in asked] == [[7], [7, 1], [7, 1, 2]]
        assert [body["allowed_token_ids"] for body in asked] == [[1], [2], [30]]
        assert not any("prompt_logprobs" in body for body in server.seen)
        # The fake's ids are the lengths of the words: say, 0, and then the answer's.
        for kind in (suite, plain):
            total, count = model.log_probability(kind.questions[0], "one three", kind)
            assert (round(total, 6), count) == (-0.08, 2)
        server.logprobs = False
        with pytest.raises(Unanswered, match="without logprobs"):
            model.token_log_probabilities([7, 1])
        model.close()


def test_a_strict_model_wants_to_be_told_which_content_answered() -> None:
    digest = "sha256:mine"
    with openai_server({"m": lambda _: "x", "n": lambda _: "x"}, digests={"n": digest}) as (url, _):
        silent, telling = (ServedModel(url, name, digest=digest, strict=True) for name in ("m", "n"))
        with pytest.raises(Unanswered, match="answered by an unnamed model"):
            silent.token_log_probabilities([1, 2])
        assert telling.token_log_probabilities([1, 2]) == [-0.2]
        silent.close()
        telling.close()
