"""The command line called in this process, as a shell would call it through a pipe."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.cli.main import run


@dataclass(frozen=True, slots=True)
class Done:
    """What one call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return stdout as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Calls `wardrobe` with some options given every time (`--root R` or `--url U`)."""

    options: tuple[str, ...] = ()

    def __call__(self, *arguments: str | Path) -> Done:
        """Run one command line."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run([*self.options, *map(str, arguments)])
        return Done(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str | Path) -> Done:
        """Run one command line that must succeed."""
        done = self(*arguments)
        assert done.code == 0, done
        return done
