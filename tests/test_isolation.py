"""No test sees the checkout's own root, a user's environment, or what another command left beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.store import Registry
from tests.checkout import REPOSITORY, new_files, tracked_files
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.isolation import KEPT, PREFIX, Place, isolated

NOWHERE = "/nonexistent/of-a-user"
CLOSED = "http://127.0.0.1:9"
SETTINGS = 'port = 1\nlog_format = "json"\n[limits]\nmax_body_bytes = 10\n'

HOSTILE = {
    "WARDROBE_ROOT": NOWHERE, "WARDROBE_KEY": "wk-user", "WARDROBE_PORT": "1",
    "WARDROBE_ACCESS_LOG": "true", "WARDROBE_LIMITS__MAX_BODY_BYTES": "10", "WARDROBE_WEBHOOKS": CLOSED,
    "WARDROBE_SUPERVISED": "1", "WARDROBE_TRAIN_PRELOADED": "1", "WARDROBE_TRACING__ENDPOINT": CLOSED,
    "WARDROBE_NO_SUCH_THING": "1", "HF_HOME": NOWHERE, "HF_TOKEN": "hf-user", "HF_HUB_OFFLINE": "0",
    "HF_ENDPOINT": CLOSED, "TRANSFORMERS_CACHE": NOWHERE, "VLLM_API_KEY": "user", "VLLM_PLUGINS": "none",
    "VLLM_LOGGING_LEVEL": "DEBUG", "OPENAI_API_KEY": "sk-user", "OPENAI_BASE_URL": CLOSED,
    "ANTHROPIC_API_KEY": "user", "SOME_API_KEY": "user", "AWS_PROFILE": "user", "WANDB_MODE": "online",
    "MLFLOW_TRACKING_URI": CLOSED, "OTEL_SDK_DISABLED": "true", "HTTP_PROXY": CLOSED, "HTTPS_PROXY": CLOSED,
    "ALL_PROXY": "socks5://127.0.0.1:9", "http_proxy": CLOSED, "https_proxy": CLOSED,
    "all_proxy": "socks5://127.0.0.1:9", "SSL_CERT_FILE": f"{NOWHERE}.pem", "FORCE_COLOR": "1",
    "NO_COLOR": "1", "CLICOLOR_FORCE": "1", "COLUMNS": "20", "LINES": "5", "TERM": "dumb",
    "XDG_CONFIG_HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE, "TZ": "Pacific/Kiritimati",
    "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "LANGUAGE": "de", "OMP_PROC_BIND": "spread",
    "OMP_DISPLAY_ENV": "TRUE", "PYTHONWARNINGS": "default", "PYTHONHASHSEED": "7",
    "LD_PRELOAD": f"{NOWHERE}.so", "MAKEFLAGS": "-j8", "GIT_DIR": NOWHERE, "GIT_CONFIG_GLOBAL": NOWHERE,
    "LOCUST_USERS": "99", "KUBECONFIG": NOWHERE, "PIP_REQUIRE_VIRTUALENV": "1", "PIP_INDEX_URL": CLOSED,
    "RAY_ADDRESS": "10.0.0.1:6379",
}  # fmt: skip
"""What a shell may hold; nearly each of these changed an answer, a message, a width or a server's start."""

LEFT = {
    "serve.toml": SETTINGS,
    ".env": "WARDROBE_ROOT=/nonexistent\nOPENAI_API_KEY=sk-user\n",
    "locust.conf": "users = 99\n",
    "load-results/smoke-1/report.md": "[gone](nowhere.md)\n",
    "venv/lib/README.md": "[gone](nowhere.md)\n",
    ".cache/ray-0/done": "",
    "deploy/compose/.env": "BASE_MODEL=/nonexistent\n",
    "deploy/compose/train/job.yaml": "image: wardrobe:cpu-9.9.9\n",
}
"""What our own commands, and people, leave in a checkout beside a root."""

OF_HOME = {
    ".gitconfig": "[this is not a configuration\n",
    ".netrc": "default login user password secret\n",
    ".locust.conf": "users = 99\n",
    ".config/pip/pip.conf": "[global]\nrequire-virtualenv = no such value\n",
    ".cache/wardrobe/serve.toml": SETTINGS,
}
"""Files of a user's home that programs read unasked."""

SLICE = (
    "tests/test_isolation.py::test_neither_a_test_nor_what_it_starts_sees_anything_of_the_users",
    "tests/test_readme.py::test_every_link_of_the_readmes_leads_somewhere",
    "tests/deploy/test_chart.py::test_every_file_names_the_version_of_the_project",
    "tests/deploy/test_chart.py::test_the_server_reads_the_chart_s_variables_as_they_were_meant",
    "tests/loadtests/test_loadtest_cli.py::test_wrong_input_is_answered_with_its_remedy",
    "tests/registry/test_cli_main.py",
    "tests/registry/test_cli_keys.py",
    "tests/registry/test_cli_output.py",
    "tests/serve/test_settings.py",
    "tests/serve/test_rollout_webhooks.py",
    "tests/train/test_dataset_check.py::test_the_command_ends_with_1_on_an_error_and_never_shows_a_secret",
)
"""Tests that failed, or answered otherwise, beside a root of the demo's and in a shell like `HOSTILE`."""


