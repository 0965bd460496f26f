"""What the buttons do: one table of acts, each a row of a table of operations with a form before it.

Owns the forms, and the command that does the same. A button leads to the act's own page, which says what
will happen and asks for a reason where the command does; only that page's form changes anything. Invariant:
what is done, is done by the operation, and its refusal is shown as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from registry.api import documents as doc
from registry.api import operations
from registry.api.operation import Operation
from registry.errors import NotFound, UsageError, WardrobeError
from registry.wording import fact_of
from serve.console.entrance import HOME
from serve.console.forms import SentForm, read_form, read_query
from serve.console.place import Console
from serve.console.rendering import page
from serve.console.viewers import Viewer
from serve.control.layer import public

DONE = 303
"""The status of an act that was done: it leads back."""

Arguments = Callable[[str, SentForm], Mapping[str, Any]]
Command = Callable[[str, SentForm], list[str]]
Crumbs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of an act's form; `kind` is text or number."""

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Act:
    """One act on an adapter, its rollout, or a key; `danger` where it cannot be undone by another button."""

    word: str
    title: str
    effect: str
    done: str
    fields: tuple[FormField, ...]
    row: Operation[..., Any]
    arguments: Arguments
    command: Command
    danger: bool = False


_VERSION = FormField("version", "Version", "number")
_FORCE = FormField(
    "force",
    "Reason to move stable past what the version lacks",
    hint="Leave it empty, unless the version misses a requirement and shall go on all the same. Recorded.",
    required=False,
)
_ALIAS = FormField("alias", "Alias", hint="A word of your own; not canary, and not digits alone.")


def _move(_: str, form: SentForm) -> doc.MoveRequest:
    return doc.MoveRequest(version=form.number("version"), force=form.text("force"))


def _forced(form: SentForm) -> list[str]:
    return ["--force", "--why", form.text("force")] if form.text("force") else []


ACTS = (
    Act(
        "promote", "Promote a version",
        "It becomes stable: each server follows when it has the version loaded and proved, and until then the"
        " one before answers.",
        "Promoted. Each server follows when it has the version loaded and proved.",
        (_VERSION, _FORCE), operations.promote,
        lambda name, form: {"name": name, "body": _move(name, form)},
        lambda name, form: ["promote", f"{name}@{form.text('version') or 'N'}", *_forced(form)],
    ),
    Act(
        "rollback", "Roll back",
        "It undoes the last forward move of stable; twice goes two versions back.",
        "Rolled back. Each server follows when it has the version loaded.",
        (), operations.rollback,
        lambda name, _: {"name": name},
        lambda name, _: ["rollback", name],
    ),
    Act(
        "alias", "Set an alias",
        "Requests for the adapter at this alias are answered by the version; an alias that exists is moved.",
        "The alias is set.",
        (_ALIAS, _VERSION, _FORCE), operations.set_alias,
        lambda name, form: {"name": name, "alias": form.text("alias"), "body": _move(name, form)},
        lambda name, form: [
            "alias", "set", name, form.text("alias") or "ALIAS", form.text("version") or "N", *_forced(form),
        ],
    ),
    Act(
        "unalias", "Remove an alias",
        "Requests for the adapter at this alias get 404 at once; without stable so do those for its name.",
        "The alias is removed.",
        (_ALIAS,), operations.remove_alias,
        lambda name, form: {"name": name, "alias": form.text("alias")},
        lambda name, form: ["alias", "remove", name, form.text("alias") or "ALIAS"],
        danger=True,
    ),
    Act(
        "delete", "Delete a version",
        "It is served no more and its number is never used again; its files go with `wardrobe gc`. Refused"
        " while an alias points to it or a rollout uses it.",
        "The version is deleted.",
        (_VERSION,), operations.delete_version,
        lambda name, form: {"name": name, "number": form.number("version")},
        lambda name, form: ["delete", f"{name}@{form.text('version') or 'N'}"],
        danger=True,
    ),
)  # fmt: skip
"""Every act on an adapter."""


def done_by(acts: Iterable[Act], request: Request) -> str:
    """Return what is said after the act that an address names, '' where it names none."""
    word = request.query_params.get("done", "")
    return next((one.done for one in acts if one.word == word), "")


async def show_act(_: Console, request: Request, viewer: Viewer) -> Response:
    """Show the form of an act on an adapter."""
    return show_form(ACTS, _crumbs(request), request, viewer)


async def take_act(console: Console, request: Request, viewer: Viewer) -> Response:
    """Do it, or say why it was refused."""
    return await take_form(console, ACTS, _crumbs(request), request, viewer)


def show_form(
    acts: Iterable[Act], crumbs: Crumbs, request: Request, viewer: Viewer, here: str = "adapters"
) -> Response:
    """Show an act's form, filled in with what the address says; `crumbs` lead back, the last one afterwards.

    It is on the page called `here`, about what the address calls `name`.

    Raises: ScopeMissing; NotFound.
    """
    viewer.check_acts()
    return _form(viewer, _act(acts, request), crumbs, request, read_query(request), here)


async def take_form(
    console: Console,
    acts: Iterable[Act],
    crumbs: Crumbs,
    request: Request,
    viewer: Viewer,
    here: str = "adapters",
) -> Response:
    """Do what a form asks for and lead back, or show it again with the refusal.

    Raises: ScopeMissing; NotFound.
    """
    viewer.check_acts()
    act, name, form = _act(acts, request), request.path_params["name"], await read_form(request)
    try:
        await viewer.asking(console.control).answer(act.row, arguments_of(lambda: act.arguments(name, form)))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told above the form
        return _form(viewer, act, crumbs, request, form, here, public(error))
    left = act.word == "delete" and name not in console.view.adapters
    target = f"{HOME}/adapters" if left else f"{crumbs[-1][1]}?done={act.word}"
    return RedirectResponse(target, DONE, {"cache-control": "no-store"})


def arguments_of(make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the arguments that `make` makes of a form.

    Raises: UsageError: a field is not as the operation takes it.
    """
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(field, fact_of(first), "write another one", param=field) from error


def command_line(words: list[str]) -> str:
    """Return what one would write at a shell."""
    return shlex.join(["wardrobe", *words])


def _form(
    viewer: Viewer,
    act: Act,
    crumbs: Crumbs,
    request: Request,
    form: SentForm,
    here: str,
    error: WardrobeError | None = None,
) -> Response:
    name = request.path_params["name"]
    shown = {
        "here": here,
        "act": act,
        "name": name,
        "error": error,
        "values": {field.name: form.text(field.name) for field in act.fields},
        "command": command_line(act.command(name, form)),
        "crumbs": crumbs,
        "address": request.url.path,
    }
    return page("act.html", {**viewer.context(), **shown}, 200 if error is None else error.http_status)


def _act(acts: Iterable[Act], request: Request) -> Act:
    word, every = request.path_params["word"], {one.word: one for one in acts}
    if word not in every:
        raise NotFound(word, "is nothing that can be done here", f"one of {', '.join(every)}")
    return every[word]


def _crumbs(request: Request) -> list[tuple[str, str]]:
    name = request.path_params["name"]
    return [("Adapters", f"{HOME}/adapters"), (name, f"{HOME}/adapters/{name}")]
