"""What a test sees of the machine: its programs, and nothing of the user's, the checkout's or another test's.

Owns the environment, the home, the folder for temporary files, the working folder, the time zone and the mask
of new files. Invariant: a variable that is not in `KEPT` is gone before a module of ours is imported, and
whatever a test starts inherits the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi

from tests.checkout import REPOSITORY

OUTSIDE: Mapping[str, str] = dict(os.environ)
"""The environment that pytest was started with."""

CACHE = Path(OUTSIDE.get("WARDROBE_CACHE") or REPOSITORY / ".cache").absolute()
"""Where the real base model and the marker adapters are kept from one session to the next."""

KEPT = frozenset({
    "CC", "CI", "COVERAGE_PROCESS_CONFIG", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "CXX", "LD_LIBRARY_PATH",
    "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PATH", "PYTEST_CURRENT_TEST",
    "PYTHONPATH",
})  # fmt: skip
"""Variables that tell where the machine has its programs and devices, and how many threads to use."""

RAM = Path("/dev/shm")
RAM_BYTES = 8 * 2**30
"""What must be free there; a session was seen to need 2 GiB at most."""

PREFIX = "wardrobe-tests-"
_owned: list[int] = []
"""The descriptor of this session's lock, which the kernel gives up with the process."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one session; all lie below `folder`."""

    folder: Path

    @property
    def home(self) -> Path:
        """Return the home of every process of the session; no file of a user's lies there."""
        return self.folder / "home"

    @property
    def scratch(self) -> Path:
        """Return where temporary files are made; nobody else's have names there."""
        return self.folder / "tmp"

    @property
    def certificate(self) -> Path:
        """Return the file with the only authority that clients trust; no test speaks TLS to anybody else."""
        return self.folder / "authority.pem"

    @property
    def here(self) -> Path:
        """Return the working folder of every test, which is empty before and after each."""
        return self.folder / "here"


def enter() -> Place:
    """Make the folders and give this process its environment, before anything of ours is imported."""
    disk = _disk()
    _remove_abandoned(disk)
    place = Place(Path(tempfile.mkdtemp(prefix=PREFIX, dir=disk)))
    _owned.append(_lock(place.folder))
    for folder in (place.home, place.scratch, place.here):
        folder.mkdir()
    place.certificate.write_text(_first_authority())
    replace_environment(isolated(OUTSIDE, place))
    tempfile.tempdir = str(place.scratch)
    time.tzset()
    os.umask(0o022)
    return place


def isolated(outside: Mapping[str, str], place: Place) -> dict[str, str]:
    """Return the environment of the tests, made from the one that pytest was started with."""
    kept = {name: value for name, value in outside.items() if name in KEPT}
    programs = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    packages = [str(REPOSITORY), *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {
        "HOME": str(place.home),
        "TMPDIR": str(place.scratch),
        # `wardrobe`, `python` and the packages of this checkout are found first.
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(packages)),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "COLUMNS": "80",
        "LINES": "24",
        # One certificate instead of 140: every HTTP client reads all of them when it is made, for 30 ms.
        "SSL_CERT_FILE": str(place.certificate),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(place.home / "hypothesis"),
        # git reads a checkout that belongs to somebody else, as it does in a container.
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def replace_environment(wanted: Mapping[str, str]) -> None:
    """Make `os.environ` hold exactly `wanted`."""
    os.environ.clear()
    os.environ.update(wanted)


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Give back the user's environment to what needs the network: pip, with its mirror and its proxy."""
    inside = dict(os.environ)
    replace_environment(OUTSIDE)
    try:
        yield
    finally:
        replace_environment(inside)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one process at a time make what is kept in the cache under `name`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _disk() -> Path:
    """Return memory where there is enough, as tests wait for a disk a hundred thousand times."""
    if "TMPDIR" in OUTSIDE or not RAM.is_dir():
        return Path(tempfile.gettempdir())
    found = os.statvfs(RAM)
    runs_programs = not found.f_flag & os.ST_NOEXEC  # as containers mount it
    roomy = found.f_bavail * found.f_frsize >= RAM_BYTES and os.access(RAM, os.W_OK)
    return RAM if runs_programs and roomy else Path(tempfile.gettempdir())


def _first_authority() -> str:
    end = "-----END CERTIFICATE-----\n"
    found = certifi.contents()
    return found[found.index("-----BEGIN CERTIFICATE-----") : found.index(end)] + end


def _remove_abandoned(disk: Path) -> None:
    """Remove what a session left that was killed: nobody holds its lock."""
    for folder in disk.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or another user's
            os.close(_lock(folder))
            shutil.rmtree(folder)


def _lock(folder: Path) -> int:
    """Lock a session's folder and return the descriptor that holds the lock.

    Raises: OSError: somebody holds it, or the folder is another user's.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
