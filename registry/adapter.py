"""What an adapter folder must be to become a version, and the version's identity.

Owns the allow-list of files, the order of the checks and the digest; writes nothing. Invariant: nothing that
`inspect` returns depends on the folder staying as it was: small files are returned as bytes, and the weights
carry the SHA-256 of the very bytes that were checked, which the store compares with the bytes it copied.

Decisions: only named files are taken, so a new kind of dangerous file is left out without being known;
pickled weights are refused, never scanned, because scanners of pickles are beaten regularly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from registry.canonical import canonical_json, parse_document, sha256_hex
from registry.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME, embedded_template
from registry.errors import InvalidAdapter
from registry.fit import check_base_named, check_fit
from registry.lora import Lora, pair_tensors
from registry.peft import CONFIG_NAME, LoraConfig, canonical_config, check_servable, parse_config
from registry.records import BaseModel, FileEntry, Limits
from registry.tensors import Scan, open_regular, read_header, scan

if TYPE_CHECKING:
    from pydantic import JsonValue

WEIGHTS_NAME = "adapter_model.safetensors"
README_NAME = "README.md"
# The files of a version, and of an upload; everything else is left out.
ALLOWED = frozenset({WEIGHTS_NAME, CONFIG_NAME, README_NAME, TEMPLATE_NAME})
# The files that a digest is made of.
HASHED = frozenset({WEIGHTS_NAME, CONFIG_NAME, TEMPLATE_NAME})
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TEXT_CAP_BYTES = 1024**2
_TOKENIZER_CAP_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class TakenFile:
    """One file that a version takes: `source` is the file to copy, or its bytes where they differ from it.

    `size` and `sha256` (hex) are of the bytes that were checked; a copy must have the same. `hashed` tells
    whether it is part of the identity.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str
    hashed: bool

    @property
    def entry(self) -> FileEntry:
        """Its line in a manifest."""
        return FileEntry(self.name, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class InspectedAdapter:
    """An adapter that may become a version.

    `rank` is the largest one; `target_modules` are short names, sorted, read from the weights;
    `template_sha256` is None where the adapter brings no chat template of its own; `left_out` are the names
    that were not taken (folders end in `/`); `warnings` are sentences for a person.
    """

    files: tuple[TakenFile, ...]
    digest: str
    rank: int
    target_modules: tuple[str, ...]
    template_sha256: str | None
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect(folder: Path, *, base: BaseModel, limits: Limits, name: str) -> InspectedAdapter:
    """Check a PEFT LoRA folder for the adapter `name` and return what a version of it would hold.

    Reads each file once; memory is bounded by the safetensors header. Raises: InvalidAdapter.
    """
    names = _list(folder, name)
    _check_weights_present(folder, names, name)
    config = parse_config(_read_small(folder / CONFIG_NAME, name), name)
    check_servable(config, limits, name)
    warnings = check_base_named(config, base, name)
    lora, weights, found = _inspect_weights(folder / WEIGHTS_NAME, config, base, limits, name)
    warnings += found
    template = _own_template(folder, names, base, name)
    files = [_taken(CONFIG_NAME, canonical_config(config, base.fingerprint)), weights]
    if template is not None:
        files.append(_taken(TEMPLATE_NAME, template))
        warnings.append("its chat template differs from the base's, which the server renders with")
    if README_NAME in names:
        files.append(_taken(README_NAME, _read_small(folder / README_NAME, name)))
    files.sort(key=lambda file: file.name)
    _check_size(files, limits, name)
    template_sha256 = None if template is None else sha256_hex(template)
    return InspectedAdapter(
        files=tuple(files),
        digest=digest((file.entry for file in files), base.fingerprint, template_sha256),
        rank=max(
            (pair.rank for pair in lora.pairs if not pair.is_fused_experts), default=config.highest_rank
        ),
        target_modules=lora.leaves,
        template_sha256=template_sha256,
        left_out=tuple(sorted(names - {file.name for file in files})),
        warnings=tuple(warnings),
    )


def digest(files: Iterable[FileEntry], base_fingerprint: str, template_sha256: str | None) -> str:
    """Return the identity of a version, `sha256:…`; files that are no part of it (README.md) are passed over.

    No name, number, time, note or lineage goes in: the same content has the same digest anywhere.
    """
    entries: list[JsonValue] = [
        {"path": file.path, "size": file.size, "sha256": file.sha256}
        for file in sorted(files, key=lambda file: file.path)
        if file.path in HASHED
    ]
    identity: dict[str, JsonValue] = {
        "files": entries,
        "base": base_fingerprint,
        "chat_template": template_sha256,
    }
    return f"sha256:{hashlib.sha256(canonical_json(identity)).hexdigest()}"


def uploadable(folder: Path, subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names to send of a PEFT LoRA folder, and the names to leave out, both sorted.

    A folder that `inspect` would refuse for what is in it, or not in it, is refused here too.
    Raises: InvalidAdapter.
    """
    names = _list(folder, subject)
    _check_weights_present(folder, names, subject)
    sent = names & {*ALLOWED, TOKENIZER_CONFIG_NAME}
    return tuple(sorted(sent)), tuple(sorted(names - sent))


def check_file_name(file_name: str, subject: str) -> str:
    """Return the name of an uploaded file if it may be written into a folder for `inspect`.

    Raises: InvalidAdapter: reason `pickle` for pickled weights, `path` for any other name not in ALLOWED.
    """
    if file_name in ALLOWED or file_name == TOKENIZER_CONFIG_NAME:
        return file_name
    if file_name.endswith(_PICKLES):
        raise _pickled(file_name, subject)
    fact = f"{file_name[:80]!r} is no file of an adapter"
    raise InvalidAdapter(
        subject, fact, f"send only {', '.join(sorted(ALLOWED))}", reason="path", param="files"
    )


def _list(folder: Path, subject: str) -> frozenset[str]:
    try:
        return frozenset(
            entry.name + ("/" if entry.is_dir() and entry.name not in ALLOWED else "")
            for entry in folder.iterdir()
        )
    except OSError as error:
        fact = f"{folder} cannot be read as a folder: {error.strerror}"
        raise InvalidAdapter(subject, fact, "give the folder of a PEFT adapter", reason="path") from error


def _check_weights_present(folder: Path, names: frozenset[str], subject: str) -> None:
    if {WEIGHTS_NAME, CONFIG_NAME} <= names:
        return
    pickles = sorted(name for name in names if name.endswith(_PICKLES) and name.startswith("adapter"))
    if pickles and WEIGHTS_NAME not in names:
        raise _pickled(pickles[0], subject)
    missing = CONFIG_NAME if CONFIG_NAME not in names else WEIGHTS_NAME
    checkpoints = sorted(name for name in names if name.startswith("checkpoint-"))
    remedy = "give the folder that PEFT's save_pretrained wrote"
    if checkpoints:
        remedy = f"give one of its checkpoints, for instance {folder / checkpoints[-1]}"
    elif "config.json" in names:
        remedy = "this is a whole model; give the folder of a LoRA adapter for it"
    reason = "bad_config" if missing == CONFIG_NAME else "modules"
    raise InvalidAdapter(subject, f"{folder} holds no {missing}", remedy, reason=reason)


def _inspect_weights(
    path: Path, config: LoraConfig, base: BaseModel, limits: Limits, subject: str
) -> tuple[Lora, TakenFile, list[str]]:
    file, size = open_regular(path, subject)
    with file:
        if size > limits.max_adapter_bytes:
            raise _too_large(size, limits, subject)
        header = read_header(file, size, subject)
        lora = pair_tensors(header.tensors, subject)
        warnings = check_fit(lora, config, base, limits, subject)
        result = scan(file, header, subject)
    if result.not_finite:
        fact = f"{len(result.not_finite)} tensors hold NaN or infinity, {result.not_finite[0]} the first"
        remedy = "the training diverged: lower the learning rate, or take an earlier checkpoint"
        raise InvalidAdapter(subject, fact, remedy, reason="nan")
    if _changes_nothing(lora, config, result):
        warnings.append("this adapter changes nothing: B, A or lora_alpha is zero in every module")
    return lora, TakenFile(WEIGHTS_NAME, path, size, result.sha256, hashed=True), warnings


def _changes_nothing(lora: Lora, config: LoraConfig, result: Scan) -> bool:
    zero = result.all_zero
    scaled = config.alpha != 0 or any(config.alpha_pattern.values())
    return not scaled or all(pair.a.name in zero or pair.b.name in zero for pair in lora.pairs)


def _own_template(folder: Path, names: frozenset[str], base: BaseModel, subject: str) -> bytes | None:
    """Return the adapter's chat template where it has one and it differs from the base's."""
    if TEMPLATE_NAME in names:
        template = _read_small(folder / TEMPLATE_NAME, subject)
    else:
        embedded = _embedded(folder, names, subject)
        if embedded is None:
            return None
        template = embedded.encode()
    return None if sha256_hex(template) == base.chat_template_sha256 else template


def _embedded(folder: Path, names: frozenset[str], subject: str) -> str | None:
    if TOKENIZER_CONFIG_NAME not in names:
        return None
    data = _read_small(folder / TOKENIZER_CONFIG_NAME, subject, cap_bytes=_TOKENIZER_CAP_BYTES)
    try:
        return embedded_template(parse_document(data))
    except ValueError as error:
        fact = f"{TOKENIZER_CONFIG_NAME} is not JSON that can be trusted: {error}"
        raise InvalidAdapter(
            subject, fact, "save the tokenizer again, or delete it", reason="bad_config"
        ) from error


def _read_small(path: Path, subject: str, *, cap_bytes: int = _TEXT_CAP_BYTES) -> bytes:
    with BufferedReader(open_regular(path, subject)[0]) as file:
        data = file.read(cap_bytes + 1)
    if len(data) > cap_bytes:
        fact = f"{path.name} is larger than {cap_bytes} bytes"
        raise InvalidAdapter(subject, fact, "shorten it, or delete it if it is not needed", reason="size")
    if not data and path.name != README_NAME:
        raise InvalidAdapter(subject, f"{path.name} is empty (0 bytes)", "save it again", reason="size")
    return data


def _check_size(files: Iterable[TakenFile], limits: Limits, subject: str) -> None:
    total = sum(file.size for file in files)
    if total > limits.max_adapter_bytes:
        raise _too_large(total, limits, subject)


def _too_large(size: int, limits: Limits, subject: str) -> InvalidAdapter:
    fact = f"takes {size} bytes; max_adapter_bytes is {limits.max_adapter_bytes}"
    remedy = "lower its rank or its target_modules, save it in bfloat16, or raise the limit"
    return InvalidAdapter(subject, fact, remedy, reason="size")


def _pickled(file_name: str, subject: str) -> InvalidAdapter:
    fact = f"{file_name} holds pickled weights, which can run code when read; only safetensors is taken"
    remedy = "save with PEFT's save_pretrained(safe_serialization=True)"
    return InvalidAdapter(subject, fact, remedy, reason="pickle", param="files")


def _taken(name: str, content: bytes) -> TakenFile:
    return TakenFile(name, content, len(content), sha256_hex(content), hashed=name in HASHED)
