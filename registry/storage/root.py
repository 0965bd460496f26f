"""The root: where everything lies, which base model it is for, and what registry and server share.

Owns `layout.json` (the format, and the root's identity), `base.json` (the base's fingerprint and shapes) and
`wardrobe.toml` (the part that people edit: the base's served name and path, the limits, what is required of a
version, how long what is kept). Invariants: `layout.json` is written last, so a folder with it is a whole
root; every path handed out lies inside the root; opening one writes nothing.
"""

from __future__ import annotations

import secrets
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Conflict, CorruptStore, Missing, NotFound, UsageError
from registry.home import at_home
from registry.names import check_adapter_name, check_alias_name
from registry.records import BaseModelInfo, Limits, Retention
from registry.storage import anchor, disk, files, reserve
from registry.storage.anchor import BASE, LAYOUT
from registry.storage.entry import Entry, encode
from registry.storage.mount import self_test
from registry.validation.requirements import Requirement, parse_requirements

if TYPE_CHECKING:
    from pydantic import JsonValue

FORMAT = "wardrobe"
MAJOR, MINOR = 1, 1
SETTINGS = "wardrobe.toml"
_SETTINGS_BYTES = 1024**2
FOLDERS = ("adapters", "changes", "replicas", "keys", "staging", "trash")


@dataclass(frozen=True, slots=True)
class Root:
    """An opened root; `path` is absolute and free of symlinks."""

    path: Path
    base: BaseModelInfo
    limits: Limits
    retention: Retention

    @classmethod
    def open(cls, path: Path) -> Root:
        """Open the root at `path`; its mount is tried before the first write.

        Raises: NotFound; CorruptStore; StorageFailed; UsageError: for an unknown key in wardrobe.toml.
        """
        path = disk.resolved(path)
        if not disk.exists(path / LAYOUT):
            raise NotFound(
                str(path),
                "is not a Wardrobe root",
                "mount it if it is away, or run `wardrobe init --base PATH`",
                param="root",
            )
        _check_layout(path / LAYOUT)
        root = _read_root(path)
        anchor.hold(path, lambda: _try(path))
        return root

    @classmethod
    def init(cls, path: Path, base: BaseModelInfo, limits: Limits, *, rename: bool = True) -> Root:
        """Make the root for `base`, or open the one that is there for the same base.

        On a root that exists, a new path of the base and changed limits are recorded, and with `rename` its
        name; `limits` equal to the defaults count as not given.

        Raises: Conflict: when the root is another base's, or an adapter has the base's new name;
        StorageFailed; UnsafeRoot.
        """
        path = disk.resolved(path)
        if disk.exists(path / LAYOUT):
            return _reopen(cls.open(path), base, limits, rename=rename)
        anchor.drop(path)
        _make_folders(path)
        self_test(path / "staging")
        files.replace(path / BASE, _encode_base(base))
        files.replace(path / SETTINGS, _encode_settings(cls(path, base, limits, Retention()), ()))
        reserve.fill(path)
        files.replace(path / LAYOUT, _encode_layout())
        return _reopen(cls.open(path), base, limits, rename=rename)

    def try_mount(self) -> None:
        """Try the mount now, as the first write would; where nothing can be written it is left untested.

        Raises: UnsafeRoot; RootAway; StorageFailed: what the folders of the root need was refused.
        """
        anchor.check(self.path)

    @property
    def adapters(self) -> Path:
        """The folder of all adapters."""
        return self.path / "adapters"

    def adapter(self, name: str) -> Path:
        """Return the folder of an adapter.

        Raises: InvalidName.
        """
        return self.adapters / check_adapter_name(name)

    def versions(self, adapter: str) -> Path:
        """Return the folder of an adapter's versions."""
        return self.adapter(adapter) / "versions"

    def version(self, adapter: str, number: int) -> Path:
        """Return the folder of one version."""
        return self.versions(adapter) / str(int(number))

    def alias(self, adapter: str, alias: str) -> Path:
        """Return the folder of an alias's log.

        Raises: InvalidName.
        """
        return self.adapter(adapter) / "aliases" / check_alias_name(alias)

    @property
    def staging(self) -> Path:
        """The folder of unfinished work."""
        return self.path / "staging"

    def required(self) -> tuple[Requirement, ...]:
        """Return what `[publishing] require` asks of a version now.

        Read at each call, so that a running server honours what was just written.

        Raises: UsageError: a key or a requirement that does not exist; CorruptStore.
        """
        path = self.path / SETTINGS
        publishing = _read_settings(path).mapping("publishing")
        _check_keys(path, publishing, {"require"})
        wanted = publishing.get("require", [])
        if not isinstance(wanted, list):
            fact = f"publishing.require is {wanted!r}, not a list"
            raise UsageError(str(path), fact, 'write require = ["gate", "parity"]', param="require")
        return parse_requirements(wanted, f"{path} publishing.require")

    def contain(self, path: Path) -> Path:
        """Return `path` if no symlink leads it out of the root.

        Raises: CorruptStore.
        """
        if disk.resolved(path) != path:
            raise CorruptStore(str(path), "leads through a symbolic link", "replace the link by the files")
        return path


def _try(path: Path) -> None:
    # Backups leave out empty folders.
    _make_folders(path)
    self_test(path / "staging")
    reserve.fill(path)


