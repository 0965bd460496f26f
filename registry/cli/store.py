"""`wardrobe init, register, list, show, history, verify, delete, gc, export`: what is in the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output, registering
from registry.cli.aliases import forget_name
from registry.cli.beginning import base_before, init_notes, others_in
from registry.cli.session import Session, UserPath, common_options, local_options, pass_session
from registry.errors import NotFound, UsageError, WardrobeError
from registry.names import TUNED_PREFIX, parse_model, parse_version
from registry.records import AliasMove, VerifyResult

if TYPE_CHECKING:
    from registry.api import documents as doc
    from registry.api.operation import Client

_FOLDER = UserPath()


@click.command()
@click.option("--base", required=True, type=_FOLDER, metavar="PATH", help="Folder of the base model.")
@click.option("--name", help="The base's served name (default: what the path calls it).")
@click.option("--max-lora-rank", type=click.IntRange(min=1), help="Largest rank accepted (default 32).")
@local_options
@pass_session
def init(session: Session, base: Path, name: str | None, max_lora_rank: int | None) -> None:
    """Make the root for ONE base model.

    Records the base's served name, fingerprint and shapes. Running it again with the same base updates its
    path, and keeps its name unless --name gives another. Another base is refused.
    """
    from registry.api import documents as doc
    from registry.records import Limits
    from registry.store import Registry

    root = session.require_local("init")
    limits = Limits() if max_lora_rank is None else Limits(max_lora_rank=max_lora_rank)
    before, others = base_before(root), others_in(root)
    registry = Registry.init(root, base, name=name, limits=limits)
    document = doc.InitDocument(
        root=str(root),
        base=doc.BaseDocument(name=registry.base.name, fingerprint=registry.base.fingerprint),
        max_lora_rank=registry.limits.max_lora_rank,
        notes=[*others, *init_notes(before, registry.base, base, named=name is not None)],
    )
    if session.as_json:
        output.print_json(document)
        return
    output.print_line(f"{document.root} is ready for {document.base.name}  {document.base.fingerprint}")
    for note in document.notes:
        output.print_notice(note)


@click.command(short_help="Publish PEFT LoRA folders as the next versions.")
@click.argument("targets", nargs=-1, metavar="NAME DIR | NAME=DIR…")
@click.option("--all", "above", type=_FOLDER, metavar="DIR", help="Every sub-folder, called as the adapter.")
@click.option("--alias", metavar="ALIAS", help="Point this alias to the version, for instance stable.")
@click.option("--no-stable", is_flag=True, help="Do not point stable to an adapter's first version.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the version.")
@click.option("--golden", type=_FOLDER, metavar="FILE", help="Golden prompts of the adapter (JSONL).")
@click.option(
    "--allow-duplicate", is_flag=True, help="Publish a new version even if the content exists already."
)
@click.option(
    "--require",
    multiple=True,
    type=click.Choice(["gate", "parity", "tokens"]),
    help="Require this attestation before the version becomes stable, in addition to the root's. Repeatable.",
)
@common_options
@pass_session
def register(
    session: Session,
    targets: tuple[str, ...],
    above: Path | None,
    alias: str | None,
    no_stable: bool,
    note: str,
    golden: Path | None,
    allow_duplicate: bool,
    require: tuple[str, ...],
) -> None:
    """Publish DIR, a PEFT LoRA folder, as the next version of NAME.

    Prints NAME@N and the digest. The folder is checked first; a refused one leaves nothing behind.
    Content that exists already keeps its version. A version that misses requirements is registered, but
    does not become stable.

    NAME=DIR pairs, or --all, register many in one call, several at once. A refused folder stops no other:
    a table says what became of each, and the exit code is 1. Run again, it finds what is there.
    """
    from registry.changes.publish import PublishRequest
    from registry.validation.requirements import parse_requirements

    if alias is not None and no_stable:
        raise UsageError("--alias and --no-stable", "exclude each other", "give one of them")
    found = registering.pairs(targets, above)
    if golden is not None and len(found) > 1:
        raise UsageError("--golden", "belongs to one adapter", "register that one by itself", param="golden")
    required = parse_requirements(require, "--require")
    wanted = [
        PublishRequest(name, folder, alias, no_stable, note, golden, allow_duplicate, required)
        for name, folder in found
    ]
    if above is None and "=" not in targets[0]:
        registering.register_one(session, wanted[0])
    else:
        registering.register_many(session, wanted)


@click.command("list")
@common_options
@pass_session
def list_(session: Session) -> None:
    """List the adapters with their versions and aliases."""
    from registry.api import operations

    adapters = operations.list_adapters(session.client()).adapters
    if session.as_json:
        output.print_json(adapters)
        return
    rows = [
        (
            one.adapter,
            f"{one.stable} (quarantined)" if one.stable_quarantined else _reference(one.stable),
            _reference(one.latest),
            str(one.versions),
            _others(one.aliases),
        )
        for one in adapters
        if not one.problem
    ]
    output.print_table(("adapter", "stable#", "latest#", "versions#", "other aliases"), rows)
    for one in adapters:
        if one.problem:
            output.print_warning(f"{one.adapter} cannot be read: {one.problem}")


@click.command(short_help="Show an adapter, or one version of it.")
@click.argument("name", metavar="NAME[@N]")
@common_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show an adapter, or one version of it (NAME@N or NAME@ALIAS)."""
    from registry.api import operations

    reference = parse_model(name)
    client = session.client()
    if str(reference) == reference.adapter:
        adapter = operations.show_adapter(client, reference.adapter)
        output.print_json(adapter) if session.as_json else _print_adapter(adapter)
        return
    number = reference.version or _number_of(client, reference.adapter, str(reference.alias))
    version = operations.show_version(client, reference.adapter, number)
    output.print_json(version) if session.as_json else _print_version(version)


