"""Names of tuned models on a real uvicorn: asked for, listed, shown and deleted by OpenAI's client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.openai.tuned import TunedModel
from registry.entries.rights import Scope
from registry.records import Version
from registry.store import Registry
from tests.fakes.served import BASE, Served, serve

NAME = f"ft:{BASE}:wardrobe:my-suffix:AbCd1234"
STEP = f"{NAME}:ckpt-step-20"


def give(registry: Registry, version: Version, name: str = NAME, who: str = "key1") -> None:
    model = TunedModel(name, version.adapter, version.number, version.digest, "ftjob-1", who, 7.0)
    registry.catalogue.tuned.add(model)


@pytest.fixture
def tuned(served: Served) -> Served:
    """Give `support@2` a name, and `support@1`, which is stable, that of a checkpoint."""
    give(served.registry, served.publish("support", 2))
    give(served.registry, served.registry.version("support", 1), STEP)
    served.runtime.watcher.refresh()
    return served


@pytest.fixture
def client(tuned: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tuned.server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("name", "version"), [(NAME, "support@2"), (STEP, "support@1")])
def test_a_tuned_name_is_answered_by_its_version_as_if_that_was_asked_for(
    tuned: Served, name: str, version: str
) -> None:
    by_name, by_number = tuned.chat(name), tuned.chat(version)
    assert by_name.status_code == 200
    for header in ("x-wardrobe-adapter", "x-wardrobe-arm", "x-wardrobe-digest"):
        assert by_name.headers[header] == by_number.headers[header]
    assert by_name.headers["x-wardrobe-adapter"] == version
    assert by_name.json()["id"].split(".")[1:3] == by_number.json()["id"].split(".")[1:3]
    adapter, _, number = version.partition("@")
    assert tuned.outcomes(adapter=adapter, version=number, arm="direct") == {"ok": 2}
    assert tuned.inner.seen[-2].body["model"] == version


def test_a_second_request_by_a_tuned_name_is_one_look_up(tuned: Served) -> None:
    view = tuned.runtime.watcher.view
    raw = tuned.runtime.targets.find(view, None)
    assert raw.fixed is not None
    from msgspec import Raw

    spelled = Raw(f'"{NAME}"'.encode())
    assert tuned.runtime.targets.find(view, spelled) is tuned.runtime.targets.find(view, spelled)


def test_a_path_may_name_it_as_well(tuned: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    for spelled in (NAME, NAME.replace(":", "%3A"), NAME.replace(":", "%3a")):
        answer = tuned.client.post(f"/a/{spelled}/v1/chat/completions", json=body)
        assert answer.headers["x-wardrobe-adapter"] == "support@2"


def test_an_unknown_tuned_name_is_the_404_of_any_unknown_model(tuned: Served) -> None:
    unknown, other = tuned.chat("ft:nobody").json()["error"], tuned.chat("nobody").json()["error"]
    assert tuned.chat("ft:nobody").status_code == 404
    assert [unknown[key] for key in ("type", "code", "param")] == [
        other[key] for key in ("type", "code", "param")
    ]
    assert tuned.chat(NAME + ":ckpt-step-9").status_code == 404


def test_the_client_lists_shows_and_deletes_it(tuned: Served, client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {NAME, STEP} < set(listed)
    shown = client.models.retrieve(NAME)
    assert shown == listed[NAME]
    assert (shown.object, shown.created, shown.owned_by) == ("model", 7, "wardrobe")
    assert shown.to_dict()["root"] == "support@2"
    assert shown.to_dict()["parent"] == BASE
    gone = client.models.delete(NAME)
    assert gone.to_dict() == {"id": NAME, "object": "model", "deleted": True}
    for again in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            again(NAME)
        assert refused.value.code == "model_not_found"
    assert tuned.chat(NAME).status_code == 404
    assert tuned.chat("support@2").status_code == 200
    assert tuned.client.delete(f"/v1/models/{STEP.replace(':', '%3A')}").json()["deleted"]


@pytest.mark.parametrize(
    ("name", "status"), [(BASE, 400), ("support", 400), ("support@1", 400), ("nobody", 404), ("ft:x", 404)]
)
def test_what_is_no_tuned_name_is_not_deleted(client: openai.OpenAI, name: str, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.models.delete(name)
    assert refused.value.status_code == status


def test_a_name_whose_version_was_set_aside_says_so_and_is_not_listed(
    tuned: Served, client: openai.OpenAI
) -> None:
    tuned.registry.quarantine("support", 2, "it harms", who="tester")
    tuned.runtime.watcher.refresh()
    answer = tuned.chat(NAME)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert "it harms" in answer.json()["error"]["message"]
    assert NAME not in {model.id for model in client.models.list()}


def test_only_who_made_it_and_administrators_delete_it(registry: Registry, tmp_path: Path) -> None:
    keys = KeyStore(registry.root)
    made = {scope: keys.create([scope], who="tester") for scope in Scope}
    other = keys.create([Scope.TUNE], who="tester")[1]
    give(registry, registry.version("support", 1), NAME, who=made[Scope.TUNE][0].id)
    give(registry, registry.version("support", 1), STEP, who="somebody else")
    with serve(registry, tmp_path) as server:

        def delete(name: str, token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            return server.client.delete(f"/v1/models/{name}", headers=headers).status_code

        assert delete(NAME, "wrong") == 401
        assert delete(NAME, made[Scope.INFER][1]) == 403
        assert delete(NAME, other) == 404
        assert delete(STEP, made[Scope.TUNE][1]) == 404
        assert delete(NAME, made[Scope.TUNE][1]) == 200
        assert delete(STEP, made[Scope.ADMIN][1]) == 200
