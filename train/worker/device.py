"""One training per device: which device a worker has, and the lock that only one training of a root holds.

Owns the lock file, which lies on this machine and not in the root: a device is this machine's, and `flock`
is no lock on NFS. Invariant: the lock lives as long as the worker or the training that inherited it, and
no longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from pathlib import Path

from registry.errors import StorageFailed

CPU = "cpu"
_GPU = Path("/dev/nvidia0")


def find_device() -> str:
    """Return the device that a training would take here, without importing torch: `cpu` or `cuda:N`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        first = visible.partition(",")[0].strip()
        return f"cuda:{first}" if first and first != "-1" else CPU
    return "cuda:0" if _GPU.exists() else CPU


def visible_devices(device: str) -> dict[str, str]:
    """Return the variables that show a process no other device than this one."""
    return {"CUDA_VISIBLE_DEVICES": "" if device == CPU else device.removeprefix("cuda:")}


class DeviceLock:
    """The right to train on a device for a root, among all processes of this machine."""

    def __init__(self, root: Path, device: str) -> None:
        name = hashlib.sha256(f"{root} {device}".encode()).hexdigest()[:16]
        plain = re.sub(r"[^a-z0-9]+", "-", device.lower())
        self._path = Path(tempfile.gettempdir()) / f"wardrobe-{os.getuid()}-{plain}-{name}.lock"
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int | None:
        """Return the open file of the lock, for a training to inherit; None while it is not held."""
        return self._descriptor

    def acquire(self) -> bool:
        """Take the lock if nobody has it; tell whether it is held now.

        Raises: StorageFailed: the file cannot be made.
        """
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            remedy = "make the folder of temporary files writable (TMPDIR)"
            raise StorageFailed(str(self._path), f"cannot be made ({error.strerror})", remedy) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; a training that inherited it keeps it until it ends."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
