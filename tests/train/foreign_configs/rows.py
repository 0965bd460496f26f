"""Rows in the form that an imported config reads, under the columns that it maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COUNT = 300


def put_rows(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with a file of made-up rows in the place of each of its data sets."""
    data, method = dict(config["data"]), config["method"]["type"]
    data["train"] = [_put(folder, source, method, at) for at, source in enumerate(data["train"])]
    held_out = data.get("eval")
    if isinstance(held_out, str):
        held_out = {"path": held_out}
    if isinstance(held_out, dict) and "path" in held_out:
        data["eval"] = _put(folder, held_out, method, len(data["train"]))
    return {**config, "data": data}


def _put(folder: Path, source: Mapping[str, Any], method: str, at: int) -> dict[str, Any]:
    columns = source.get("columns", {})
    path = folder / f"rows-{at}.jsonl"
    rows = (_row(method, columns, number) for number in range(at * COUNT, (at + 1) * COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = {key: value for key, value in source.items() if key != "split"}
    return {**kept, "path": str(path)}


def _row(method: str, columns: Mapping[str, str], number: int) -> dict[str, Any]:
    question, answer = f"what is item {number}", f"a box of {number} screws and {number * 7} more"
    if method == "pretrain":
        found: dict[str, Any] = {"text": f"{question} {answer}"}
    elif method in {"dpo", "orpo", "reward"}:
        found = {"prompt": question, "chosen": answer, "rejected": f"no {number}"}
    elif method == "kto":
        found = {"prompt": question, "completion": answer, "label": number % 2 == 0}
    else:
        found = _supervised(columns, question, answer)
    return {columns.get(key, key): value for key, value in found.items()}


def _supervised(columns: Mapping[str, str], question: str, answer: str) -> dict[str, Any]:
    if "conversations" in columns:
        return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
    if {"prompt", "completion"} & set(columns):
        optional = {key: "say yes" for key in ("context", "system") if key in columns}
        return {**optional, "prompt": question, "completion": answer}
    if {"instruction", "output", "input"} & set(columns):
        optional = {key: "say yes" for key in ("input", "system") if key in columns}
        return {"instruction": question, **optional, "output": answer}
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
