"""The engine's process: vLLM's own API server on a socket that somebody else listens on.

`python -m serve.engine.child --fd N --line M -- VLLM-OPTIONS` is started by `serve.launcher`. The socket
`N` is bound and listening already and stays open in the parent, so a client is never refused, whatever
happens here. This file holds everything that we take from vLLM's private start-up:

- `make_arg_parser` and `validate_parsed_serve_args` parse and check what vLLM's own command would;
- `run_server_worker` is all that vLLM's start-up does after binding; what it is given besides goes to
  `uvicorn.Config`, so `http` chooses the protocol;
- `validate_api_server_args`, `set_ulimit` and the SIGTERM handler are what it does before.

NOTE: the `vllm` command and `vllm.entrypoints.openai.api_server` are not used: both bind by themselves,
the second is deprecated, and the first is broken in the CPU wheel. Remove when vLLM takes a socket.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from registry.errors import UsageError, WardrobeError
from serve.engine import fork_server
from serve.engine.handover import ChildLine, open_line
from serve.settings import handed_over

if TYPE_CHECKING:
    from types import FrameType

BAD_ARGUMENTS = 2
"""Exit code for a configuration that no restart can cure; argparse uses the same."""


CRASHED = 1
STARTUP_FAILED = 3
ENGINE_DIED = 4

ROUTER = "serve.router.app.Router"
HANDOVER = "serve.engine.handover.Handover"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the engine's process to its end and return its exit code."""
    own = _own_arguments(argv)
    line = open_line(own.line)
    try:
        if fork_server.start(handed_over().engine.fork):
            fork_server.take_over()
        args = vllm_arguments(own.options, json.loads(own.owned))
        # Outermost last: the handover sees the lifespan of everything, and no request.
        args.middleware = [own.middleware, HANDOVER]
    except (WardrobeError, ValueError, TypeError, KeyError) as error:
        line.say(f"failed {error}")
        sys.stderr.write(f"error: {error}\n")
        return BAD_ARGUMENTS
    return _serve(socket.socket(fileno=own.fd), args, line)


def _own_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve.engine.child", allow_abbrev=False)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--line", type=int, required=True, help="the socket pair to the supervisor")
    parser.add_argument("--middleware", default=ROUTER, help="import path of the ASGI class inside vLLM")
    parser.add_argument("--owned", default="{}", help="JSON of options that must come out unchanged")
    parser.add_argument("options", nargs="*", help="vLLM's options, after `--`")
    return parser.parse_args(argv)


def vllm_arguments(options: Sequence[str], owned: Mapping[str, JsonValue]) -> argparse.Namespace:
    """Have vLLM parse and check its options; what is `owned` must come out as it is.

    Raises: UsageError; ValueError, TypeError, KeyError: vLLM refuses them. SystemExit: one is unknown.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm option"))
    args: argparse.Namespace = parser.parse_args(list(options))
    configure_logging_from_args(args)
    validate_parsed_serve_args(args)
    _import_parsers(args)
    validate_api_server_args(args)
    _confirm(args, owned)
    return args


def _import_parsers(args: argparse.Namespace) -> None:
    """Import parsers of the user's own, which vLLM does before it asks whether the named one exists."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)


def _confirm(args: argparse.Namespace, owned: Mapping[str, JsonValue]) -> None:
    untouched: dict[str, JsonValue] = {
        "uds": None,
        "api_key": None,
        "ssl_keyfile": None,
        "lora_modules": None,
        "allowed_origins": [],
    }
    for name, value in {**untouched, **owned}.items():
        if getattr(args, name) != value:
            found = getattr(args, name)
            raise UsageError(f"vllm option {name}", f"came out as {found!r}, not {value!r}", "remove it")


def _serve(listener: socket.socket, args: argparse.Namespace, line: ChildLine) -> int:
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.utils.system_utils import decorate_logs, set_ulimit

    decorate_logs("APIServer", skip_if_decorated=True)
    set_ulimit()
    signal.signal(signal.SIGTERM, _interrupt)
    address = f"http://{args.host}:{args.port}"
    try:
        # `set_ulimit` comes first: how many connections can be held depends on it.
        uvloop.run(run_server_worker(address, listener, args, http=_protocol()))
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor is told
        line.say(f"failed {type(error).__name__}: {error}")
        traceback.print_exc()
        # What vLLM refuses before it starts any process is a ValueError, and no restart mends it.
        return BAD_ARGUMENTS if isinstance(error, ValueError) else CRASHED
    # NOTE: uvicorn returns as if all were well when the lifespan could not start.
    if line.failed:
        return STARTUP_FAILED
    return ENGINE_DIED if line.engine_died else 0


def _protocol() -> type:
    """Return uvicorn's protocol with our limits; vLLM passes it on to uvicorn as it is."""
    from prometheus_client import REGISTRY

    from serve.connections.metrics import expose
    from serve.connections.protocol import limited

    protocol = limited(handed_over().connections)
    expose(protocol.census, REGISTRY)
    return protocol


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    # Until uvicorn runs and has handlers of its own, this is what ends vLLM's long start-up.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
