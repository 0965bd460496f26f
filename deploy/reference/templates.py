"""The page on chat templates: what each can be trained on, from the table that a test measures."""

from __future__ import annotations

import json
from pathlib import Path

TABLE = Path(__file__).with_name("templates.json")

_HEAD = """# Chat templates

What a conversation is trained as depends on the base's chat template. This table is measured on the models'
own templates that TRL ships in its package, by `tests/train/test_rendering_templates.py`: every answer that
is learnt stands behind the very token ids that vLLM's own code makes of the same messages, and ends with a
token at which the model's `generation_config.json` (or its tokenizer) has the server stop.

- *yes*: one training example per conversation.
- *own examples*: the template changes earlier turns when a later one comes (it drops their reasoning, or
  moves a mark), so each answer is an example of its own, rendered as the server does at that moment. `train
  check` says what that costs; `data.answers: last` learns only the last answer of each row.
- *no*: refused; the way out is below the table.
- Reasoning (`reasoning_content`, `reasoning`, or `<think>…</think>` before the answer): *learnt*, or *left
  out* by the template, which `train check` tells. Where the server's prompt opens a thought, an answer
  without reasoning closes it at once.

gpt-oss is an exception: vLLM renders requests to it with OpenAI's harmony library instead of its template.
`wardrobe train prove` compares with the running server.

"""


def render() -> str:
    """Return the page."""
    table: dict[str, dict[str, str]] = json.loads(TABLE.read_text(encoding="utf-8"))
    columns = list(next(iter(table.values())))
    lines = [f"| template | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    ways: dict[str, list[str]] = {}
    for name, row in table.items():
        for column, word in row.items():
            if word.startswith("no: "):
                ways.setdefault(f"{column}: {word[4:]}", []).append(name)
        lines.append(f"| {name} | {' | '.join(word.partition(':')[0] for word in row.values())} |")
    out = [f"- {way} ({', '.join(names)})." for way, names in sorted(ways.items())]
    return _HEAD + "\n".join(lines) + "\n\n## Ways out\n\n" + "\n".join(out) + "\n"
