"""The peers' environments: one each, from pins that the repository keeps, under the cache.

`pins/NAME.txt` names every package with its exact version, so that another day's environment is the same.
Invariant: the marker is written last and holds the hash of the pins; a folder without it, or with another
one, is made anew, so that a half-made environment is never taken for a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import WardrobeError

PINS = Path(__file__).parent / "pins"
MARKER = "wardrobe-peer"


class PeerUnavailable(WardrobeError):
    """A peer whose environment could not be made or that did not start."""

    code = "peer_unavailable"


def peers() -> list[str]:
    """Return the names of all peers with pins."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


def requirements(name: str, *, pins: Path = PINS) -> dict[str, str]:
    """Return the pinned version of every package of a peer.

    Raises: PeerUnavailable: when a line is anything but NAME==VERSION.
    """
    found = {}
    for line in (pins / f"{name}.txt").read_text().splitlines():
        package, equals, version = line.partition("==")
        if not (package and equals and version) or set(line) & set(" ;<>~*,[#"):
            raise PeerUnavailable(f"{name}.txt", f"{line!r} is not NAME==VERSION", "pin it exactly")
        found[package] = version
    return found


def make(folder: Path, pins: Path) -> None:
    """Make an environment with `pins`, and nothing else.

    Raises: subprocess.CalledProcessError: with what pip said.
    """
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-P", "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-deps", "-r", str(pins)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def environment(
    name: str, cache: Path, *, pins: Path = PINS, make: Callable[[Path, Path], None] = make
) -> Path:
    """Return the folder of programs of a peer's environment, which is made on need.

    Raises: PeerUnavailable: when pip fails.
    """
    requirements(name, pins=pins)
    wanted, folder = pins / f"{name}.txt", (cache / "peers" / name).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not _whole(folder, wanted):
            print(f"  making the environment of {name}; a minute or two, once", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                make(folder, wanted)
            except subprocess.CalledProcessError as error:
                said = "; ".join((error.stderr or "").strip().splitlines()[-2:])
                fact = f"pip ended with {error.returncode}: {said}"
                raise PeerUnavailable(name, fact, "check the network and the package index") from error
            (folder / MARKER).write_text(fingerprint(wanted))
    return folder / "bin"


def fingerprint(pins: Path) -> str:
    """Return a hash of the pins and of the Python that they are installed for."""
    return hashlib.sha256(f"{sys.version_info[:2]}\n{pins.read_text()}".encode()).hexdigest()


def _whole(folder: Path, pins: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and marker.read_text() == fingerprint(pins)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make an environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
