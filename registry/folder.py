"""An adapter's folder: which of its files are taken, and how they are opened.

Owns the allow-list; parses nothing. Only named files are taken, so a new kind of dangerous file is left out
without being known. Pickled weights are refused and never scanned: scanners of pickles are beaten regularly.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path

from registry.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME
from registry.errors import InvalidAdapter
from registry.identity import WEIGHTS_NAME
from registry.peft import CONFIG_NAME

README_NAME = "README.md"
# The files of a version; everything else in a folder is left out.
ALLOWED = frozenset({WEIGHTS_NAME, CONFIG_NAME, README_NAME, TEMPLATE_NAME})
# What an upload may hold: the tokenizer's config can carry the chat template.
_SENT = ALLOWED | {TOKENIZER_CONFIG_NAME}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TEXT_CAP_BYTES = 1024**2


def list_folder(folder: Path, subject: str) -> frozenset[str]:
    """Return the names in `folder`, those of other folders with a `/`; the weights and the config are there.

    Raises: InvalidAdapter: reason `path`, `pickle`, `bad_config` or `modules`.
    """
    try:
        names = frozenset(
            entry.name + ("/" if entry.is_dir() and entry.name not in ALLOWED else "")
            for entry in folder.iterdir()
        )
    except OSError as error:
        fact = f"{folder} cannot be read as a folder: {error.strerror}"
        raise InvalidAdapter(subject, fact, "give the folder of a PEFT adapter", reason="path") from error
    _check_weights_present(folder, names, subject)
    return names


def uploadable(folder: Path, subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names to send of a PEFT LoRA folder, and the names to leave out, both sorted.

    A folder that `inspect` would refuse for what is in it, or not in it, is refused here too.
    Raises: InvalidAdapter.
    """
    names = list_folder(folder, subject)
    sent = names & _SENT
    return tuple(sorted(sent)), tuple(sorted(names - sent))


def check_file_name(file_name: str, subject: str) -> str:
    """Return the name of an uploaded file if it may be written into a folder for `inspect`.

    Raises: InvalidAdapter: reason `pickle` for pickled weights, `path` for any other name not in ALLOWED.
    """
    if file_name in _SENT:
        return file_name
    if file_name.endswith(_PICKLES):
        raise _pickled(file_name, subject)
    fact = f"{file_name[:80]!r} is no file of an adapter"
    raise InvalidAdapter(
        subject, fact, f"send only {', '.join(sorted(ALLOWED))}", reason="path", param="files"
    )


def open_regular(path: Path, subject: str) -> tuple[FileIO, int]:
    """Open a regular file unbuffered, following no link; return it with its size. The caller closes it.

    Raises: InvalidAdapter: reason `path` for a link, a folder or any other kind of file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fact = f"{path.name} is a symbolic link" if path.is_symlink() else f"{path.name}: {error.strerror}"
        raise InvalidAdapter(subject, fact, "give a regular file, copied (`cp -L`)", reason="path") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        fact = f"{path.name} is not a regular file"
        raise InvalidAdapter(subject, fact, "give a file, not a folder or a device", reason="path")
    return FileIO(descriptor), status.st_size


def read_text_file(path: Path, subject: str, *, cap_bytes: int = _TEXT_CAP_BYTES) -> bytes:
    """Return the bytes of a small file.

    Raises: InvalidAdapter: reason `path`, or `size` for one beyond `cap_bytes` or empty (a README may be).
    """
    with BufferedReader(open_regular(path, subject)[0]) as file:
        data = file.read(cap_bytes + 1)
    if len(data) > cap_bytes:
        fact = f"{path.name} is larger than {cap_bytes} bytes"
        raise InvalidAdapter(subject, fact, "shorten it, or delete it if it is not needed", reason="size")
    if not data and path.name != README_NAME:
        raise InvalidAdapter(subject, f"{path.name} is empty (0 bytes)", "save it again", reason="size")
    return data


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


def _pickled(file_name: str, subject: str) -> InvalidAdapter:
    fact = f"{file_name} holds pickled weights, which can run code when read; only safetensors is taken"
    remedy = "save with PEFT's save_pretrained(safe_serialization=True)"
    return InvalidAdapter(subject, fact, remedy, reason="pickle", param="files")
