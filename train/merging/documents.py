"""The JSON report of a merge: `merge.json` in the new folder, and what `--json` prints."""

from __future__ import annotations

from registry.api.documents import Document
from train.merging.extraction import Extraction
from train.merging.losses import Losses
from train.merging.parity import LogitParity

REPORT_NAME = "merge.json"


class MergeReport(Document):
    """What was made of what.

    `form` is `model`, `lora`, `gguf` or `gguf-lora`; `extraction` is only there for `lora`, `loss` where rows
    were given. `dtype` may be a kind of quantised blocks; `size_bytes` is of the weights. `warnings` are for
    a person.
    """

    form: str
    out: str
    source: str
    source_digest: str
    base: str
    base_fingerprint: str
    dtype: str
    size_bytes: int
    parity: LogitParity
    loss: Losses | None
    extraction: Extraction | None
    warnings: list[str]
    seconds: float
    packages: dict[str, str]
