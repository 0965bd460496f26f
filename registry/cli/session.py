"""What every command of one call shares: the root or the URL, the key, and the form of the output.

The four options may stand before or after the sub-command; the one after wins. Invariant: nothing is
opened and nothing heavy is imported until a command asks for its client.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from registry.errors import UsageError
from registry.home import at_home

if TYPE_CHECKING:
    from registry.api.client import HttpClient
    from registry.api.operation import Client
    from registry.store import Registry

ROOT_VARIABLE = "WARDROBE_ROOT"
KEY_VARIABLE = "WARDROBE_KEY"
DEFAULT_ROOT = Path("wardrobe-data")

_Command = TypeVar("_Command", bound=Callable[..., object])


class UserPath(click.Path):
    """A path on the command line, with `~` as the home folder also where the shell left it (`--root=~/x`).

    Every path of every command is of this type; the options are click's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; an empty one would be the working directory, which nobody meant."""
        if value == "":
            self.fail("it is empty, as an unset variable is; name a path", param, ctx)
        return super().convert(at_home(value), param, ctx)


@dataclass
class Session:
    """The shared options of one call, as given; None where an option was not given."""

    root: Path | None = None
    url: str | None = None
    key: str | None = None
    as_json: bool = False

    @property
    def root_path(self) -> Path:
        """Return the root: `--root`, else `WARDROBE_ROOT`, else `./wardrobe-data`."""
        return self.root or at_home(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)

    @property
    def api_key(self) -> str | None:
        """Return the key: `--key`, else `WARDROBE_KEY`; an empty one (an unset secret) is none."""
        return self.key or os.environ.get(KEY_VARIABLE) or None

    def client(self) -> Client:
        """Open the root directly or, with `--url`, the server's admin API, until the command ends.

        Raises: UsageError: when both are given; NotFound: when the root is none.
        """
        if self.url is not None:
            return self.http_client()
        from registry.api.operation import LocalClient

        return LocalClient(self.registry(), user_name())

    def registry(self) -> Registry:
        """Open the root.

        Raises: NotFound: when it is none.
        """
        from registry.store import Registry

        return Registry.open(self.root_path)

    def http_client(self) -> HttpClient:
        """Return a client of the server at `--url`, closed when the command ends.

        Raises: UsageError: without `--url`, or when `--root` is given as well.
        """
        if self.url is None:
            raise UsageError("--url", "is not given", "give the server's root, http://host:port")
        if self.root is not None:
            raise UsageError("--root and --url", "exclude each other", "give one of them")
        from registry.api.client import HttpClient

        client = HttpClient(self.url, key=self.api_key)
        click.get_current_context().call_on_close(client.close)
        return client

    def require_local(self, command: str) -> Path:
        """Return the root for a command that exists only beside the files.

        Raises: UsageError: with `--url`.
        """
        if self.url is not None:
            raise UsageError(
                f"{command} --url", "works on a root, not over HTTP", "run it where the root is, with --root"
            )
        return self.root_path


def user_name() -> str:
    """Return who is at the keyboard, for the logs of the store."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd (3.13: OSError)
        return f"uid-{os.getuid()}"


def common_options(command: _Command) -> _Command:
    """Give a command or group the options `--root`, `--url`, `--key` and `--json`.

    They are kept in the call's `Session`, which a command receives with `pass_session`.
    """
    return _options(command, hide_url=False)


def local_options(command: _Command) -> _Command:
    """Give a command that works beside the files only the same options, `--url` and `--key` out of its help.

    They are still read, so that the refusal says where the command works.
    """
    return _options(command, hide_url=True)


def _options(command: _Command, *, hide_url: bool) -> _Command:
    root_help = f"Root of all state (or {ROOT_VARIABLE}; default ./{DEFAULT_ROOT})."
    key_help = f"API key for --url (or {KEY_VARIABLE})."
    url_help = "Work over HTTP on a running server."
    command = _option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
    command = _option("--key", metavar="KEY", help=key_help, hidden=hide_url)(command)
    command = _option("--url", metavar="URL", help=url_help, hidden=hide_url)(command)
    return _option("--root", type=UserPath(), metavar="DIR", help=root_help)(command)


def _option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    return click.option(*names, expose_value=False, callback=_keep, **settings)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None and value is not False:
        assert parameter.name is not None
        setattr(context.ensure_object(Session), parameter.name, value)


pass_session = click.make_pass_decorator(Session, ensure=True)
