"""The request's body: looked into, and rewritten.

The body is taken apart at its top level only; the bytes of every value stay the client's own. What goes
on is put together from what was parsed here, so the server behind cannot read another `model` out of it
than the one that was routed (duplicate keys, escaped keys).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from serve.errors import BadBody
from serve.protocol.numbers import whole_number

Fields = dict[str, Raw]

SERVER_PATH_FIELDS = frozenset(
    {
        "adapter_path", "load_inplace", "lora_int_id", "lora_local_path", "lora_modules", "lora_name",
        "lora_path", "lora_request", "model_path", "tokenizer_path",
    }
)  # fmt: skip
"""Fields that would name files of the server; which version answers is said by `model` alone."""

TRANSFER_FIELDS = frozenset({"ec_transfer_params", "kv_transfer_params"})
"""Fields that name other hosts; allowed only where the server was configured for such transfers."""

_decode = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode


def parse_fields(body: bytes, refused: frozenset[str]) -> Fields:
    """Return the body's top-level fields, their values as the client wrote them.

    Raises: BadBody: no JSON object, or one with a field of `refused`.
    """
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody("body", f"is not a JSON object: {error}", "send one with content-type JSON") from error
    if not refused.isdisjoint(fields):
        raise _refused(min(refused.intersection(fields)))
    if "vllm_xargs" in fields:
        _look_into_extras(fields["vllm_xargs"], refused)
    return fields


def _refused(name: str) -> BadBody:
    fact = "names files or hosts of the server, which a request may not"
    return BadBody(name, fact, "leave it out; `model` says which version answers", param=name)


def _look_into_extras(raw: Raw, refused: frozenset[str]) -> None:
    # vLLM takes the fields of this one as if they stood beside it.
    try:
        extras = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # no object: vLLM refuses it
    if not refused.isdisjoint(extras):
        raise _refused(f"vllm_xargs.{min(refused.intersection(extras))}")


def name_model(fields: Fields, name: str) -> None:
    """Set `model` to what the path named; a body names the same, null, or nothing.

    Raises: BadBody.
    """
    raw = fields.get("model")
    if raw is not None and bytes(raw) != b"null" and msgspec.json.decode(raw) != name:
        fact = f"{bytes(raw)[:100].decode(errors='replace')} is not {name}, which the path names"
        raise BadBody("model", fact, "leave it out, or ask the path of the other one", param="model")
    fields["model"] = Raw(b'"%s"' % name.encode())


def join_fields(fields: Fields) -> bytes:
    """Return the JSON object of `fields`."""
    return _encode(fields)


def cap_tokens(fields: Fields, names: tuple[str, ...], limit: int) -> None:
    """Hold an answer's tokens to `limit`: a higher wish is refused, a missing one becomes the limit.

    `names` are the fields that vLLM reads on this path; what it does not read caps nothing.

    Raises: BadBody: over the limit, or no whole number.
    """
    capped = False
    for name in (*names, "min_tokens"):
        if name not in fields or bytes(fields[name]) == b"null":
            continue
        value = whole_number(fields[name])
        if value is None:
            raise BadBody(name, "is not a whole number", "correct it, or leave it out", param=name)
        if value > limit:
            raise BadBody(name, f"{value} exceeds this server's {limit}", "ask for fewer tokens", param=name)
        capped |= name in names
    if not capped:
        fields[names[0]] = Raw(str(limit).encode())
