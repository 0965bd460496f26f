"""Where suites come from: a path, our own suites by name, or a guard suite of an installed package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from registry.errors import UsageError
from registry.home import at_home
from train.evaluation.formats.guards import GUARDS, is_installed
from train.evaluation.formats.suites import OWN, Suite, load_suite


@dataclass(frozen=True, slots=True)
class NamedSuite:
    """A suite that has a name; `missing` names the package that it needs and is not installed."""

    name: str
    source: str
    description: str
    missing: str | None


def find_suite(reference: str, folder: Path | None = None) -> Suite:
    """Return the suite that a path (from `folder`, default here) or a name means.

    Raises: UsageError: there is none, with the names that are near; a guard's package is missing.
    """
    path = (folder or Path()) / at_home(reference)
    if path.is_file():
        return load_suite(path)
    makers: Mapping[str, Callable[[], Suite]] = {
        **{one.stem: _loader(one) for one in _own()},
        **{guard.name: guard.load for guard in GUARDS},
    }
    if reference in makers:
        return makers[reference]()
    near = get_close_matches(reference, makers, n=1)
    hint = f"did you mean {near[0]}?" if near else f"name a file, or one of {', '.join(sorted(makers))}"
    raise UsageError(f"suite {reference}", "is neither a file nor a known suite", hint)


def known_suites() -> list[NamedSuite]:
    """Return every suite that has a name, our own first."""
    own = [NamedSuite(one.stem, "wardrobe", load_suite(one).description, None) for one in _own()]
    guards = [
        NamedSuite(
            guard.name, guard.package, guard.description, None if is_installed(guard) else guard.package
        )
        for guard in GUARDS
    ]
    return [*own, *guards]


def _own() -> list[Path]:
    return sorted(OWN.glob("*.yaml"))


def _loader(path: Path) -> Callable[[], Suite]:
    return lambda: load_suite(path)