def test_neither_a_test_nor_what_it_starts_sees_anything_of_the_users() -> None:
    assert {name for name, value in HOSTILE.items() if os.environ.get(name) == value} == set()
    assert list(Path.cwd().iterdir()) == []
    # A cache there may be: of a tool that a test before this one called.
    assert not {".gitconfig", ".config", ".netrc"} & {path.name for path in Path.home().iterdir()}
    assert time.tzname == ("UTC", "UTC")
    assert os.umask(0o022) == 0o022
    code = "import json, os, registry; print(json.dumps([dict(os.environ), os.getcwd(), registry.__file__]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = [dict(os.environ), str(Path.cwd()), str(REPOSITORY / "registry" / "__init__.py")]
    assert json.loads(done.stdout) == found


def test_only_what_tells_where_the_machines_programs_are_is_kept(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "PYTHONPATH": "/one:/two", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}
    found = isolated(given | HOSTILE, Place(tmp_path))
    assert found.keys() - isolated({}, Place(tmp_path)).keys() == given.keys() - {"PATH", "PYTHONPATH"}
    assert given.keys() <= KEPT
    assert {name for name in KEPT if name.startswith(("WARDROBE_", "VLLM_", "HF_"))} == set()
    assert found["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert found["PYTHONPATH"] == f"{REPOSITORY}:/one:/two"
    assert isolated(found, Place(tmp_path))["PYTHONPATH"] == found["PYTHONPATH"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a checkout with the demo's root and all else that lies about, and a user's home beside it."""
    folder = tmp_path_factory.mktemp("clone") / "wardrobe"
    for path in tracked_files() + new_files():
        target = folder / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    subprocess.run("git init --quiet && git add --all", shell=True, cwd=folder, check=True)
    for place, files in ((folder, LEFT), (folder.parent / "home", OF_HOME)):
        for name, text in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
    root = Registry.init(folder / "wardrobe-data", make_base(folder.parent / "base"), name="smollm2")
    root.publish("medical", make_adapter(folder.parent / "medical"), who="demo")
    (folder / "wardrobe-data" / "serve.toml").write_text(SETTINGS)
    return folder


def pytest_in(checkout: Path, temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does: in the checkout, with a shell of one's own."""
    temporary.mkdir(exist_ok=True)
    shell = {name: value for name, value in os.environ.items() if name in KEPT} | HOSTILE
    shell |= {"HOME": f"{checkout.parent}/home", "TMPDIR": str(temporary), "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=checkout, env=shell, capture_output=True, text=True, timeout=200)


def contents(folder: Path) -> Iterator[tuple[str, float]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(folder)), path.stat().st_mtime


def test_tests_pass_beside_the_demos_root_in_a_hostile_shell_and_change_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    before = dict(contents(checkout))
    assert before.keys() >= {"wardrobe-data/layout.json", *LEFT}
    done = pytest_in(checkout, tmp_path / "tmp", *SLICE)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 80
    assert dict(contents(checkout)) == before
    assert list((tmp_path / "tmp").iterdir()) == []


LEAVING = """
import os, pathlib, pytest

def test_file(): pathlib.Path("report.json").write_text("")
def test_root(): pathlib.Path("wardrobe-data/staging").mkdir(parents=True)
def test_variable(): os.environ["WARDROBE_ROOT"] = "/mine"
def test_zone(): del os.environ["TZ"]
def test_folder(tmp_path): os.chdir(tmp_path)
def test_good(tmp_path, monkeypatch):
    assert list(pathlib.Path.cwd().iterdir()) == []
    assert (os.environ.get("WARDROBE_ROOT"), os.environ["TZ"]) == (None, "UTC")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARDROBE_ROOT", "/mine")
    pathlib.Path("report.json").write_text("")
"""


def test_a_test_that_leaves_something_fails_and_the_next_one_does_not_see_it(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "tmp" / f"{PREFIX}of-a-killed-session").mkdir(parents=True)
    (checkout / "tests" / "test_leaving.py").write_text(LEAVING)
    done = pytest_in(checkout, tmp_path / "tmp", "tests/test_leaving.py")
    (checkout / "tests" / "test_leaving.py").unlink()
    failed = set(re.findall(r"^ERROR tests/test_leaving.py::(\w+)", done.stdout, re.MULTILINE))
    assert failed == {"test_file", "test_root", "test_variable", "test_zone", "test_folder"}, done.stdout
    assert "6 passed, 5 errors" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == [], "and what a killed session left is gone"
