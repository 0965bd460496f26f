"""The server: vLLM with the router inside, its launcher, and the admin API.

The door is lazy: `wardrobe --help` and the launcher read the settings without importing a web framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.router.app import Router
    from serve.settings import ServeSettings, load_settings

__all__ = ["Router", "ServeSettings", "load_settings"]


def __getattr__(name: str) -> Any:
    if name == "Router":
        from serve.router.app import Router

        return Router
    if name in {"ServeSettings", "load_settings"}:
        from serve import settings

        return getattr(settings, name)
    raise AttributeError(f"module 'serve' has no attribute {name!r}")
