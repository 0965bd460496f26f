"""The proof `tokens` through a server: equal ids pass; another template, or one of its own, does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.records import Version
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.openai_server import openai_server
from tests.train.test_proving_prompts import Letters
from train.evaluation.models.served import ServedModel
from train.proving.documents import TokensDocument
from train.proving.proof import prove_tokens


def letters(chat: list[dict[str, str]]) -> list[int]:
    """Return the ids of a server that renders as training does."""
    tokenizer = Letters()
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@contextmanager
def published(folder: Path, **adapter: Any) -> Iterator[tuple[Registry, Version]]:
    base = make_base(folder / "base", chat_template=Letters.chat_template)
    registry = Registry.init(folder / "root", base, name="tiny")
    found = registry.publish("support", make_adapter(folder / "adapter", **adapter), who="t")
    yield registry, found.version


def proof(registry: Registry, version: Version, **server: Any) -> TokensDocument:
    digests = {version.name: version.digest}
    with openai_server({version.name: lambda _: "x"}, digests=digests, **server) as (url, _):
        model = ServedModel(url, version.name, digest=version.digest, strict=True)
        try:
            return prove_tokens(registry, version, model, Letters())
        finally:
            model.close()


def test_equal_ids_pass(tmp_path: Path) -> None:
    with published(tmp_path) as (registry, version):
        found = proof(registry, version, tokenize=letters)
    assert found.passed, found.sentence
    assert (found.format, found.digest) == ("wardrobe.tokens/1", version.digest)
    assert found.template_sha256 == found.recorded_template_sha256
    assert found.prompts > 14
    assert found.deviations == []
    assert all("does not show" in one for one in found.left_out)  # the tools: this template has none


def test_a_doubled_first_token_fails_and_is_shown(tmp_path: Path) -> None:
    with published(tmp_path) as (registry, version):
        found = proof(registry, version, tokenize=lambda chat: [1, *letters(chat)])
    assert not found.passed
    assert found.sentence == f"{found.prompts} of {found.prompts} prompts differ, the first from token 1 on"
    assert found.deviations[0].served[0] == 1
    assert found.deviations[0].served[1:] == found.deviations[0].trained[:-1]


def test_a_server_that_does_not_tell_proves_nothing(tmp_path: Path) -> None:
    with published(tmp_path) as (registry, version):
        found = proof(registry, version, logprobs=False)
    assert not found.passed
    assert "without prompt_token_ids" in found.sentence


@pytest.mark.parametrize("own", [True, False])
def test_another_template_fails_without_asking(tmp_path: Path, own: bool) -> None:
    adapter = {"chat_template": "{{ messages }}"} if own else {}
    with published(tmp_path, **adapter) as (registry, version):
        tokenizer = Letters()
        tokenizer.chat_template = "tags" if own else "drifted"
        with openai_server({}) as (url, server):
            model = ServedModel(url, version.name)
            found = prove_tokens(registry, version, model, tokenizer)
            model.close()
    assert not found.passed
    expected = "it has a chat template of its own" if own else "the base's chat template is"
    assert found.sentence.startswith(expected)
    assert server.seen == []
