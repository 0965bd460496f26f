"""Settings: what wins, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import UsageError
from serve.settings import load_settings


def test_flags_win_over_the_environment_that_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "serve.toml").write_text("port = 1\ndrain_seconds = 1\n[limits]\nmax_tokens = 1\n")
    monkeypatch.setenv("WARDROBE_DRAIN_SECONDS", "2")
    monkeypatch.setenv("WARDROBE_LIMITS__MAX_BODY_BYTES", "2")
    found = load_settings({"root": tmp_path, "port": 3})
    assert (found.port, found.drain_seconds) == (3, 2)
    assert (found.limits.max_tokens, found.limits.max_body_bytes) == (1, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acces_log = true", "unknown setting acces_log; did you mean access_log?"),
        ("[tracing]\nendpont = 'x'", "unknown setting tracing.endpont; did you mean tracing.endpoint?"),
        ("zzz = 1", "unknown setting zzz; known here: access_log, allowed_hosts"),
        ("log_format = 'xml'", "log_format: must be 'text' or 'json', not 'xml'"),
        ("[tracing]\nendpoint = 'localhost:4318'", "tracing.endpoint: must match"),
        ("port = ", "is not valid TOML"),
        ("prot = 80", "unknown setting prot; did you mean port?"),
        ("cors_origins = ['app.example']", "cors_origins: 'app.example' is not an origin such as https"),
        ("[connections]\ntrusted_proxies = 'x'", "connections.trusted_proxies: must be a list, not 'x'"),
        ("port = 'x'", "port: must be a whole number, not 'x'"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_way_out(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings({"root": tmp_path})
    assert str(caught.value).startswith(str(tmp_path / "serve.toml"))
    assert told in str(caught.value)


def test_a_mistake_in_the_environment_is_told_like_one_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROBE_TRACING__ENDPONT", "x")
    with pytest.raises(UsageError, match=r"did you mean tracing\.endpoint\?"):
        load_settings({"root": tmp_path})


def test_a_list_in_the_environment_that_is_no_json_is_told_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROBE_ALLOWED_HOSTS", "one,two")
    with pytest.raises(UsageError, match="WARDROBE_ALLOWED_HOSTS: must be JSON"):
        load_settings({"root": tmp_path})


def test_a_variable_that_is_nearly_a_setting_is_told_and_other_programs_variables_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROBE_IMAGE", "x")
    monkeypatch.setenv("WARDROBE_KEY", "x")
    load_settings({"root": tmp_path})
    monkeypatch.setenv("WARDROBE_PORTT", "9")
    with pytest.raises(UsageError, match=r"WARDROBE_PORTT: unknown setting; did you mean WARDROBE_PORT\?"):
        load_settings({"root": tmp_path})
