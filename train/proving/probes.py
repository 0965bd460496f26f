"""The probes: conversations that no training has seen, and that templates and tokenizers get wrong.

Owns them as plain values. Invariants: each conversation begins with a system or user message, ends with an
answer, and holds no special token of any model; the list only grows, as its hash is part of a proof.
"""

from __future__ import annotations

from pydantic import JsonValue

from registry.validation.canonical import canonical_json, sha256_hex

ProbeTurns = tuple[tuple[str, str], ...]
"""Pairs of role and content, oldest first; the last is the assistant's."""

CONVERSATIONS: tuple[ProbeTurns, ...] = (
    (("user", "What is the capital of Portugal?"), ("assistant", "The capital of Portugal is Lisbon.")),
    (
        ("system", "You are a careful clerk. Answer in one sentence."),
        ("user", "The parcel arrived with a broken lid. May I send it back?"),
        ("assistant", "Yes, you may send it back within thirty days of its arrival."),
    ),
    (
        ("user", "Name a river in Africa."),
        ("assistant", "The Zambezi."),
        ("user", "And where does it end?"),
        ("assistant", "It flows into the Indian Ocean in Mozambique."),
    ),
    (
        ("system", "Answer as the ward's nurse would."),
        ("user", "He was admitted with shortness of breath."),
        ("assistant", "Has he had chest pain as well?"),
        ("user", "No, only a cough for two weeks, and a temperature of 38.4 degrees."),
        ("assistant", "Then we will take an X-ray and a blood count first."),
    ),
    (("user", "Prüfe: naïve façade, Ærøskøbing, Łódź, e\u0301 as two."), ("assistant", "Straße, œuvre.")),
    (("user", "東京の人口は何人ですか。"), ("assistant", "約一千四百万人です。")),
    (("user", "ما هي عاصمة مصر؟"), ("assistant", "القاهرة.")),
    (("user", "👩‍👩‍👧 or 🏳️‍🌈? Pick 1\u200d or 2\u200b."), ("assistant", "🙂👍🏽")),
    (("user", "  two spaces before,\n\n\ttab, breaks,  two after  "), ("assistant", "Kept as they are.")),
    (("user", "Explain {{ user.name }} and {% if x %}…{% endif %}."), ("assistant", "They are Jinja.")),
    (
        ("user", "def parse(line: str) -> dict[str, int]:\n    key, _, value = line.partition('=')\n"),
        ("assistant", "```python\nassert parse('a=1') == {'a': 1}\n```"),
    ),
    (("user", "<b>bold</b> &amp; [INST] \"quotes\" \\n \\u0041 'single' $x^2$"), ("assistant", "Text.")),
    (("system", ""), ("user", "An empty system message stands before."), ("assistant", "So it does.")),
    (
        ("user", "This License does not grant permission to use the trade names of the Licensor. " * 6),
        ("assistant", "Then the names may not be used without written consent."),
    ),
)  # fmt: skip


def _function(name: str, about: str, **properties: JsonValue) -> JsonValue:
    schema: JsonValue = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


def _call(name: str, arguments: str) -> JsonValue:
    return {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}


_WEATHER = _function("get_weather", 'Weather of a city, "now".', city={"type": "string"})
_NOTE: JsonValue = {"type": "function", "function": {"name": "note"}}

TOOL_ROWS: tuple[dict[str, JsonValue], ...] = (
    {
        "messages": [
            {"role": "user", "content": "How is the weather in Łódź?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [_call("get_weather", '{"city": "Łódź"}')],
            },
            {"role": "tool", "tool_call_id": "call00001", "content": '{"sky": "clear", "degrees": 21.5}'},
            {"role": "assistant", "content": "Clear, at 21.5 degrees."},
        ],
        "tools": [_WEATHER, _NOTE],
    },
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Write down: milk."},
            {
                "role": "assistant",
                "content": "One moment.",
                "tool_calls": [_call("note", '{"text": "milk", "at": {"x": [1, 2.0, null]}, "ok": false}')],
            },
            {"role": "tool", "tool_call_id": "call00001", "content": ""},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "Thank you."},
            {"role": "assistant", "content": "You are welcome."},
        ],
        "tools": [_NOTE],
    },
)
"""Conversations with tools, for templates that show them."""


def probes_sha256() -> str:
    """Return the hash (hex) of all conversations."""
    plain: JsonValue = [[list(turn) for turn in one] for one in CONVERSATIONS]
    return sha256_hex(canonical_json([plain, list(TOOL_ROWS)]))
