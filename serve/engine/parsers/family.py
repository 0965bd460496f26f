"""What of a base model's folder tells its tool format: its type, its chat template, its tokens.

Reads config.json, the template and the tokenizer's text; no model, no vLLM. A folder that cannot be read
tells nothing, which is not an error here: whether it is a model is for others to say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from registry.validation.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME

if TYPE_CHECKING:
    from pydantic import JsonValue

_TOKENIZERS = ("tokenizer.json", "added_tokens.json", "special_tokens_map.json", "vocab.json")
_MISTRAL = "tekken.json"
_TOOLS = re.compile(r"\btools\b")
_OPENS_THINKING = re.compile(r"add_generation_prompt(?!.*add_generation_prompt).*<think>", re.DOTALL)
_SWITCHES_THINKING = re.compile(r"\b(?:enable_thinking|thinking)\b")


@dataclass(frozen=True)
class ModelFamily:
    """A base model as its folder shows it; `template` is '' where it has none."""

    model_type: str
    template: str
    folder: Path

    @classmethod
    def read(cls, folder: Path, template: str | None = None) -> ModelFamily:
        """Read a folder; `template` is the one that vLLM is told to use instead of the folder's."""
        config = _object(folder / "config.json")
        inner = config.get("text_config")
        kind = config.get("model_type") or (inner.get("model_type") if isinstance(inner, dict) else "")
        return cls(str(kind or ""), _template(folder) if template is None else template, folder)

    @property
    def renders_tools(self) -> bool:
        """Return True when the template shows the request's tools to the model."""
        return _TOOLS.search(self.template) is not None

    @property
    def thinks(self) -> bool:
        """Return True when answers begin with thoughts, always or unless a request says otherwise.

        A template may show `<think>` for earlier turns only (Qwen3's Instruct models): such a model does not
        think, and a reasoning parser would take its whole answer for thoughts.
        """
        return self.always_thinks or self._switches_thinking

    @property
    def always_thinks(self) -> bool:
        """Return True when the template opens every answer's thoughts, and no request can switch it off."""
        return _OPENS_THINKING.search(self.template) is not None and not self._switches_thinking

    @property
    def _switches_thinking(self) -> bool:
        return _SWITCHES_THINKING.search(self.template) is not None

    @property
    def is_mistral(self) -> bool:
        """Return True when vLLM uses Mistral's own tokenizer, which has the tool format in it."""
        return not self.template and (self.folder / _MISTRAL).is_file()

    def knows(self, token: str) -> bool:
        """Return True when the tokenizer's files name `token`; some parsers do not start without theirs."""
        return token in self._vocabulary or json.dumps(token)[1:-1] in self._vocabulary

    @cached_property
    def _vocabulary(self) -> str:
        config = {
            k: v for k, v in _object(self.folder / TOKENIZER_CONFIG_NAME).items() if k != "chat_template"
        }
        return "".join(_text(self.folder / name) for name in _TOKENIZERS) + json.dumps(config)


def _template(folder: Path) -> str:
    """Return all templates of a folder: vLLM takes the one called `tool_use` for requests with tools."""
    own = _text(folder / TEMPLATE_NAME)
    more = "".join(
        _text(path) for path in sorted(folder.glob(f"additional_chat_templates/*{TEMPLATE_NAME[-6:]}"))
    )
    embedded = _object(folder / TOKENIZER_CONFIG_NAME).get("chat_template") if not own else None
    if isinstance(embedded, list):
        texts = [item.get("template") for item in embedded if isinstance(item, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return (embedded if isinstance(embedded, str) else own) + more


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _object(path: Path) -> dict[str, JsonValue]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
