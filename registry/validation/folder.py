"""An adapter's folder: which of its files are taken, and how they are opened.

Owns the allow-list; parses nothing. Only named files are taken, so a new kind of dangerous file is left out
without being known. Pickled weights are refused and never scanned: scanners of pickles are beaten regularly.
Links are followed, for whoever names a folder on this machine may read what they lead to; one that leads
elsewhere is told, and followed only to what an adapter needs. Only regular files are opened.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path

from registry.errors import InvalidAdapter, UsageError
from registry.spelling import spelled
from registry.validation.chat_template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME
from registry.validation.identity import WEIGHTS_NAME
from registry.validation.intake.disguises import HEAD_BYTES, pointer
from registry.validation.intake.layouts import PICKLES, explain_missing, explain_no_folder, pickled
from registry.validation.intake.links import followed_out, real_file, unreadable
from registry.validation.peft import CONFIG_NAME

README_NAME = "README.md"
# The files of a version; everything else in a folder is left out.
ALLOWED = frozenset({WEIGHTS_NAME, CONFIG_NAME, README_NAME, TEMPLATE_NAME})
# What an upload may hold: the tokenizer's config can carry the chat template.
_SENT = ALLOWED | {TOKENIZER_CONFIG_NAME}
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
        raise explain_no_folder(folder, error, subject) from error
    if not names >= {WEIGHTS_NAME, CONFIG_NAME}:
        raise explain_missing(folder, names, subject)
    return names


def adapters_in(folder: Path) -> list[tuple[str, Path]]:
    """Return the sub-folders of `folder`, each called as the adapter that it holds; hidden ones are none.

    A link that leads nowhere is returned as well, for `register` to refuse.

    Raises: UsageError: there is none, `folder` cannot be listed, or is an adapter itself.
    """
    subject = f"--all {spelled(str(folder))}"
    try:
        # A link that leads nowhere is one of them: what is refused is told, what is passed over is lost.
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() or _leads_nowhere(entry))
        is_adapter = (folder / CONFIG_NAME).exists()
    except OSError as error:
        fact = f"cannot be listed ({error.strerror or error})"
        raise UsageError(subject, fact, "give a folder of adapters' folders", param="all") from error
    if is_adapter:
        fact = f"is an adapter itself: it holds {CONFIG_NAME}"
        raise UsageError(subject, fact, "give the folder above it, or NAME and DIR", param="all")
    found = [(name, folder / name) for name in names if not name.startswith(".")]
    if not found:
        raise UsageError(subject, "has no sub-folders", "give the folder above the adapters'", param="all")
    return found


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def lead_out(folder: Path, names: frozenset[str]) -> tuple[frozenset[str], list[str]]:
    """Return `names` without what is a link to a file elsewhere that no adapter needs, and what to warn of.

    What an adapter cannot do without is followed, wherever its user has it lead, and told.
    """
    elsewhere = followed_out(folder, names & _SENT)
    warnings = [
        f"{name} is a link to {spelled(str(real))}, outside the folder: "
        + ("left out" if name == README_NAME else "its content is taken")
        for name, real in elsewhere.items()
    ]
    return names - ({README_NAME} & set(elsewhere)), warnings


def uploadable(folder: Path, subject: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names to send of a PEFT LoRA folder, the names to leave out, sorted, and what to warn of.

    A folder that `inspect` would refuse for what is in it, or not in it, is refused here too.
    Raises: InvalidAdapter.
    """
    names = list_folder(folder, subject)
    kept, warnings = lead_out(folder, names)
    sent = kept & _SENT
    left_out = sorted(spelled(name) for name in names - sent)
    return tuple(sorted(sent)), tuple(left_out), tuple(warnings)


def check_file_name(file_name: str, subject: str) -> str:
    """Return the name of an uploaded file if it may be written into a folder for `inspect`.

    Raises: InvalidAdapter: reason `pickle` for pickled weights, `path` for any other name not in ALLOWED.
    """
    if file_name in _SENT:
        return file_name
    if file_name.endswith(PICKLES):
        raise pickled(file_name, subject)
    fact = f"{file_name[:80]!r} is not a file of an adapter"
    raise InvalidAdapter(
        subject, fact, f"send only {', '.join(sorted(ALLOWED))}", reason="path", param="files"
    )


def open_regular(path: Path, subject: str) -> tuple[FileIO, int]:
    """Open the regular file that `path` is or leads to, unbuffered; return it with its size.

    The caller closes it. Raises: InvalidAdapter: reason `path` for a broken link, a folder, a device.
    """
    real = real_file(path, subject)
    try:
        # A regular file a moment ago; should it have been replaced, nothing is followed or waited for.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error, subject) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        fact = f"{path.name} is not a regular file"
        raise InvalidAdapter(subject, fact, "give a file, not a folder or a device", reason="path")
    return FileIO(descriptor), status.st_size


def read_text_file(path: Path, subject: str, *, cap_bytes: int = _TEXT_CAP_BYTES) -> bytes:
    """Return the bytes of a small file.

    Raises: InvalidAdapter: reason `path`, also for a pointer in its place, or `size` for one beyond
    `cap_bytes` or empty (a README may be).
    """
    with BufferedReader(open_regular(path, subject)[0]) as file:
        data = file.read(cap_bytes + 1)
    if len(data) > cap_bytes:
        fact = f"{path.name} is larger than {cap_bytes} bytes"
        raise InvalidAdapter(subject, fact, "shorten it, or delete it if it is not needed", reason="size")
    if not data and path.name != README_NAME:
        raise InvalidAdapter(subject, f"{path.name} is empty (0 bytes)", "save it again", reason="size")
    if told := pointer(data[:HEAD_BYTES]):
        raise InvalidAdapter(subject, f"{path.name} {told.fact}", told.remedy, reason="path")
    return data
