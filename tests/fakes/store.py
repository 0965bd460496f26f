"""A real store on a tiny base: roots, versions, and what can be seen of them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.records import Heartbeat, Published, Version
from registry.storage import files, reserve
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base

_SPARE = os.urandom(reserve.FILE_BYTES)


def make_registry(folder: Path) -> Registry:
    """Make a root in `folder/root` for a tiny base in `folder/base`."""
    return Registry.init(with_reserve(folder / "root"), make_base(folder / "base"), name="tiny")


def with_reserve(root: Path) -> Path:
    """Make the reserve of a root that is made next: written at once it takes a tenth of the time."""
    folder = root / reserve.NAME
    folder.mkdir(0o700, parents=True)
    for number in range(reserve.FILES):
        descriptor = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, _SPARE)
        os.close(descriptor)
    return root


def put(registry: Registry, adapter: str = "support", seed: int = 1, **options: object) -> Version:
    """Publish the adapter whose weights come from `seed`; `options` as in `Registry.publish`."""
    return publish(registry, adapter, seed, **options).version


def publish(registry: Registry, adapter: str = "support", seed: int = 1, **options: object) -> Published:
    """Publish as `put` does and return all that came of it."""
    folder = registry.root.parent / f"trained-{seed}"
    if not folder.exists():
        make_adapter(folder, seed=seed)
    return registry.publish(adapter, folder, who="tester", **options)  # type: ignore[arg-type]


def beat(replica: str = "one", *resident: str) -> Heartbeat:
    """Return a heartbeat."""
    return Heartbeat(replica, "http://127.0.0.1:1", "sha256:0", resident, 4, "ready", 1.0, 1)


@dataclass(frozen=True)
class Snapshot:
    """What a reader sees: adapter → number → digest, `adapter@alias` → version, and the logs' lengths."""

    versions: dict[str, dict[int, str]]
    aliases: dict[str, int]
    moves: dict[str, int]
    facts: dict[str, int]


def snapshot(registry: Registry) -> Snapshot:
    """Read everything through the public door."""
    names = registry.catalogue.known()
    versions = {
        name: {version.number: version.digest for version in registry.versions(name)}
        for name in registry.adapters()
    }
    aliases = {f"{name}@{a}": n for name in versions for a, n in registry.aliases(name).items()}
    moves: dict[str, int] = {}
    facts: dict[str, int] = {}
    for name in names:
        for alias in registry.catalogue.aliases.names(name):
            length = len(registry.catalogue.aliases.log(name, alias))
            if length:
                moves[f"{name}@{alias}"] = length
        for number in registry.catalogue.versions.numbers(name):
            facts[f"{name}@{number}"] = len(registry.attestations(name, number))
    return Snapshot(versions, aliases, moves, facts)


def leftovers(root: Path) -> Iterator[Path]:
    """Yield what unfinished work left under a root."""
    yield from (root / "staging").iterdir()
    yield from (path for path in root.rglob(".*") if path.name.endswith(".tmp"))


@contextlib.contextmanager
def without_links(yes: bool = True) -> Iterator[None]:
    """Have the file system refuse hard links, as some network mounts do."""

    def refuse(label: str) -> None:
        if yes and label.startswith("link "):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with files.watch_steps(refuse):
        yield