@click.command(short_help="Show every move of an adapter's aliases.")
@click.argument("name")
@common_options
@pass_session
def history(session: Session, name: str) -> None:
    """Show every move of NAME's aliases: what was live when, by whom and why."""
    from registry.api import operations

    moves = operations.show_history(session.client(), name).moves
    if session.as_json:
        output.print_json(moves, AliasMove)
        return
    rows = [
        (output.moment(move.at), move.alias, _reference(move.version), move.who, move.why) for move in moves
    ]
    output.print_table(("when", "alias", "version#", "who", "why"), rows)


@click.command(short_help="Hash versions again; exit 1 when one has changed.")
@click.argument("name", required=False, metavar="[NAME[@N]]")
@common_options
@pass_session
def verify(session: Session, name: str | None) -> None:
    """Hash every version again (or NAME's, or NAME@N); exit 1 if one has changed.

    A changed version is quarantined: servers stop loading it.
    """
    client = session.client()
    targets = _versions_of(client, name)
    results: list[VerifyResult] = []
    with output.progress("verify", len(targets)) as advance:
        for adapter, number in targets:
            results += _verified(client, adapter, number, alone=name is not None)
            advance(1)
    if session.as_json:
        output.print_json(results)
    else:
        rows = [(result.name, "ok" if result.ok else "BAD", result.problem or "") for result in results]
        output.print_table(("version", "verdict", "problem"), rows)
    bad = [result.name for result in results if not result.ok]
    if bad:
        fact = f"{len(bad)} of {len(results)} versions are not as published"
        raise WardrobeError(", ".join(bad), fact, "publish them again; `wardrobe show` has the reason")


