"""The two servers of the engines' comparison, each as its own user starts and drives it.

`Bare` is vLLM's API server with runtime loading: no middleware, and none of our plugins in its processes.
`Ours` is `wardrobe serve` over a root. Both offer the same verbs, so that a measurement knows no arm; how
each is started is `engines_start`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from loadtests.bench.peers.engines.asking import Reply
from loadtests.bench.peers.engines.ledger import BARE, TUNED
from registry import Registry
from registry.api.batch import register_all
from registry.api.operation import LocalClient
from registry.changes.publish import PublishRequest


@dataclass(frozen=True, slots=True)
class Staged:
    """A version that is on the server's disk and not loaded; `model` is what a client asks it by."""

    name: str
    folder: Path
    model: str
    number: int = 0


class Refused(RuntimeError):
    """A server would not load or unload what it must be able to."""


class EngineArm(Protocol):
    """What a measurement may do to a running server."""

    @property
    def label(self) -> str:
        """The arm's name in the figures."""

    @property
    def url(self) -> str:
        """The server's address."""

    @property
    def pid(self) -> int:
        """The process that leads the server."""

    @property
    def base(self) -> str:
        """The base model's served name."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """The client's connections."""

    async def stage(self, name: str, folder: Path) -> Staged:
        """Bring a version to where the server can load it, and load nothing."""

    async def admit(self, staged: Staged) -> None:
        """Do what must be done before the version's first request."""

    async def publish(self, name: str, folder: Path) -> None:
        """Make a first version answer under `name` from now on."""

    async def publish_all(self, folders: Mapping[str, Path]) -> None:
        """Make a first version of each name answer from now on."""

    async def swap(self, staged: Staged) -> None:
        """Put a new version behind the name that clients use."""

    def shows(self, reply: Reply, staged: Staged, swapped: float) -> bool:
        """Return whether a reply is the new version's, after a swap that returned at `swapped`."""


@dataclass(frozen=True, slots=True)
class Bare:
    """vLLM's own runtime loading; `in_place` swaps by `load_inplace` instead of unloading first."""

    url: str
    base: str
    session: aiohttp.ClientSession
    pid: int
    in_place: bool = False
    tuned: bool = False

    @property
    def label(self) -> str:
        """The arm's name in the figures."""
        return f"{TUNED if self.tuned else BARE}{', load_inplace' if self.in_place else ''}"

    async def stage(self, name: str, folder: Path) -> Staged:
        """Return the folder as it is: there is no store to bring it to."""
        return Staged(name, folder, name)

    async def admit(self, staged: Staged) -> None:
        """Load the version: an unknown name answers 404."""
        await self._call("load_lora_adapter", {"lora_name": staged.name, "lora_path": str(staged.folder)})

    async def publish(self, name: str, folder: Path) -> None:
        """Load the folder under `name`."""
        await self.admit(await self.stage(name, folder))

    async def publish_all(self, folders: Mapping[str, Path]) -> None:
        """Load one after the other, as the engine does."""
        for name, folder in folders.items():
            await self.publish(name, folder)

    async def swap(self, staged: Staged) -> None:
        """Unload the name and load it again from the new folder: vLLM has no second name for a version."""
        if self.in_place:
            body = {"lora_name": staged.name, "lora_path": str(staged.folder), "load_inplace": True}
            await self._call("load_lora_adapter", body)
            return
        await self._call("unload_lora_adapter", {"lora_name": staged.name})
        await self.admit(staged)

    def shows(self, reply: Reply, staged: Staged, swapped: float) -> bool:  # noqa: ARG002 - ours' need
        """Return whether an answer was begun after the load: nothing in it tells the version."""
        return reply.status == 200 and reply.began >= swapped

    async def _call(self, verb: str, body: Mapping[str, object]) -> None:
        async with self.session.post(f"{self.url}/v1/{verb}", json=body) as response:
            if response.status != 200:
                raise Refused(f"{verb} {body}: {response.status} {await response.text()}")


@dataclass(frozen=True, slots=True)
class Ours:
    """Wardrobe: versions are published into the root by this process, `stable` moves there too."""

    url: str
    registry: Registry
    session: aiohttp.ClientSession
    pid: int
    label: str = "ours"

    @property
    def base(self) -> str:
        """The base model's served name."""
        return self.registry.base.name

    async def stage(self, name: str, folder: Path) -> Staged:
        """Publish a version that is no `stable`, so nothing loads it before it is asked for."""
        return await asyncio.to_thread(self._publish, name, folder, no_stable=True)

    async def admit(self, staged: Staged) -> None:
        """Do nothing: the first request loads it."""

    async def publish(self, name: str, folder: Path) -> None:
        """Publish a version; an adapter's first is its `stable`."""
        await asyncio.to_thread(self._publish, name, folder, no_stable=False)

    async def publish_all(self, folders: Mapping[str, Path]) -> None:
        """Publish them as `wardrobe register --all` does; the server loads meanwhile."""
        requests = [PublishRequest(name, folder) for name, folder in folders.items()]
        client = LocalClient(self.registry, "bench")
        for one in await asyncio.to_thread(register_all, client, requests, lambda _: None):
            if one.error is not None:
                raise Refused(f"{one.request.adapter}: {one.error}")

    async def swap(self, staged: Staged) -> None:
        """Move `stable`."""
        await asyncio.to_thread(self.registry.promote, staged.name, staged.number, who="bench")

    def shows(self, reply: Reply, staged: Staged, swapped: float) -> bool:  # noqa: ARG002 - bare's need
        """Return whether the answer names the new version."""
        return reply.status == 200 and reply.version == staged.model

    def _publish(self, name: str, folder: Path, *, no_stable: bool) -> Staged:
        version = self.registry.publish(name, folder, who="bench", no_stable=no_stable).version
        return Staged(name, folder, version.name, version.number)
