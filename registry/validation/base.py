"""The base model's record: its fingerprint, its chat template's hash and its modules' shapes.

Owns what of a model folder is identity (config.json and the tokenizer, without the fields that a save or a
move changes) and which modules can carry a LoRA. Reads headers only, never weights, so it takes
milliseconds for any size. Invariant: moving or re-saving a base does not change its fingerprint; another
tokenizer, config or chat template does. Not seen: two fine-tunes that differ in their weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter, NotFound, UsageError
from registry.records import BaseModelInfo
from registry.validation.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING, embeddings_with_lora
from registry.validation.canonical import canonical_json, parse_document, sha256_hex
from registry.validation.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME, embedded_template
from registry.validation.folder import open_regular
from registry.validation.intake.base_names import propose_name
from registry.validation.intake.disguises import HEAD_BYTES, pointer
from registry.validation.intake.layouts import elsewhere, newest_snapshot
from registry.validation.tensors import TensorInfo, read_header

if TYPE_CHECKING:
    from pydantic import JsonValue

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt",
    "tekken.json", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip
_VOLATILE = frozenset({
    "_name_or_path", "name_or_path", "transformers_version", "_commit_hash", "torch_dtype", "dtype",
    "use_cache", "_attn_implementation", "tokenizer_file", "is_local", "local_files_only", "padding_side",
    "truncation_side", "chat_template", "backend", "unsloth_version", "unsloth_fixed",
})  # fmt: skip
_FOLDER = "give a model folder as transformers saves it: config.json, the tokenizer, *.safetensors"
# Weights whose dtype hides the true shape: several values in one element.
_PACKED_DTYPES = frozenset({"U8", "I32", "U32", "F4"})
_PACKED_SUFFIXES = (".qweight", ".weight_packed")


def read_base(model_dir: Path, name: str | None = None) -> BaseModelInfo:
    """Read the record of the model in `model_dir`, to be served as `name`, default what its path calls it.

    Raises: NotFound: no such folder, or one without a config. UsageError: its files contradict themselves.
    """
    if not model_dir.is_dir():
        remedy = _FOLDER if model_dir.exists() else elsewhere(model_dir) or _FOLDER
        raise NotFound(str(model_dir), "is not a folder", remedy, param="base")
    config = _read_object(model_dir / "config.json", required=True)
    tokenizer_config = _read_object(model_dir / TOKENIZER_CONFIG_NAME)
    template = _read_template(model_dir, tokenizer_config)
    template_sha256 = None if template is None else sha256_hex(template)
    if name is None:
        recorded = config.get("_name_or_path")
        name = propose_name(model_dir, recorded if isinstance(recorded, str) else None)
    return BaseModelInfo(
        name=name,
        path=model_dir.resolve(),
        fingerprint=_fingerprint(model_dir, config, tokenizer_config, template_sha256),
        chat_template_sha256=template_sha256,
        modules=_modules(model_dir, config),
        chat_template=None if template is None else _decoded(template),
    )


def template_of(base: BaseModelInfo) -> str | None:
    """Return the text of a base's chat template: as recorded, else from its folder if unchanged there."""
    if base.chat_template is not None or base.chat_template_sha256 is None:
        return base.chat_template
    try:
        found = _read_template(base.path, _read_object(base.path / TOKENIZER_CONFIG_NAME))
    except (OSError, UsageError):  # a root may outlive, or be far from, the folder that it was made from
        return None
    return _decoded(found) if found is not None and sha256_hex(found) == base.chat_template_sha256 else None


def _fingerprint(
    folder: Path,
    config: Mapping[str, JsonValue],
    tokenizer_config: Mapping[str, JsonValue],
    template: str | None,
) -> str:
    paths = [folder / name for name in _TOKENIZER_FILES]
    files: dict[str, JsonValue] = {
        path.name: sha256_hex(_read_whole(path)) for path in paths if path.is_file()
    }
    identity: dict[str, JsonValue] = {
        "config": _lasting(dict(config)),
        "tokenizer_config": _lasting(dict(tokenizer_config)),
        "tokenizer": files,
        "chat_template": template,
    }
    return f"sha256:{sha256_hex(canonical_json(identity))}"


