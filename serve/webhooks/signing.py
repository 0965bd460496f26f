"""The signature of a webhook, as OpenAI's clients check it (`client.webhooks.unwrap`). Pure.

Owns the three headers of the Standard Webhooks specification 1.0: `webhook-id`, `webhook-timestamp` and
`webhook-signature`, `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
MIN_SECRET_BYTES = 24
"""The specification's least; its most is 64."""


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver knows the sender; `timestamp` in UNIX seconds.

    Raises: ValueError: not a secret.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(decode_secret(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def decode_secret(secret: str) -> bytes:
    """Return the key of a secret `whsec_…`.

    Raises: ValueError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"must be {SECRET_PREFIX} and the base64 of {MIN_SECRET_BYTES} random bytes or more")
    return key
