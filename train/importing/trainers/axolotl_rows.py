"""Axolotl's data sets into ours: `datasets`, `pretraining_dataset`, `test_datasets`, `val_set_size`.

Owns what a data set's `type` means (axolotl/prompt_strategies): which columns its rows have, and that the
prompt around them, which Axolotl builds as text, is here the base's own chat template.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.dataset.forms.mapping import FIXED
from train.importing import shared
from train.importing.draft import Draft, is_empty
from train.importing.sources import ForeignRows, set_rows, set_share

_WORDING = "theirs writes a prompt of its own around the row; here it is a turn in the base's chat template"
_INSTRUCTION = {"field_instruction": "instruction", "field_input": "input", "field_output": "output",
                "field_system": "system"}  # fmt: skip
_PAIR = {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected",
         "field_system": "system"}  # fmt: skip
_RATED = {"field_prompt": "prompt", "field_completion": "completion", "field_label": "label",
          "field_system": "system"}  # fmt: skip
# Our key -> the column of rows of this type, where it is another; by the type's whole name or its beginning.
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "alpaca_chat.load_qa": {"prompt": "question", "completion": "answer"},
    "alpaca_chat.load_camel_ai": {"prompt": "message_1", "completion": "message_2"},
    "alpaca_w_system.load_open_orca": {
        "system": "system_prompt", "prompt": "question", "completion": "response",
    },
    "context_qa.load_v2": {"context": "context", "prompt": "question", "completion": "answer"},
    "context_qa.load_404": {"context": "article", "prompt": "unanswerable_question"},
    "context_qa": {"context": "article", "prompt": "question", "completion": "answer"},
    "gpteacher": {"output": "response"},
    "jeopardy": {"instruction": "question", "input": "category", "output": "answer"},
    "oasst": {"prompt": "INSTRUCTION", "completion": "RESPONSE"},
    "summarizetldr": {"prompt": "article", "completion": "summary"},
    "metharme": {"completion": "generation"},
    "reflection": {},
}  # fmt: skip
_PREFERENCES: Mapping[str, Mapping[str, str]] = {
    "intel": {"prompt": "question"},
    "icr": {"prompt": "input"},
    "argilla": {"prompt": "instruction"},
}
_NOT_ROWS: Mapping[str, str] = {
    "input_output": "its segments have labels of their own: write rows as messages, with weight 0 or 1",
    "stepwise_supervised": "reward models of single steps are not here",
    "_synthetic": "made-up tokens are not data: name rows",
    "zephyr.nectar": "its rows rank several answers: write pairs of chosen and rejected",
    "explainchoice": "its rows have choices: write them as prompt and completion",
    "concisechoice": "its rows have choices: write them as prompt and completion",
    "creative_acr": "its rows have critiques and revisions: write them as prompt and completion",
}
_ENTRY = frozenset({
    "path", "type", "split", "name", "data_files", "field", "text_column", "field_messages", "field_chosen",
    "field_rejected", "message_property_mappings", "message_field_role", "message_field_content", "subset",
    "message_field_training", "roles",
})  # fmt: skip
_SAME: Mapping[str, str] = {
    "ds_type": "what a file is, is known by its name",
    "trust_remote_code": shared.CODE,
    "revision": "say it behind the name: hf://org/name@revision",
    "preprocess_shards": shared.PREPARED,
    "field_tools": "tools are read where the form has them",
    "conversation": shared.TEMPLATE,
    "field_human": "the roles of a conversation are known by their names",
    "field_model": "the roles of a conversation are known by their names",
    "template_thinking_key": "reasoning is read from reasoning_content",
    "max_completion_length": "training.max_length counts the whole row",
}
_LOST: Mapping[str, str] = {
    "chat_template": shared.TEMPLATE,
    "chat_template_jinja": shared.TEMPLATE,
    "roles_to_train": shared.ANSWERS,
    "train_on_eos": shared.ANSWERS,
    "train_on_eot": shared.ANSWERS,
    "drop_system_message": "system messages are trained with: take them out of the rows",
    "field_thinking": "reasoning is read from reasoning_content: rename the key in the messages",
    "message_field_training_detail": "parts of a message have no weight of their own",
    "shards": "all of it is read; the source's limit takes fewer",
    "shards_idx": "all of it is read; the source's limit takes fewer",
    "skip": "all of it is read",
    "format": "what a row is, is known by its keys",
}
_OUR_ROLES: Mapping[str, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "chatgpt": "assistant", "system": "system", "tool": "tool", "developer": "system",
}  # fmt: skip


def set_data(draft: Draft, *, sectioned: bool = False) -> None:
    """Set the data, and the method where only the data say it: plain text, or conversations.

    A long row is left out, which is Axolotl's default but not what a guide (`sectioned`) says.

    Raises: UsageError: no data set, or one whose rows no form of ours holds.
    """
    text = _entries(draft, "pretraining_dataset")
    entries = _entries(draft, "datasets")
    if not entries and not text:
        raise draft.refuse("datasets", "(none)", "name one at least: nothing here says what to train on")
    _set_method(draft, entries, text)
    keys = [f"datasets[{at}]" for at in range(len(entries))]
    keys += [f"pretraining_dataset[{at}]" for at in range(len(text))]
    rows = [_rows(draft, key, entry) for key, entry in zip(keys, [*entries, *text], strict=True)]
    held_out = _entries(draft, "test_datasets")
    for at, entry in enumerate(held_out[1:], 1):
        draft.lose(f"test_datasets[{at}]", entry, "one held-out file is measured; join the files")
    set_rows(draft, rows, _rows(draft, "test_datasets[0]", held_out[0]) if held_out else None)
    set_share(draft, "val_set_size")
    strategy = {"drop": "drop", "truncate": "truncate", "raise": "error"}
    given = str(draft.take("excess_length_strategy", "drop", ours="data.overflow"))
    if draft.get("method.type") != "pretrain" and not sectioned:
        draft.set("data.overflow", strategy.get(given, "drop"))


def _set_method(draft: Draft, entries: list[dict[str, Any]], text: list[dict[str, Any]]) -> None:
    if draft.get("method.type") is not None:
        return
    kinds = {_is_text(entry) for entry in entries} | ({True} if text else set())
    if len(kinds) > 1:
        remedy = "train one after the other (from)"
        raise draft.refuse("datasets", "plain text beside conversations", remedy)
    draft.set("method", {"type": "pretrain" if kinds == {True} else "supervised"})


def _entries(draft: Draft, key: str) -> list[dict[str, Any]]:
    value = draft.take(key, ours="data.eval" if key == "test_datasets" else "data.train")
    found = value if isinstance(value, list) else [] if is_empty(value) else [value]
    for entry in found:
        if not isinstance(entry, dict | str):
            raise draft.refuse(key, entry, "an entry is a path, or a section with a path")
    return [entry if isinstance(entry, dict) else {"path": entry} for entry in found]


def _is_text(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("type", "")).startswith(("completion", "pretrain"))


def _rows(draft: Draft, key: str, entry: Mapping[str, Any]) -> ForeignRows:
    if is_empty(entry.get("path")):
        raise draft.refuse(f"{key}.path", "(none)", "name the rows' file, or a data set on a hub")
    files = entry.get("data_files") or ()
    columns = _columns(draft, key, entry)
    for name in sorted(set(entry) - _ENTRY):
        if name in _SAME:
            draft.ignore(f"{key}.{name}", entry[name], _SAME[name])
        else:
            draft.lose(f"{key}.{name}", entry[name], _LOST.get(name, f"{shared.UNKNOWN} (Axolotl)"))
    return ForeignRows(
        key=f"{key}.path",
        given=str(entry["path"]),
        split=entry.get("split"),
        subset=entry.get("name") or entry.get("subset"),
        files=[files] if isinstance(files, str) else files,
        columns={ours: theirs for ours, theirs in columns.items() if ours != theirs},
    )


def _columns(draft: Draft, key: str, entry: Mapping[str, Any]) -> dict[str, str]:
    kind = entry.get("type")
    if isinstance(kind, dict):
        return _own_fields(draft, key, kind)
    name = str(kind or "")
    for beginning, why in _NOT_ROWS.items():
        if name.startswith(beginning):
            raise draft.refuse(f"{key}.type", name, why)
    if _is_text(entry):
        field = entry.get("field") or entry.get("text_column")
        return {"text": str(field)} if field else {}
    method = draft.get("method.type")
    if method in {"dpo", "kto", "orpo", "reward"}:
        return _preference_columns(draft, key, entry, name)
    if name in {"", "chat", "chatml", "messages"} or name.startswith(("chat_template", "sharegpt")):
        return _conversation_columns(draft, key, entry)
    draft.change(f"{key}.type", name, _WORDING)
    found = next((table for begin, table in _COLUMNS.items() if name.startswith(begin)), None)
    if found is None and not name.startswith(("alpaca", "orcamini", "pygmalion", "llama2_chat")):
        draft.lose(f"{key}.type", name, "is a prompt that is not known here: rows are read by their keys")
    return dict(found or {})


def _own_fields(draft: Draft, key: str, kind: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a type that names its own fields, and its fixed system prompt."""
    method = draft.get("method.type")
    table = _RATED if method == "kto" else _PAIR if method in {"dpo", "orpo", "reward"} else _INSTRUCTION
    found = {ours: str(kind[field]) for field, ours in table.items() if not is_empty(kind.get(field))}
    text = kind.get("system_prompt")
    if not is_empty(text) and "system" not in found:
        found["system"] = f"{FIXED}{text}"
    for name in sorted(set(kind) - set(table) - ({"system_prompt"} if "system" in found else set())):
        draft.lose(f"{key}.type.{name}", kind[name], _WORDING)
    return found


