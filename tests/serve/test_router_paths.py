"""The allow-list."""

from __future__ import annotations

import argparse

import pytest

from serve.protocol.paths import ENDPOINTS, OPERATIONS, PathKind, find_endpoint, served_endpoints

ALLOWED = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/batch"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/{response_id}"),
    ("POST", "/v1/responses/{response_id}/cancel"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/score"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/systemone"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/health"),  # answered by the router: it says what /readyz says
}
OPERATORS = {
    "/abort_requests", "/collective_rpc", "/fault_tolerance/apply", "/fault_tolerance/status",
    "/finish_weight_update", "/get_world_size", "/init_weight_transfer_engine", "/is_paused",
    "/is_scaling_elastic_ep", "/is_sleeping", "/kv_event_sources", "/load", "/pause",
    "/release_kv_cache_memory", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache", "/resume",
    "/scale_elastic_ep", "/server_info", "/shutdown_weight_transfer_engine", "/sleep",
    "/start_draft_weight_update", "/start_weight_update", "/update_weight_version", "/update_weights",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/wake_up", "/weight_checker", "/weight_info",
}  # fmt: skip
"""They change or show the server itself."""
REDUNDANT = {
    "/classify", "/detokenize", "/generative_scoring", "/inference/v1/abort_requests",
    "/inference/v1/generate", "/invocations", "/ping", "/pooling", "/rerank", "/score", "/tokenize",
    "/tokenizer_info", "/v1/chat/completions/derender", "/v1/chat/completions/render",
    "/v1/completions/derender", "/v1/completions/render", "/v1/messages/render", "/v1/responses/render",
    "/v2/embed", "/v2/rerank", "/version",
}  # fmt: skip
"""Not under /v1, or a second door to what is, or half of a disaggregated server's own protocol."""
NOT_JSON = {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime"}
"""Their `model` is not a field of a JSON body."""
DOCUMENTATION = {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"}

TRICKS = [
    b"//v1/chat/completions", b"/v1//chat/completions", b"/v1/chat/completions/", b"/v1/./chat/completions",
    b"/v1/../v1/chat/completions", b"/v1/chat/completions%2f", b"/v1%2fchat/completions", b"/%761/models",
    b"/%61dapters", b"/adapters", b"/invocations", b"/v1/chat/completions;x", b"/V1/models", b"/v1/models/",
    b"", b"/", b"*", b"/metrics/", b"/livez/", b"/readyz%00", b"/admin", b"/admin/", b"/admin//v1/x",
    b"/admin/../v1/load_lora_adapter", b"/admin/v1/%2e%2e/x", b"/admin/.hidden", b"/v1/responses/",
    b"/v1/responses/a", b"/v1/responses/resp_a/../../x", b"/v1/responses/resp_a%2Fx",
    b"/v1/files/../models", b"/v1/files/.hidden", b"/v1/files//a", b"/v1/filesx", b"/v1/fine_tuning/%2e%2e/x",
    b"/v1/responses/resp_a/delete", b"http://host/v1/models", b"/v1/load_lora_adapter",
]  # fmt: skip


@pytest.mark.parametrize("raw_path", TRICKS)
def test_a_path_spelled_in_another_way_is_denied(raw_path: bytes) -> None:
    assert find_endpoint(raw_path) is None


def test_every_listed_path_is_found_under_its_own_spelling() -> None:
    assert len(ENDPOINTS) == 18
    assert all(find_endpoint(path) is endpoint for path, endpoint in ENDPOINTS.items())


def test_operations_are_a_small_closed_set() -> None:
    assert len(OPERATIONS) == len(set(OPERATIONS)) <= 20


@pytest.mark.parametrize("at", [b"@", b"%40"])
@pytest.mark.parametrize(
    ("part", "methods"),
    [("", ("GET", "DELETE")), ("/cancel", ("POST",)), ("/input_items", ("GET",))],
)
def test_a_stored_response_is_found_by_an_id_that_names_a_version(
    at: bytes, part: str, methods: tuple[str, ...]
) -> None:
    found = find_endpoint(b"/v1/responses/resp_00ff.support" + at + b"3.s.ab.cd" + part.encode())
    assert found is not None
    assert (found.kind, found.methods) == (PathKind.STORED, methods)
    assert (found.item, found.part) == ("resp_00ff.support@3.s.ab.cd", part[1:])


def test_what_the_server_behind_does_not_answer_stays_known_as_unserved() -> None:
    limited = served_endpoints({"/v1/embeddings", "/tokenize", "/v1/chat/completions/batch"})
    kinds = {path: one.kind for path, one in limited.items()}
    assert kinds[b"/v1/embeddings"] is kinds[b"/v1/tokenize"] is PathKind.INFERENCE
    assert kinds[b"/v1/chat/completions"] is kinds[b"/v1/detokenize"] is PathKind.UNSERVED
    assert kinds[b"/v1/models"] is PathKind.MODELS
    assert served_endpoints(None) == ENDPOINTS


def test_a_model_with_a_slash_in_its_name_is_looked_up_and_not_forwarded() -> None:
    found = find_endpoint(b"/v1/models/Org%2FBase-1.5")
    assert found is not None
    assert (found.kind, found.item, found.inner_path) == (PathKind.MODELS, "Org/Base-1.5", None)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")  # what vLLM's own imports warn of
def test_every_route_of_the_real_server_is_allowed_by_name_or_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that a new vLLM adds fails here until somebody decides."""
    routes = _vllm_routes(monkeypatch)
    known = OPERATORS | REDUNDANT | NOT_JSON | DOCUMENTATION
    assert {route for route in routes if route not in ALLOWED and route[1] not in known} == set()
    assert routes >= ALLOWED
    assert len(routes) >= 70
    for method, path in routes - ALLOWED:
        assert not _reaches(method, path), f"{method} {path} is reachable"
    for method, path in ALLOWED:
        assert _reaches(method, path), f"{method} {path} is not reachable"


def _reaches(method: str, path: str) -> bool:
    endpoint = find_endpoint(path.replace("{response_id}", "resp_0").encode())
    return endpoint is not None and method in endpoint.methods


def _vllm_routes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Return what vLLM registers with everything switched on that it has; no engine is started."""
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    from fastapi import FastAPI
    from vllm.entrypoints.launchers.api_server.routers import register_api_routers
    from vllm.tasks import FRONTEND_TASKS, GENERATION_TASKS, POOLING_TASKS

    app = FastAPI()
    switches = ("enable_scale_out", "tokens_only", "enable_tokenizer_info_endpoint", "enable_fault_tolerance")
    app.state.args = argparse.Namespace(**dict.fromkeys(switches, True))
    register_api_routers(app.state.args, app, GENERATION_TASKS + POOLING_TASKS + FRONTEND_TASKS, _Embedder())
    every = [
        (route.path, getattr(route, "methods", None) or {"GET"})
        for route in app.routes
        if hasattr(route, "path")
    ]
    return {(method, path) for path, methods in every for method in methods if method != "HEAD"}


class _Embedder:
    """A model's configuration as far as the registration of routes looks at it."""

    def get_pooling_task(self, tasks: object) -> str:
        return "embed"

    def __getattr__(self, name: str) -> None:
        return None
