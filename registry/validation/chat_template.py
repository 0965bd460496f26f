"""A folder's chat template: `chat_template.jinja`, else the one inside `tokenizer_config.json`.

Owns where the template is looked for; transformers looks in the same order. Both an adapter's folder and a
base's are read by it, so that equal templates are seen to be equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"


def embedded_template(tokenizer_config: JsonValue) -> str | None:
    """Return the template inside a parsed `tokenizer_config.json`: a text, or the list's `default`."""
    value = tokenizer_config.get("chat_template") if isinstance(tokenizer_config, dict) else None
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
        value = named[0].get("template") if named else None
    return value if isinstance(value, str) else None
