"""Files that are not what their name says: pointers, error pages, archives, other formats.

Owns how they are recognised by their first bytes, and the way out of each. Pure. Invariant: a file that may
be what its name says is never called something else, as this is asked only of files that failed to parse;
pointers alone are unmistakable, and are asked for first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 1024
"""How much of a file is looked at; pointers are shorter."""

_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
_DVC_OUTPUT = re.compile(rb"^outs:\s*$", re.MULTILINE)
_AGAIN = "download the file again; on the Hub `hf download` fetches files, a link with /blob/ is a page"
_SHOWN_CHARS = 60
_ZEROS = 64


@dataclass(frozen=True, slots=True)
class Disguise:
    """What a file is instead of what its name says, and what to do; `pickle` where it could run code."""

    fact: str
    remedy: str
    pickle: bool = False


_MAGIC: tuple[tuple[bytes, Disguise], ...] = (
    (b"GGUF", Disguise("is a GGUF file", "give the PEFT folder that it was made from")),
    (b"PK\x03\x04", Disguise("is a zip archive, as torch.save writes: pickled weights", "", pickle=True)),
    (b"\x1f\x8b", Disguise("is compressed (gzip)", "unpack it first")),
    (b"BZh", Disguise("is compressed (bzip2)", "unpack it first")),
    (b"\xfd7zXZ", Disguise("is compressed (xz)", "unpack it first")),
    (b"\x28\xb5\x2f\xfd", Disguise("is compressed (zstd)", "unpack it first")),
    (b"7z\xbc\xaf", Disguise("is an archive (7z)", "unpack it first")),
    (b"\x89HDF", Disguise("is an HDF5 file", "save the adapter with PEFT's save_pretrained")),
    (b"\x93NUMPY", Disguise("is a NumPy file", "save the adapter with PEFT's save_pretrained")),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def pointer(head: bytes) -> Disguise | None:
    """Return what stands in for the file where `head` is that of a pointer, None where it is none."""
    if head.startswith((b"version https://git-lfs.github.com/", b"version https://hawser.github.com/")):
        size = _LFS_SIZE.search(head)
        whole = f" of {int(size[1])} bytes" if size else ""
        remedy = "run `git lfs install`, then `git lfs pull` in its repository"
        return Disguise(f"is a git-lfs pointer to a file{whole}, not the file", remedy)
    if head.startswith(b"# xet version"):
        remedy = (
            "run `git xet install`, then `git xet checkout` in its repository, or fetch it with `hf download`"
        )
        return Disguise("is a Xet pointer, not the file", remedy)
    if head.startswith((b"/annex/objects/", b".git/annex/objects/")):
        return Disguise("is a git-annex pointer, not the file", "run `git annex get` in its repository")
    if _DVC_OUTPUT.search(head) and (b"md5" in head or b"hash:" in head or b"etag:" in head):
        return Disguise("is a DVC pointer, not the file", "run `dvc pull` in its repository")
    return None


def recognised(head: bytes) -> Disguise | None:
    """Return what a file that begins with `head` is, where its bytes are unmistakable."""
    found = pointer(head) or next((told for magic, told in _MAGIC if head.startswith(magic)), None)
    if found is not None:
        return found
    if _PICKLE.match(head):
        return Disguise("is a pickle", "", pickle=True)
    if head[257:262] == b"ustar":
        return Disguise("is an archive (tar)", "unpack it first")
    if len(head) >= _ZEROS and not head.strip(b"\0"):
        fact = "begins with nothing but zeros, as a download does that was not finished"
        return Disguise(fact, "download it again")
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Disguise("is a web page, not the file", _AGAIN)
    if start.startswith(b"<?xml"):
        return Disguise("is an XML document, as object stores answer with errors", _AGAIN)
    return None


def disguise(head: bytes) -> Disguise | None:
    """Return what a file of tensors that begins with `head` is instead; None where nobody can tell."""
    text = _text(head)
    found = recognised(head)
    if found is not None or text is None:
        return found
    shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    return Disguise(f"is text, not tensors: {shown!r}", "download it again; the text may say what went wrong")


def _text(head: bytes) -> str | None:
    """Return `head` in one line where it is text."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character may have been cut at the end of the head.
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode()
    line = " ".join(text.split())
    return line if line and line.isprintable() else None
