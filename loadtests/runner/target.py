"""The server under load: where it is, whom it serves, and whether it can be asked at all.

Any OpenAI-compatible server will do; the admin API is needed only for actions. Invariant: a run that
cannot work (nobody listens, a wrong key, adapters that are not there) ends before its first request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from registry.errors import Denied, NotFound, UsageError, WardrobeError

_SECONDS = 10.0
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """A server's root address (`http://host:port`) and the key for it.

    `admin_url` is where actions go when `url` is a balancer that passes on only the traffic.
    """

    url: str
    key: str | None = None
    admin_url: str | None = None

    @classmethod
    def find(cls, root: Path, url: str | None, key: str | None) -> ServerTarget:
        """Return the server at `url`, else a ready one of the root.

        Raises: UsageError: no such address, or no server of the root is live.
        """
        if url is not None:
            return cls(address("--url", url), key)
        from registry.store import Registry

        try:
            beats = Registry.open(root).replicas()
        except NotFound as error:
            raise UsageError("server", f"not given, and {error}", "give --url http://host:port") from error
        for beat, live in beats:
            if live and beat.state == "ready":
                # A server that listens on every address says so; from here it is this machine.
                return cls(
                    beat.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//:::", "//127.0.0.1:"), key
                )
        raise UsageError("server", f"none of {root} is live", "start `wardrobe serve`, or give --url")

    def with_admin(self, url: str | None) -> Self:
        """Return the same server with the address that actions go to.

        Raises: UsageError: no such address.
        """
        return self if url is None else replace(self, admin_url=address("--admin-url", url))

    def check(self, models: Sequence[str], needs: str) -> None:
        """Ask who is served, and pass when all of `models` are.

        Raises: WardrobeError: nobody answers; Denied: the key; NotFound: names that are not served.
        """
        served = self._served()
        if served is None:
            return
        missing = sorted(
            {name for name in models if name not in served and name.partition("@")[0] not in served}
        )
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
            remedy = f"run `wardrobe loadtest prepare` first ({needs})" if needs else "register them first"
            fact = f"does not serve {len(missing)} of the scenario's {len(set(models))} models ({shown})"
            raise NotFound(self.url, fact, remedy)

    def _served(self) -> set[str] | None:
        """Return the names of `GET /v1/models`, None where the server has no such list."""
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        try:
            answer = httpx.get(f"{self.url}/v1/models", headers=headers, timeout=_SECONDS)
        except httpx.HTTPError as error:
            remedy = "start the server, or correct --url"
            raise WardrobeError(self.url, f"cannot be reached ({error})", remedy) from error
        if answer.status_code in {401, 403}:
            raise Denied(self.url, f"answered {answer.status_code}", "give a key with --key or WARDROBE_KEY")
        if answer.status_code != 200:
            return None
        try:
            return {str(one["id"]) for one in answer.json()["data"]}
        except (ValueError, KeyError, TypeError):
            return None


def address(option: str, url: str) -> str:
    """Return the root of the server at `url`, which `option` gave.

    Raises: UsageError: no HTTP address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(option, f"{url!r} is not an address", "write for instance http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")