def _make_folders(path: Path) -> None:
    for folder in FOLDERS:
        files.make_directory(path / folder, mode=0o700 if folder == "keys" else 0o777)


def _check_layout(path: Path) -> None:
    layout = Entry.read(path)
    if layout.text("format") != FORMAT:
        raise CorruptStore(str(path), f"names the format {layout.text('format')!r}, not {FORMAT!r}")
    if layout.integer("major") != MAJOR:
        fact = f"the root has layout {layout.integer('major')}, this program knows {MAJOR}"
        raise CorruptStore(str(path), fact, "use the program that made the root, or a newer one")


def _read_root(path: Path) -> Root:
    settings = _read_settings(path / SETTINGS)
    base, limits = settings.mapping("base"), settings.mapping("limits")
    _check_keys(path / SETTINGS, base, {"name", "path"})
    _check_keys(path / SETTINGS, limits, {field.name for field in fields(Limits)})
    _check_keys(path / SETTINGS, settings.mapping("publishing"), {"require"})
    _check_keys(path / SETTINGS, settings.mapping("retention"), {field.name for field in fields(Retention)})
    named = Entry(path / SETTINGS, base)
    shared = Entry(path / SETTINGS, {**asdict(Limits()), **limits})
    kept = Entry(path / SETTINGS, {**asdict(Retention()), **settings.mapping("retention")})
    return Root(
        path,
        _read_base(path / BASE, named.text("name"), at_home(named.text("path"))),
        Limits(**_positive(shared, Limits)),
        Retention(**_positive(kept, Retention)),
    )


def _positive(entry: Entry, kind: type[Limits | Retention]) -> dict[str, int]:
    found = {field.name: entry.integer(field.name) for field in fields(kind)}
    wrong = next((name for name, value in found.items() if value < 1), None)
    if wrong is not None:
        raise UsageError(str(entry.path), f"{wrong} is {found[wrong]}", "give at least 1", param=wrong)
    return found


def _read_settings(path: Path) -> Entry:
    try:
        parsed = tomllib.loads(disk.read(path, limit=_SETTINGS_BYTES).decode())
    except Missing as error:
        raise CorruptStore(str(path), "is missing", "restore it from a backup") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(str(path), f"is not TOML ({error})", "correct the file") from error
    _check_keys(path, parsed, {"base", "limits", "publishing", "retention"})
    return Entry(path, {"limits": {}, "publishing": {}, "retention": {}, **parsed})


def _check_keys(path: Path, table: dict[str, object] | dict[str, JsonValue], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        allowed = ", ".join(sorted(known))
        raise UsageError(str(path), f"unknown key {unknown[0]}; known here: {allowed}", param=unknown[0])


def _read_base(path: Path, name: str, folder: Path) -> BaseModelInfo:
    try:
        entry = Entry.read(path)
    except Missing as error:
        raise CorruptStore(str(path), "is missing", "restore it from a backup") from error
    modules = {}
    for module, shape in entry.mapping("modules").items():
        match shape:
            case [int(rows), int(columns)]:
                modules[module] = (rows, columns)
            case _:
                raise CorruptStore(str(path), f"shape of {module} is {shape}", "restore it from a backup")
    template = entry.optional_text("chat_template_sha256")
    text = entry.optional_text("chat_template")
    return BaseModelInfo(name, folder, entry.text("fingerprint"), template, modules, text)


def _reopen(root: Root, base: BaseModelInfo, limits: Limits, *, rename: bool) -> Root:
    if root.base.fingerprint != base.fingerprint:
        raise Conflict(
            str(root.path),
            f"is the root of base {root.base.name} ({root.base.fingerprint}), not of {base.name}"
            f" ({base.fingerprint})",
            "choose another root; a root has one base model",
        )
    base = base if rename else replace(base, name=root.base.name)
    if base.name != root.base.name:
        _refuse_adapters_name(root, base.name)
    wanted = limits if limits != Limits() else root.limits
    if (base.name, base.path, wanted) != (root.base.name, root.base.path, root.limits):
        kept = replace(root, base=base, limits=wanted)
        files.replace(root.path / SETTINGS, _encode_settings(kept, root.required()))
    return _read_root(root.path)


def _encode_layout() -> bytes:
    return encode({"format": FORMAT, "major": MAJOR, "minor": MINOR, "id": secrets.token_hex(16)})


def _refuse_adapters_name(root: Root, name: str) -> None:
    for adapter in disk.names(root.adapters):
        if adapter.casefold() == name.casefold() and disk.names(root.adapters / adapter / "versions"):
            fact = f"an adapter of this root is called {adapter}, which would never answer by its name again"
            raise Conflict(repr(name), fact, "choose another --name", param="name")


def _encode_base(base: BaseModelInfo) -> bytes:
    return encode(
        {
            "fingerprint": base.fingerprint,
            "chat_template_sha256": base.chat_template_sha256,
            "chat_template": base.chat_template,
            "modules": {name: list(shape) for name, shape in base.modules.items()},
        }
    )


def _encode_settings(root: Root, required: tuple[Requirement, ...]) -> bytes:
    import tomli_w

    settings: dict[str, object] = {
        "base": {"name": root.base.name, "path": str(root.base.path)},
        "limits": asdict(root.limits),
    }
    if root.retention != Retention():
        settings["retention"] = asdict(root.retention)
    if required:
        settings["publishing"] = {"require": [one.value for one in required]}
    return tomli_w.dumps(settings).encode()
