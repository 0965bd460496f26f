"""Quiet libraries: what transformers, PEFT, TRL and the like say of themselves stays off the terminal.

Owns the kinds of noise: progress bars, remarks of their loggers below an error, warnings. What we ourselves
tell a person is printed and passes through.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from logging import ERROR, getLogger

_LOGGERS = (
    "accelerate",
    # It reports a 4-bit kernel that it cannot fetch; its own CPU kernels serve as well.
    "bitsandbytes",
    "datasets",
    "huggingface_hub",
    "peft",
    "torch",
    "trl",
)


def hush() -> None:
    """Keep from the terminal what libraries say while they are imported, of kernels that are not there."""
    getLogger("bitsandbytes").setLevel(ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings, remarks and progress bars from the terminal within the block.

    Where transformers is not installed there is nothing to keep quiet.
    """
    try:
        from transformers.utils import logging
    except ImportError:
        yield
        return
    verbosity = logging.get_verbosity()
    levels = {name: getLogger(name).level for name in _LOGGERS}
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _hide_bars_of_data_sets()
    for name in _LOGGERS:
        getLogger(name).setLevel(max(ERROR, levels[name]))
    try:
        with warnings.catch_warnings():
            # NOTE: transformers, PEFT and torch warn about their own deprecations in nearly every call.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        for name, level in levels.items():
            getLogger(name).setLevel(level)


def _hide_bars_of_data_sets() -> None:
    # Only where it is loaded already: it costs a second, and an evaluation does without.
    found = sys.modules.get("datasets")
    if found is not None:
        found.disable_progress_bars()
