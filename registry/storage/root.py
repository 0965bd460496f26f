"""The root: where everything lies, which base model it is for, and what registry and server share.

Owns `layout.json` (the format, and the root's identity), `base.json` (the base's fingerprint and shapes) and
`wardrobe.toml` (the part that people edit: the base's served name and path, the limits, what is required of a
version, how long what is kept). Invariants: `layout.json` is written last, so a folder with it is a whole
root; every path handed out lies inside the root; opening one writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from registry.errors import Conflict, CorruptStore, Missing, NotFound
from registry.home import at_home
from registry.names import check_adapter_name, check_alias_name
from registry.records import BaseModelInfo, Limits, Retention
from registry.settings.faults import SettingFault
from registry.settings.file import decoded, parse_settings
from registry.settings.prices import PriceTable, price_faults, read_prices
from registry.storage import anchor, disk, files, reserve
from registry.storage.anchor import BASE, LAYOUT
from registry.storage.entry import Entry, encode
from registry.storage.mount import self_test
from registry.validation.requirements import Requirement, parse_requirements
from registry.wording import fact_of

FORMAT = "wardrobe"
MAJOR, MINOR = 1, 1
SETTINGS = "wardrobe.toml"
_SETTINGS_BYTES = 1024**2
_SEE = "docs/how-to/operate.md"
_FROM_BACKUP = "restore that file from a backup"
_KINDS: Mapping[str, Mapping[str, type]] = {
    "base": {"name": str, "path": str},
    "limits": {field.name: int for field in fields(Limits)},
    "publishing": {"require": list},
    "retention": {field.name: int for field in fields(Retention)},
    "prices": {"currency": str, "per_million": dict},
}
"""What wardrobe.toml may hold. No pydantic: whoever lists adapters need not wait for its import."""
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
            fact, remedy = (
                "is not a Wardrobe root",
                "mount it if it is away, or run `wardrobe init --base PATH`",
            )
            if _has_adapters(path):
                fact, remedy = f"has adapters, but no {LAYOUT}", _FROM_BACKUP
            elif all(disk.exists(path / name) for name in FOLDERS[:2]):
                fact = f"has no {LAYOUT}, which `wardrobe init` writes last: it was killed"
                remedy = "run `wardrobe init --base PATH` again, it goes on"
            raise NotFound(str(path), fact, remedy, param="root")
        _check_layout(path / LAYOUT)
        root = _read_root(path)
        anchor.hold(path, lambda: _try(path))
        return root

    @classmethod
    def init(cls, path: Path, base: BaseModelInfo, limits: Limits, *, rename: bool = True) -> Root:
        """Make the root for `base`, or open the one that is there for the same base.

        On a root that exists, a new path of the base and changed limits are recorded, and with `rename` its
        name; `limits` equal to the defaults count as not given.

        Raises: Conflict: when the root is another base's, an adapter has the base's new name, or there are
        adapters in what is no root any more; StorageFailed; UnsafeRoot.
        """
        path = disk.resolved(path)
        if disk.exists(path / LAYOUT):
            return _reopen(cls.open(path), base, limits, rename=rename)
        if _has_adapters(path):
            raise Conflict(str(path), f"has adapters, but no {LAYOUT}", _FROM_BACKUP, param="root")
        anchor.drop(path)
        _make_folders(path)
        self_test(path / "staging")
        files.replace(path / BASE, _encode_base(base))
        files.replace(path / SETTINGS, _encode_settings(cls(path, base, limits, Retention()), {}))
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
        wanted = _read_settings(path).get("publishing", {}).get("require", [])
        return parse_requirements(wanted, f"{path} publishing.require")

    def prices(self) -> PriceTable:
        """Return what tokens cost now, by `[prices]`; read at each call.

        Raises: UsageError: a key that does not exist, a price that is none; CorruptStore.
        """
        return read_prices(_read_settings(self.path / SETTINGS).get("prices", {}))

    def contain(self, path: Path) -> Path:
        """Return `path` if no symlink leads it out of the root.

        Raises: CorruptStore.
        """
        if disk.resolved(path) != path:
            raise CorruptStore(str(path), "leads through a symbolic link", "replace the link by the files")
        return path


def _has_adapters(path: Path) -> bool:
    return disk.exists(path / "adapters") and bool(disk.names(path / "adapters"))


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
    base = settings["base"]
    return Root(
        path,
        _read_base(path / BASE, base["name"], at_home(base["path"])),
        Limits(**settings.get("limits", {})),
        Retention(**settings.get("retention", {})),
    )


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        text = decoded(disk.read(path, limit=_SETTINGS_BYTES), str(path))
    except Missing as error:
        raise CorruptStore(str(path), "is missing", "restore it from a backup") from error
    found = parse_settings(text, str(path), see=_SEE, language="TOML")
    if faults := list(_faults(found.value)):
        raise found.refusal(faults)
    return found.value


def _faults(settings: dict[str, Any]) -> Iterator[SettingFault]:
    every = [*_KINDS, *(f"{table}.{key}" for table, keys in _KINDS.items() for key in keys)]
    for table, values in settings.items():
        if table not in _KINDS:
            yield SettingFault.unknown((table,), _KINDS, every)
        elif not isinstance(values, dict):
            yield SettingFault.wrong((table,), fact_of({"type": "dict_type", "input": values}), f"see {_SEE}")
        else:
            for key, value in values.items():
                if key not in _KINDS[table]:
                    yield SettingFault.unknown((table, key), _KINDS[table], every)
                elif (fact := _fact(_KINDS[table][key], value)) is not None:
                    yield SettingFault.wrong((table, key), fact, f"see {_SEE}")
    if isinstance(prices := settings.get("prices"), dict):
        yield from price_faults(prices)
    base = settings.get("base", {})
    for key in ("name", "path") if isinstance(base, dict) else ():
        if key not in base:
            yield SettingFault.wrong(("base", key), "is missing", f"see {_SEE}")


def _fact(kind: type, value: object) -> str | None:
    """Return what is wrong with a value, None where nothing is."""
    if type(value) is not kind:
        return fact_of({"type": f"{kind.__name__}_type".replace("str", "string"), "input": value})
    if isinstance(value, int) and not 0 < value < 2**63:
        return f"must be at least 1 and below 2**63, not {value}"
    return None


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
        files.replace(root.path / SETTINGS, _encode_settings(kept, _read_settings(root.path / SETTINGS)))
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


def _encode_settings(root: Root, before: Mapping[str, Any]) -> bytes:
    """Return the file of `root`, with the tables of the one `before` that are none of its fields."""
    import tomli_w

    settings: dict[str, object] = {
        "base": {"name": root.base.name, "path": str(root.base.path)},
        "limits": asdict(root.limits),
    }
    if root.retention != Retention():
        settings["retention"] = asdict(root.retention)
    settings |= {name: before[name] for name in ("publishing", "prices") if name in before}
    return tomli_w.dumps(settings).encode()
