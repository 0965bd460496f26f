"""Templates that render the same are the same; what never ends or cannot be rendered ends nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from registry.records import BaseModelInfo
from registry.store import Registry
from registry.validation.base import read_base, template_of
from registry.validation.intake import rendering
from registry.validation.intake.rendering import same_template
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.store import make_registry
from tests.registry.inspecting import check

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As TRL patches it for a loss on the answers only, and as a person would lay it out.
MARKED = (
    "{# one's own layout #}\n"
    "{%- for message in messages -%}\n"
    "{%- if loop.first and messages[0].role != 'system' -%}\n"
    "{{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' -}}\n{%- endif -%}\n"
    "{{- '<|im_start|>' ~ message.role ~ '\n' -}}\n"
    "{%- if message.role == 'assistant' -%}\n"
    "{%- generation -%}{{- message.content + '<|im_end|>' + '\n' -}}{%- endgeneration -%}\n"
    "{%- else -%}{{- message.content + '<|im_end|>' + '\n' -}}{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}\n"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    folder = make_base(tmp_path_factory.mktemp("models") / "tiny", chat_template=CHATML)
    return read_base(folder, "tiny")


@pytest.mark.parametrize(
    "same",
    [
        CHATML + "\n",
        CHATML.replace("\n", "\r\n"),
        CHATML + "\r\n",
        CHATML.replace("\n", "\r"),
        CHATML + "\n\n",
        MARKED,
    ],
)
def test_a_template_that_renders_the_same_is_the_bases(
    tmp_path: Path, base: BaseModelInfo, same: str
) -> None:
    plain = check(make_adapter(tmp_path / "plain"), base)
    folder = make_adapter(tmp_path / "a")
    (folder / "chat_template.jinja").write_bytes(same.encode())
    found = check(folder, base)
    assert (found.digest, found.template_sha256, found.warnings) == (plain.digest, None, ())
    embedded = make_adapter(tmp_path / "b")
    (embedded / "tokenizer_config.json").write_text(json.dumps({"chat_template": same}))
    assert check(embedded, base).digest == plain.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("helpful", "unhelpful"),
        ("<|im_end|>", "<|im_end|> "),
        ("{% if add_generation_prompt %}", "{% if not add_generation_prompt %}"),
        ("{% for message in messages %}", "{% for message in messages %}{% if tools %}T{% endif %}"),
        ("message['content']", "message['content'].strip()"),
        ("message['content'] +", "(message['content'] or reasoning) +"),
        ("message['role'] +", "(message['role'] | replace('tool', 'user')) +"),
        ("{% endfor %}", "{% endfor %}{% if enable_thinking %}<think>{% endif %}"),
    ],
)
def test_a_template_that_renders_otherwise_is_another(
    tmp_path: Path, base: BaseModelInfo, old: str, new: str
) -> None:
    assert old in CHATML
    found = check(make_adapter(tmp_path / "a", chat_template=CHATML.replace(old, new)), base)
    assert found.template_sha256 is not None
    assert "chat template differs" in found.warnings[0]


def test_a_template_that_cannot_be_rendered_is_compared_by_its_text() -> None:
    broken = "{% for %}"
    assert same_template(broken, broken + " \n\n")
    assert not same_template(broken, "{% if %}")
    assert not same_template(broken, CHATML)
    refusing = "{{ raise_exception('no') }}"
    assert same_template(refusing, refusing + "  \n")
    assert not same_template(refusing, "{{ raise_exception('never') }}")


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'a' * 10**11 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_a_template_that_never_ends_or_fills_the_memory_is_another(bomb: str) -> None:
    assert not same_template(CHATML, bomb)


def test_a_rendering_that_does_not_come_in_time_proves_nothing() -> None:
    assert not same_template(CHATML, CHATML + "{# other #}", wait_seconds=0.0)
    assert same_template(CHATML, CHATML + " \n ", wait_seconds=0.0)


def test_a_working_directory_cannot_stand_in_for_the_renderers_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jinja2.py", "json.py", "registry.py", "resource.py"):
        (tmp_path / name).write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    assert same_template(CHATML, MARKED)


def test_the_template_is_recorded_with_the_root_and_an_older_root_reads_it_from_the_base(
    tmp_path: Path,
) -> None:
    registry = make_registry(tmp_path)
    assert registry.base.chat_template is not None
    path = registry.root / "base.json"
    fields = json.loads(path.read_text())
    text = fields.pop("chat_template")
    path.chmod(0o644)
    path.write_text(json.dumps(fields))
    older = Registry.open(registry.root).base
    assert (older.chat_template, template_of(older)) == (None, text)
    assert template_of(replace(older, path=tmp_path / "gone")) is None
    assert template_of(replace(older, chat_template_sha256="0" * 64)) is None
    assert template_of(replace(older, chat_template_sha256=None)) is None


def test_the_worker_renders_as_transformers_does() -> None:
    """What transformers adds to Jinja is there: its filter, its two functions, loop controls."""
    worker = rendering._WORKER
    assert worker.is_file()
    rich = (
        "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{{ m | tojson(indent=2) }}"
        "{{ strftime_now('%Y') }}{% endfor %}"
    )
    assert same_template(rich, rich.replace("{% break %}", "{% break %}{# x #}"))
    assert not same_template(rich, rich.replace("indent=2", "indent=4"))