def _preference_columns(draft: Draft, key: str, entry: Mapping[str, Any], name: str) -> dict[str, str]:
    template, _, form = name.partition(".")
    if template not in {"", "chat_template", "bradley_terry", "passthrough"}:
        draft.change(f"{key}.type", name, shared.TEMPLATE)
    found = dict(_PREFERENCES.get(form, {}))
    if name == "bradley_terry.chat_template":
        found = {"prompt": "input"}
    if name == "chat_template.argilla" or form == "argilla_chat":
        found = {}
    if "field_messages" in entry:
        found["prompt"] = str(entry["field_messages"])
    for field in ("chosen", "rejected"):
        if f"field_{field}" in entry:
            found[field] = str(entry[f"field_{field}"])
    _say_inner(draft, key, entry, "role", "content")
    return found


def _conversation_columns(draft: Draft, key: str, entry: Mapping[str, Any]) -> dict[str, str]:
    mapping = entry.get("message_property_mappings") or {}
    role = mapping.get("role", entry.get("message_field_role"))
    sharegpt = role == "from" or (role is None and str(entry.get("type", "")).startswith("sharegpt"))
    ours = "conversations" if sharegpt else "messages"
    _say_inner(draft, key, entry, *(("from", "value") if sharegpt else ("role", "content")))
    field = entry.get("field_messages") or entry.get("field")
    return {ours: str(field)} if field else {}


def _say_inner(draft: Draft, key: str, entry: Mapping[str, Any], role: str, content: str) -> None:
    """Name keys of the messages and roles that ours does not know."""
    mapping = dict(entry.get("message_property_mappings") or {})
    for field in ("role", "content"):
        if f"message_field_{field}" in entry:
            mapping.setdefault(field, entry[f"message_field_{field}"])
    for field, wanted in (("role", role), ("content", content)):
        if mapping.get(field, wanted) != wanted:
            reason = f"a message's {field} is read from {wanted!r}: rename it in the rows"
            draft.lose(f"{key}.message_property_mappings.{field}", mapping[field], reason)
    for target, sources in (entry.get("roles") or {}).items():
        for source in sources if isinstance(sources, list) else [sources]:
            if _OUR_ROLES.get(str(source)) != target:
                draft.lose(f"{key}.roles", f"{source}: {target}", "is not a role that is known: rename it")
    if entry.get("message_field_training"):
        reason = "say `weight: 0` in a message that is not to be learnt"
        draft.lose(f"{key}.message_field_training", entry["message_field_training"], reason)