def _lasting(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in _VOLATILE}
    return value


def _read_template(folder: Path, tokenizer_config: Mapping[str, JsonValue]) -> bytes | None:
    path = folder / TEMPLATE_NAME
    if path.is_file():
        return path.read_bytes()
    embedded = embedded_template(dict(tokenizer_config))
    return None if embedded is None else embedded.encode()


def _decoded(template: bytes) -> str | None:
    try:
        return template.decode()
    except UnicodeDecodeError:
        return None


def _modules(folder: Path, config: Mapping[str, JsonValue]) -> dict[str, tuple[int, int]]:
    tensors = [tensor for path in _weight_files(folder) for tensor in _tensors(path)]
    if any(_is_packed(tensor) for tensor in tensors):
        return {}
    shapes = {
        tensor.name.removesuffix(".weight"): (tensor.shape[0], tensor.shape[1])
        for tensor in tensors
        if tensor.name.endswith(".weight") and len(tensor.shape) == 2
    }
    return _with_embeddings(shapes, config)


def _with_embeddings(
    shapes: dict[str, tuple[int, int]], config: Mapping[str, JsonValue]
) -> dict[str, tuple[int, int]]:
    """Add the head of a tied model, which has no tensor; drop the embeddings that take no LoRA in vLLM."""
    inputs = [name for name in shapes if _leaf(name) == INPUT_EMBEDDING]
    heads = [name for name in shapes if _leaf(name) == OUTPUT_EMBEDDING]
    if inputs and not heads:
        shapes = {**shapes, OUTPUT_EMBEDDING: shapes[inputs[0]]}
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    dropped = {INPUT_EMBEDDING, OUTPUT_EMBEDDING} - embeddings_with_lora(str(first))
    return {name: dims for name, dims in sorted(shapes.items()) if _leaf(name) not in dropped}


def _is_packed(tensor: TensorInfo) -> bool:
    hidden = tensor.name.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype in _PACKED_DTYPES
    return hidden or tensor.name.endswith(_PACKED_SUFFIXES)


def _weight_files(folder: Path) -> Iterable[Path]:
    index_path = folder / "model.safetensors.index.json"
    if not index_path.is_file():
        single = folder / "model.safetensors"
        return [single] if single.is_file() else []
    weight_map = _read_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UsageError(str(index_path), "has no weight_map", _FOLDER)
    names = sorted({str(name) for name in weight_map.values()})
    strange = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if strange:
        raise UsageError(str(index_path), f"names {strange[0][:80]!r}, which is not in the folder", _FOLDER)
    return [folder / name for name in names]


def _tensors(path: Path) -> tuple[TensorInfo, ...]:
    try:
        file, size = open_regular(path, path.name)
        with file:
            return read_header(file, size, path.name).tensors
    except InvalidAdapter as error:
        raise UsageError(str(path), error.fact, error.remedy) from error


def _read_object(path: Path, *, required: bool = False) -> dict[str, JsonValue]:
    if not path.is_file():
        if required:
            remedy = _snapshot_below(path.parent) or _FOLDER
            raise NotFound(str(path.parent), f"has no {path.name}", remedy, param="base")
        return {}
    try:
        value = parse_document(_read_whole(path))
    except ValueError as error:
        raise UsageError(str(path), f"is not valid JSON: {error}", _FOLDER) from error
    if not isinstance(value, dict):
        raise UsageError(str(path), "is not a JSON object", _FOLDER)
    return value


def _snapshot_below(folder: Path) -> str | None:
    """Return what to give where `folder` is a repository in the Hub's cache, which keeps snapshots."""
    found = [path.parent for path in folder.glob("snapshots/*/config.json")]
    snapshot = newest_snapshot(folder, found)
    return f"this is a download cache; give its snapshot {snapshot}" if snapshot is not None else None


def _read_whole(path: Path) -> bytes:
    data = path.read_bytes()
    # A base that was cloned without its large files would get the fingerprint of their pointers.
    if told := pointer(data[:HEAD_BYTES]):
        raise UsageError(str(path), told.fact, told.remedy)
    return data


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]
