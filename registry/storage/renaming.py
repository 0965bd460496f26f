"""Renaming to a name that must be free, in one step: Linux's `renameat2`, which Python does not have.

Owns the call alone. It needs neither a block nor an inode, where a hard link takes an inode on tmpfs.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

NOT_KNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What a system or a file system answers that has no such step (NFS, most of FUSE, others than Linux)."""

_AT_FDCWD, _NO_REPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


def rename_new(source: Path, target: Path) -> None:
    """Rename `source` to `target` unless something is there.

    Raises: OSError: `FileExistsError` when there is; one of `NOT_KNOWN` where that step is missing.
    """
    call = _find()
    number = errno.ENOSYS
    if call is not None:
        ctypes.set_errno(0)
        if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _NO_REPLACE) == 0:
            return
        number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(target))


def _find() -> Callable[..., int] | None:
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return found
