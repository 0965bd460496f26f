"""A server that two groups share: what `theirs` has must not exist for `ours`.

`support` is for ours, `umbra` for theirs; `ombra` never was. Whoever looks for a leak asks for the hidden
thing and for its twin, which is spelled like it and never was, and compares the answers byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import httpx

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.openai.tuned import TunedModel
from registry.entries.rights import Group, Scope
from registry.store import Registry
from serve.settings import BatchSettings
from tests.fakes.served import BASE, Served, publish, serve, wait_until

SEEN, HIDDEN, TWIN = "support", "umbra", "ombra"
SILENT = "umbra-silent"
"""An adapter of theirs whose stable is in quarantine: the server has something to tell of it."""
TUNED = f"ft:{BASE}:wardrobe:{HIDDEN}:AbCd1234"
CHECKPOINT = f"{TUNED}:ckpt-step-20"
NAMES = (
    *(f"{HIDDEN}{suffix}" for suffix in ("", "@1", "@2", "@3", "@9", "@stable", "@canary", "@next", "@nope")),
    TUNED, CHECKPOINT, SILENT, BASE,
)  # fmt: skip
"""Every way to name what does not exist for ours: version 3 is in quarantine, 9 was never there."""

ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 10


_TWINS = {BASE: "tany", "base@0": "bose@0"}
_RANDOM = {"date", "x-request-id", "request-id"}


def twin(text: str) -> str:
    """Return what is spelled like a hidden thing and never was."""
    if HIDDEN in text:
        return text.replace(HIDDEN, TWIN)
    if text in _TWINS:
        return _TWINS[text]
    return f"{text[:-4]}{'ZZZZ' if not text.endswith('ZZZZ') else 'YYYY'}"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer but for what is random in it; `asked` was put in place of what was asked for."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def by(cls, response: httpx.Response, asked: str) -> Told:
        """Return what `response` says to whoever asked for `asked`."""
        text = response.text.replace(asked, "<asked>").replace(asked.partition("@")[0], "<adapter>")
        lines = [line for line in sorted(response.headers.items()) if line[0] not in _RANDOM]
        return cls(response.status_code, text, tuple(lines))


@dataclass(slots=True)
class TwoGroups:
    """The server; `keys` are tokens: `ours`, `theirs`, `moved` (saw umbra once), `whole`, `reader`.

    `ids` are the keys' ids, `made` the ids of what was made, by a word for it.
    """

    served: Served
    keys: dict[str, str]
    ids: dict[str, str]
    made: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, *, key: str = "ours", **more: Any) -> httpx.Response:
        """Ask as the owner of a key."""
        headers = {"authorization": f"Bearer {self.keys[key]}", **more.pop("headers", {})}
        return self.served.client.request(method, path, headers=headers, **more)

    def same(self, method: str, path: str, hidden: str, *, key: str = "ours", **more: Any) -> Told:
        """Ask for `hidden`, which stands in the path or the body, and for its twin: they are told the same.

        Neither reaches the engine.
        """
        before = len(self.served.inner.seen)
        told = [self._told(method, path, hidden, name, key, more) for name in (hidden, twin(hidden))]
        assert told[0] == told[1], f"{method} {path} for {hidden}"
        assert len(self.served.inner.seen) == before, f"{method} {path} for {hidden}"
        return told[0]

    def _told(self, method: str, path: str, hidden: str, name: str, key: str, more: dict[str, Any]) -> Told:
        response = self.ask(method, path.replace(hidden, name), key=key, **_with(more, hidden, name))
        return Told.by(response, name)

    def wait_for_batch(self, batch: str, *, key: str = "ours") -> dict[str, Any]:
        """Wait until a batch has been answered, and return it."""
        path = f"/v1/batches/{batch}"
        found: dict[str, Any] = {}

        def completed() -> bool:
            found.update(self.ask("GET", path, key=key).json())
            return bool(found["status"] == "completed")

        wait_until(completed, "the batch has been answered")
        return found

    def change(self, name: str, **changes: Any) -> None:
        """Change a group, and wait until the server knows."""
        store, keys = GroupStore(self.served.registry.root), self.served.runtime.keys
        wanted = store.change(name, lambda group: changed(group, **changes), who="tester")
        wait_until(lambda: keys.groups.get(name) == wanted, "the group has changed")


def _with(value: Any, hidden: str, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _with(one, hidden, name) for key, one in value.items()}
    if isinstance(value, list):
        return [_with(one, hidden, name) for one in value]
    return value.replace(hidden, name) if isinstance(value, str) else value


@contextlib.contextmanager
def two_groups(registry: Registry, folder: Path, **more: Any) -> Iterator[TwoGroups]:
    """Serve a root with `support@1` to two groups, and have each make something of everything."""
    for adapter, seeds in ((SEEN, (2,)), (HIDDEN, (11, 12, 13)), (SILENT, (14,))):
        for seed in seeds:
            publish(registry, folder, adapter, seed)
    registry.set_alias(HIDDEN, "next", 2, who="tester")
    for adapter, number in ((HIDDEN, 3), (SILENT, 1)):
        registry.quarantine(adapter, number, "for the test", who="tester")
    groups = GroupStore(registry.root)
    groups.create(Group("ours", adapters=(SEEN, "ft-*"), base=False), who="tester")
    groups.create(Group("theirs", adapters=("umbra*",)), who="tester")
    groups.create(Group("moved"), who="tester")
    store = KeyStore(registry.root)
    wanted = {
        "ours": ("ours", {Scope.INFER, Scope.TUNE}),
        "theirs": ("theirs", {Scope.INFER, Scope.TUNE}),
        "moved": ("moved", {Scope.INFER, Scope.TUNE}),
        "whole": ("default", {Scope.INFER, Scope.TUNE}),
        "reader": ("ours", {Scope.READ}),
    }
    made = {name: store.create(scopes, who="tester", group=group) for name, (group, scopes) in wanted.items()}
    ids = {name: info.id for name, (info, _) in made.items()}
    for name, number in ((TUNED, 1), (CHECKPOINT, 2)):
        digest = registry.version(HIDDEN, number).digest
        tuned = TunedModel(name, HIDDEN, number, digest, "ftjob-1", ids["moved"], 7.0)
        registry.catalogue.tuned.add(tuned)
    batches = BatchSettings(quiet_seconds=0.0, patience_seconds=0.05)
    with serve(registry, folder, batches=batches, **more) as served:
        served.open_rollout(adapter=HIDDEN, rollout=f"{7:016x}", weight=5_000, shadow=5_000)
        yield TwoGroups(served, {name: token for name, (_, token) in made.items()}, ids)
