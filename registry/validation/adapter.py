"""The inspection: what an adapter folder must be to become a version.

Owns the order of the checks; each rule lives in the module of its noun (folder, peft, tensors, lora, fit,
identity). Writes nothing. Invariant: nothing that `inspect` returns depends on the folder staying as it was:
small files are returned as bytes, and the weights carry the SHA-256 of the very bytes that were checked,
which the store compares with the bytes it copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.errors import InvalidAdapter
from registry.records import BaseModelInfo, FileEntry, Limits
from registry.spelling import spelled
from registry.validation.base import template_of
from registry.validation.canonical import decode_document, parse_document, sha256_hex
from registry.validation.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME, embedded_template
from registry.validation.fit import check_base_named, check_fit
from registry.validation.folder import (
    ALLOWED,
    README_NAME,
    check_file_name,
    lead_out,
    list_folder,
    open_regular,
    read_text_file,
    uploadable,
)
from registry.validation.identity import WEIGHTS_NAME, digest
from registry.validation.intake.links import real_file
from registry.validation.intake.prefixes import clean_names
from registry.validation.intake.rendering import same_template
from registry.validation.lora import Lora, pair_tensors
from registry.validation.peft import CONFIG_NAME, LoraConfig, canonical_config, check_servable, parse_config
from registry.validation.tensors import TensorScan, read_header, scan

__all__ = [
    "ALLOWED",
    "WEIGHTS_NAME",
    "InspectedAdapter",
    "TakenFile",
    "check_file_name",
    "digest",
    "inspect",
    "uploadable",
]

_TOKENIZER_CAP_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class TakenFile:
    """One file that a version takes: `source` is the file to copy, or its bytes where they differ from it.

    `size` and `sha256` (hex) are of the bytes that were checked; a copy must have the same. Where tensors
    were renamed, `head` is what is stored in place of the source's first `skipped` bytes.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str
    head: bytes = b""
    skipped: int = 0

    @property
    def entry(self) -> FileEntry:
        """Its line in a manifest."""
        return FileEntry(self.name, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class InspectedAdapter:
    """An adapter that may become a version.

    `rank` is the largest one; `target_modules` are short names, sorted, read from the weights;
    `template_sha256` is None where the adapter brings no chat template of its own; `left_out` are the names
    that were not taken (folders end in `/`); `warnings` are sentences for a person. `base_named` is what the
    config called the base, in its own words; None where it named none, or a fingerprint.
    """

    files: tuple[TakenFile, ...]
    digest: str
    rank: int
    target_modules: tuple[str, ...]
    template_sha256: str | None
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    base_named: str | None = None


def inspect(folder: Path, *, base: BaseModelInfo, limits: Limits, name: str) -> InspectedAdapter:
    """Check a PEFT LoRA folder for the adapter `name` and return what a version of it would hold.

    Reads each file once; memory is bounded by the safetensors header. Raises: InvalidAdapter.
    """
    names = list_folder(folder, name)
    config = parse_config(read_text_file(folder / CONFIG_NAME, name), name)
    check_servable(config, limits, name)
    kept, warnings = lead_out(folder, names)
    warnings += check_base_named(config, base, name)
    lora, weights, found = _inspect_weights(folder / WEIGHTS_NAME, config, base, limits, name)
    warnings += found
    template = _own_template(folder, names, base, name)
    files = [_taken(CONFIG_NAME, canonical_config(config, base.fingerprint)), weights]
    if template is not None:
        files.append(_taken(TEMPLATE_NAME, template))
        warnings.append(
            "its chat template differs from the base's, which alone the server renders with: chat requests "
            f"to this version are refused; leave {TEMPLATE_NAME} out if it was trained on the base's, or "
            "ask /v1/completions with the prompt already rendered"
        )
    if README_NAME in kept:
        _add_readme(folder, files, warnings, name)
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
        left_out=tuple(sorted(spelled(name) for name in names - {file.name for file in files})),
        warnings=tuple(warnings),
        base_named=config.base if config.base and not config.base.startswith("sha256:") else None,
    )


