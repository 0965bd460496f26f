"""Quiet libraries: transformers, PEFT and bitsandbytes say nothing on the terminal while we work."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from logging import ERROR, getLogger


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings and progress bars from the terminal."""
    from transformers.utils import logging

    # bitsandbytes reports a 4-bit kernel that it cannot fetch; its own CPU kernels serve as well.
    getLogger("bitsandbytes").setLevel(ERROR)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # NOTE: transformers, PEFT and torch warn about their own deprecations in nearly every call.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