@click.command(short_help="Delete a version, or the name ft:… of one; neither is ever used again.")
@click.argument("name", metavar="NAME@N|ft:…")
@common_options
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a version: its number is never used again, its files go at the next gc.

    Refused while an alias, an open rollout or the name of a tuned model uses it. Such a name (ft:…) is
    deleted alone: its version stays.
    """
    from registry.api import operations

    if name.startswith(TUNED_PREFIX):
        document: doc.Document = forget_name(session, name)
    else:
        document = operations.delete_version(session.client(), *parse_version(name))
    output.print_json(document) if session.as_json else output.print_line(f"{name} deleted")


@click.command(short_help="Collect unused files (dry run without --apply).")
@click.option("--apply", is_flag=True, help="Do it; without this, only print what would be done.")
@click.option(
    "--now", is_flag=True, help="Delete for good at once; otherwise files stay in the trash for a day."
)
@common_options
@pass_session
def gc(session: Session, apply: bool, now: bool) -> None:
    """Move unused files to the trash; delete trash older than a day.

    Prints what it would do unless --apply is given. With --apply --now everything unused is deleted at once,
    with the whole trash; this works on a full disk.
    """
    from registry.api import documents as doc
    from registry.api import operations

    document = operations.collect_garbage(session.client(), doc.GcRequest(apply=apply, now=now))
    if session.as_json:
        output.print_json(document)
        return
    rows = [("trash", name, _why_collected(name)) for name in document.trashed]
    rows += [("remove", name, _why_collected(name)) for name in document.emptied]
    if not rows:
        output.print_line("nothing to collect")
    rows += [("keep", name, why) for name, why in document.kept_because.items()]
    if not rows:
        return
    output.print_table(("action", "what", "because"), rows)
    if not apply and (document.trashed or document.emptied):
        output.print_line("nothing was changed: add --apply to do it")


def _why_collected(name: str) -> str:
    if "/" not in name:
        return "deleted"
    top = name.partition("/")[0]
    if top == "trash":
        return "in the trash"
    return "begun and never finished" if ".tmp" in name or top == "staging" else "kept long enough"


@click.command(short_help="Write a version as a plain PEFT folder.")
@click.argument("name", metavar="NAME@N")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--base", metavar="TEXT", help="What its config calls the base (a path, or ORG/NAME).")
@common_options
@pass_session
def export(session: Session, name: str, folder: Path, base: str | None) -> None:
    """Write a version's files into the new folder DIR, as a plain PEFT adapter.

    Its config keeps the adapter's own name of the base if that leads to a model; otherwise it names the
    folder of the root's base (with --url: the base's served name).
    """
    from registry.api import operations

    adapter, number = parse_version(name)
    document = operations.export(session.client(), adapter, number, folder, base)
    if session.as_json:
        output.print_json(document)
        return
    output.print_line(f"{name} written to {folder}")
    output.print_notice(f"its config names the base {document.base}; --base names another")


def _versions_of(client: Client, name: str | None) -> list[tuple[str, int | None]]:
    # One version at a time, so that there is progress to show and no answer takes minutes.
    if name is None:
        from registry.api import operations

        adapters = [one.adapter for one in operations.list_adapters(client).adapters]
        return [(adapter, number) for adapter in adapters for number in _numbers(client, adapter)]
    reference = parse_model(name)
    if reference.version is not None:
        return [(reference.adapter, reference.version)]
    if reference.alias is not None:
        return [(reference.adapter, _number_of(client, reference.adapter, reference.alias))]
    return [(reference.adapter, number) for number in _numbers(client, reference.adapter)]


def _verified(client: Client, adapter: str, number: int | None, *, alone: bool) -> list[VerifyResult]:
    from registry.api import documents as doc
    from registry.api import operations

    try:
        return operations.verify(client, doc.VerifyRequest(adapter=adapter, version=number)).results
    except WardrobeError as error:
        if alone:
            raise
        # The others go on; one that was deleted meanwhile is none.
        broken = VerifyResult(name=adapter, ok=False, problem=str(error))
        return [] if isinstance(error, NotFound) else [broken]


def _numbers(client: Client, adapter: str) -> list[int | None]:
    from registry.api import operations

    try:
        found = operations.show_adapter(client, adapter)
    except (NotFound, UsageError):
        raise
    except WardrobeError:
        return [None]  # whatever of it can be verified
    return [*sorted([*(one.version for one in found.versions), *found.unreadable])]


def _number_of(client: Client, adapter: str, alias: str) -> int:
    from registry.api import operations

    aliases = operations.show_adapter(client, adapter).aliases
    if alias not in aliases:
        known = ", ".join(sorted(aliases)) or "none"
        raise NotFound(f"{adapter}@{alias}", "is not an alias", f"its aliases: {known}", param="alias")
    return aliases[alias]


def _print_adapter(adapter: doc.AdapterDocument) -> None:
    output.print_facts([("adapter", adapter.adapter), ("stable", _reference(adapter.stable))])
    rows = [
        (
            str(one.version),
            output.short(one.digest),
            output.moment(one.created_at),
            str(one.rank),
            output.amount(one.size_bytes),
            " ".join(one.aliases),
            one.quarantined or "",
            one.note,
        )
        for one in adapter.versions
    ]
    rows += [(str(number), *"-----", reason, "") for number, reason in adapter.unreadable.items()]
    columns = ("version#", "digest", "created", "rank#", "size#", "aliases", "quarantined", "note")
    output.print_table(columns, rows)


def _print_version(version: doc.VersionDetail) -> None:
    output.print_facts(
        [
            ("version", f"{version.adapter}@{version.version}"),
            ("digest", version.digest),
            ("created", f"{output.moment(version.created_at)} by {version.who}"),
            ("rank", str(version.rank)),
            ("modules", " ".join(version.target_modules)),
            ("size", output.amount(version.size_bytes)),
            ("aliases", " ".join(version.aliases) or "-"),
            ("quarantined", version.quarantined or "no"),
            ("note", version.note or "-"),
        ]
    )
    rows = [(file.path, output.amount(file.size), output.short(file.sha256)) for file in version.files]
    output.print_table(("file", "size#", "sha256"), rows)
    if version.attestations:
        found = [(one.kind, _said(one.body), output.moment(one.at), one.who) for one in version.attestations]
        output.print_table(("attestation", "says", "when", "who"), found)


def _said(body: Mapping[str, object]) -> str:
    """Return the verdict of an attestation, '-' where it has none."""
    verdict, passed = body.get("verdict"), body.get("passed")
    if isinstance(verdict, str):
        return verdict.replace("_", " ")
    return {True: "pass", False: "fail"}[passed] if isinstance(passed, bool) else "-"


def _reference(number: int | None) -> str:
    return "-" if number is None else str(number)


def _others(aliases: Mapping[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in sorted(aliases.items()) if name != "stable")
