"""What Python's fork server imports, by name, before it forks: see `serve.engine.fork_server`."""

from __future__ import annotations

from serve.engine import fork_server

fork_server.keep_one()
fork_server.import_vllm()