def _inspect_weights(
    path: Path, config: LoraConfig, base: BaseModelInfo, limits: Limits, subject: str
) -> tuple[Lora, TakenFile, list[str]]:
    path = real_file(path, subject)
    file, size = open_regular(path, subject)
    with file:
        if size > limits.max_adapter_bytes:
            raise _too_large(size, limits, subject)
        found = read_header(file, size, subject, WEIGHTS_NAME)
        cleaning = clean_names((tensor.name for tensor in found.tensors), base.modules)
        header = found.renamed(cleaning.names) if cleaning.names else found
        lora = pair_tensors(header.tensors, subject)
        warnings = [*cleaning.warnings(), *check_fit(lora, config, base, subject)]
        result = scan(file, header, subject)
    if result.not_finite:
        fact = f"{len(result.not_finite)} tensors hold NaN or infinity, {result.not_finite[0]} the first"
        remedy = "the training diverged: lower the learning rate, or take an earlier checkpoint"
        raise InvalidAdapter(subject, fact, remedy, reason="nan")
    if _changes_nothing(lora, config, result):
        warnings.append("this adapter changes nothing: B, A or lora_alpha is zero in every module")
    size += len(header.raw) - len(found.raw)
    taken = TakenFile(WEIGHTS_NAME, path, size, result.sha256)
    if cleaning.names:
        taken = replace(taken, head=header.raw, skipped=len(found.raw))
    return lora, taken, warnings


def _changes_nothing(lora: Lora, config: LoraConfig, result: TensorScan) -> bool:
    zero = result.all_zero
    scaled = config.alpha != 0 or any(config.alpha_pattern.values())
    return not scaled or all(pair.a.name in zero or pair.b.name in zero for pair in lora.pairs)


def _own_template(folder: Path, names: frozenset[str], base: BaseModelInfo, subject: str) -> bytes | None:
    """Return the adapter's chat template where it has one that does not render as the base's does."""
    if TEMPLATE_NAME in names:
        template = read_text_file(folder / TEMPLATE_NAME, subject)
    else:
        embedded = _embedded(folder, names, subject)
        if embedded is None:
            return None
        template = embedded.encode()
    return None if _renders_as_bases(template, base) else template


def _renders_as_bases(template: bytes, base: BaseModelInfo) -> bool:
    if sha256_hex(template) == base.chat_template_sha256:
        return True
    own = template_of(base)
    try:
        return own is not None and same_template(template.decode(), own)
    except UnicodeDecodeError:
        return False


def _embedded(folder: Path, names: frozenset[str], subject: str) -> str | None:
    if TOKENIZER_CONFIG_NAME not in names:
        return None
    data = read_text_file(folder / TOKENIZER_CONFIG_NAME, subject, cap_bytes=_TOKENIZER_CAP_BYTES)
    try:
        return embedded_template(parse_document(decode_document(data)))
    except ValueError as error:
        fact = f"{TOKENIZER_CONFIG_NAME} is not JSON that can be trusted: {error}"
        raise InvalidAdapter(
            subject, fact, "save the tokenizer again, or delete it", reason="bad_config"
        ) from error


def _add_readme(folder: Path, files: list[TakenFile], warnings: list[str], subject: str) -> None:
    try:
        files.append(_taken(README_NAME, read_text_file(folder / README_NAME, subject)))
    except InvalidAdapter as error:
        # Nothing is served from it, so nothing is refused for it.
        warnings.append(f"left out: {error.fact}")


def _check_size(files: Iterable[TakenFile], limits: Limits, subject: str) -> None:
    total = sum(file.size for file in files)
    if total > limits.max_adapter_bytes:
        raise _too_large(total, limits, subject)


def _too_large(size: int, limits: Limits, subject: str) -> InvalidAdapter:
    fact = f"takes {size} bytes; max_adapter_bytes is {limits.max_adapter_bytes}"
    remedy = "lower its rank or its target_modules, save it in bfloat16, or raise the limit"
    return InvalidAdapter(subject, fact, remedy, reason="size")


def _taken(name: str, content: bytes) -> TakenFile:
    return TakenFile(name, content, len(content), sha256_hex(content))
