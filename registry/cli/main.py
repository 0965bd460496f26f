"""The one console command, `wardrobe`, and what every sub-command shares: finding, failing, ending.

Sub-commands are found through the entry-point group `wardrobe.commands` and imported only when they are
needed. Invariant: a sub-command that cannot be imported is named with its reason and breaks no other.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

from registry.cli.output import print_error
from registry.cli.session import Session, common_options, pass_session
from registry.errors import UsageError, WardrobeError
from registry.foreign import require_own
from registry.wording import option_fact

GROUP = "wardrobe.commands"
DISTRIBUTION = "wardrobe-llm"
INTERRUPTED = 130

_SECTIONS = {
    "Adapters": ("init", "register", "list", "show", "history", "verify", "delete", "gc", "export"),
    "Traffic": ("alias", "promote", "rollback", "rollout"),
    "Serving": ("serve", "plan", "status", "keys", "groups", "usage", "loadtest"),
    "Training": ("base", "train", "data", "eval", "migrate"),
}
_OTHERS = "Plug-ins"


class Commands(click.Group):
    """A group whose sub-commands are the entry points of `GROUP`."""

    @cached_property
    def points(self) -> dict[str, EntryPoint]:
        """Return the entry points by command name; on a clash this distribution's own wins."""
        found = sorted(entry_points(group=GROUP), key=_is_own)
        return {point.name: point for point in found}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names of all sub-commands, in the order of the help."""
        known = [name for names in _SECTIONS.values() for name in names]
        return sorted(
            {*self.points, *self.commands},
            key=lambda name: (known.index(name) if name in known else len(known), name),
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the sub-command, or return one that says why it cannot be imported."""
        if cmd_name not in self.commands and cmd_name in self.points:
            self.commands[cmd_name] = _load(self.points[cmd_name])
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; an unknown one is answered with the names that are near it."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = get_close_matches(name, self.list_commands(ctx), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `wardrobe --help`"
            raise UsageError(name, "is not a command", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sub-commands by section."""
        names = self.list_commands(ctx)
        known = {name for section in _SECTIONS.values() for name in section}
        sections = {**_SECTIONS, _OTHERS: tuple(name for name in names if name not in known)}
        for title, members in sections.items():
            rows = [(name, self._summary(ctx, name)) for name in members if name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else _first_sentence(command)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=DISTRIBUTION, prog_name="wardrobe", message="%(prog)s %(version)s")
@common_options
@pass_session
@click.pass_context
def wardrobe(context: click.Context, session: Session) -> None:
    """One base model, a wardrobe of adapters: versions, hot swaps and rollbacks on top of vLLM.

    The options below may also stand after the sub-command. Exit codes: 0 done, 1 refused or failed,
    2 wrong usage, 130 interrupted. Errors go to stderr; with --json their last line is JSON.
    """
    # Commands of other packages need not know the session: the options given here become the
    # defaults of theirs that have the same name.
    given = {"root": session.root, "url": session.url, "key": session.key, "as_json": session.as_json}
    context.default_map = _Defaults({name: value for name, value in given.items() if value})


def main() -> NoReturn:
    """Run the command line of this process and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every refusal is printed on stderr."""
    as_json = "--json" in _before_separator(arguments)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except WardrobeError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except UnicodeEncodeError as error:
        print_error(_from_text(error), as_json=as_json)
        return UsageError.exit_code
    except OSError as error:
        if error.errno == errno.EPIPE:
            _silence_stdout()
            return 1
        if error.filename is None:
            raise
        print_error(_from_os(error), as_json=as_json)
        return 1
    return code


def _invoke(arguments: Sequence[str]) -> int:
    try:
        result = wardrobe.main(args=list(arguments), prog_name="wardrobe", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        raise _from_click(error) from error
    # click hands back the code of `ctx.exit`, or what the command returned.
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _from_click(error: click.ClickException) -> WardrobeError:
    fact = option_fact(error.format_message().rstrip(".").replace("\n", " "))
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = "wardrobe" if context is None else context.command_path
    if isinstance(error, click.UsageError):
        return UsageError(path, fact, f"see `{path} --help`")
    return WardrobeError(path, fact)


def _from_os(error: OSError) -> WardrobeError:
    return WardrobeError(str(error.filename), error.strerror or str(error), "check the path and its rights")


def _from_text(error: UnicodeEncodeError) -> WardrobeError:
    # A shell hands on any bytes; in names of files they are fine, in what is stored they are not.
    found = error.object[max(error.start - 20, 0) : error.end + 20]
    return UsageError(repr(found), "holds bytes that are no UTF-8", "write it in UTF-8")


def _load(point: EntryPoint) -> click.Command:
    try:
        require_own(point.module.partition(".")[0])
        command = point.load()
    except WardrobeError as error:
        return _Broken(point, str(error), error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plug-in may fail in any way
        return _Broken(point, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        return _Broken(point, f"{point.value} is not a click command")
    return _with_whole_summaries(command)


def _first_sentence(command: click.Command) -> str:
    return command.short_help or (command.help or "").strip().partition("\n\n")[0]


def _with_whole_summaries(command: click.Command) -> click.Command:
    """Let the lists of commands show the first sentence of each whole; click would cut it off with dots."""
    if isinstance(command, click.Group):
        for sub in command.commands.values():
            sub.short_help = _first_sentence(sub)
            _with_whole_summaries(sub)
    return command


class _Broken(click.Command):
    """Stands in for a sub-command that cannot be imported."""

    def __init__(self, point: EntryPoint, reason: str, error: WardrobeError | None = None) -> None:
        super().__init__(point.name, short_help=f"(cannot be loaded: {reason})", add_help_option=False)
        self.ignore_unknown_options = True
        self.allow_extra_args = True
        self._point = point
        self._reason = reason
        self._error = error

    def invoke(self, ctx: click.Context) -> NoReturn:  # noqa: ARG002
        if self._error is not None:
            raise self._error
        owner = self._point.dist.name if self._point.dist else "an unknown package"
        fact = f"cannot be loaded from {self._point.value} of {owner} ({self._reason})"
        raise WardrobeError(self._point.name, fact, f"repair or remove {owner}")


class _Defaults(dict[str, object]):
    """The same defaults for a sub-command of any name, at any depth."""

    def get(self, key: str, default: object = None) -> object:
        if key in _OPTION_NAMES:
            return super().get(key, default)
        return self


_OPTION_NAMES = frozenset({"root", "url", "key", "as_json"})


def _is_own(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == DISTRIBUTION


def _before_separator(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _silence_stdout() -> None:
    # The interpreter flushes stdout once more at exit; that must not fail a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
