"""The published structure of the platform's objects, in our own words: names, types, enums, what is required.

From OpenAI's specification of 2026-08-21. `check` fails for what a strict reader of it would refuse, and for a
field that it does not have.
"""

from __future__ import annotations

from typing import Any

import jsonschema

_TEXT, _NUMBER, _TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_OR_NULL = {"anyOf": [_TEXT, {"type": "null"}]}
_METADATA = {"anyOf": [{"type": "object", "additionalProperties": _TEXT}, {"type": "null"}]}


def _one(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _object(required: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(of: dict[str, Any], required: str = "object data has_more") -> dict[str, Any]:
    return _object(
        required,
        object=_one("list"),
        data={"type": "array", "items": of},
        first_id=_TEXT,
        last_id=_TEXT,
        has_more=_TRUTH,
    )


_FILE = _object(
    "id object bytes created_at filename purpose status",
    id=_TEXT,
    object=_one("file"),
    bytes=_NUMBER,
    created_at=_NUMBER,
    expires_at=_NUMBER,
    filename=_TEXT,
    purpose=_one(
        "assistants", "assistants_output", "batch", "batch_output", "fine-tune", "fine-tune-results", "vision",
        "user_data",
    ),
    status=_one("uploaded", "processed", "error"),
    status_details=_TEXT,
)  # fmt: skip
_BATCH = _object(
    "id object endpoint input_file_id completion_window status created_at",
    id=_TEXT,
    object=_one("batch"),
    endpoint=_TEXT,
    model=_TEXT,
    errors=_object(
        "",
        object=_TEXT,
        data={
            "type": "array",
            "items": _object(
                "",
                code=_TEXT,
                message=_TEXT,
                param=_OR_NULL,
                line={"anyOf": [_NUMBER, {"type": "null"}]},
            ),
        },
    ),
    input_file_id=_TEXT,
    completion_window=_TEXT,
    status=_one(
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ),
    output_file_id=_TEXT,
    error_file_id=_TEXT,
    **dict.fromkeys(
        (
            "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at",
            "expired_at", "cancelling_at", "cancelled_at",
        ),
        _NUMBER,
    ),
    request_counts=_object("total completed failed", total=_NUMBER, completed=_NUMBER, failed=_NUMBER),
    usage=_object(
        "input_tokens input_tokens_details output_tokens output_tokens_details total_tokens",
        input_tokens=_NUMBER,
        input_tokens_details=_object("cached_tokens", cached_tokens=_NUMBER),
        output_tokens=_NUMBER,
        output_tokens_details=_object("reasoning_tokens", reasoning_tokens=_NUMBER),
        total_tokens=_NUMBER,
    ),
    metadata=_METADATA,
)  # fmt: skip

OBJECTS: dict[str, dict[str, Any]] = {
    "file": _FILE,
    "files": _list(_FILE, "object data first_id last_id has_more"),
    "deleted file": _object("id object deleted", id=_TEXT, object=_one("file"), deleted=_TRUTH),
    "upload": _object(
        "bytes created_at expires_at filename id purpose status",
        id=_TEXT,
        created_at=_NUMBER,
        filename=_TEXT,
        bytes=_NUMBER,
        purpose=_TEXT,
        status=_one("pending", "completed", "cancelled", "expired"),
        expires_at=_NUMBER,
        object=_one("upload"),
        file=_FILE,
    ),
    "part": _object(
        "created_at id object upload_id",
        id=_TEXT,
        created_at=_NUMBER,
        upload_id=_TEXT,
        object=_one("upload.part"),
    ),
    "batch": _BATCH,
    "batches": _list(_BATCH),
    "error": _object(
        "error",
        error=_object(
            "message type param code", message=_TEXT, type=_TEXT, param=_OR_NULL, code=_OR_NULL
        ),
    ),
}


def check(kind: str, answer: object) -> None:
    """Fail unless `answer` has the published structure of `kind`."""
    jsonschema.validate(answer, OBJECTS[kind], cls=jsonschema.Draft202012Validator)
