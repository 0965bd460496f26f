"""Where Wardrobe's own log lines go, and how they look: text for people, JSON for machines.

Owns the loggers `wardrobe` and `registry`; vLLM's are its own. The engine's process writes them to the
launcher's standard output, whose descriptor it inherits, or to `log_file`; warnings also stay in the engine's
log, where the launcher looks for reasons. Invariant: writing never blocks who logs. Lines wait in a queue for
a thread of its own, and are dropped and counted where that does not keep up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import queue
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from serve.settings import OUTPUT_VARIABLE, ServeSettings

if TYPE_CHECKING:
    from pydantic import JsonValue

OURS = ("wardrobe", "registry")
FIELDS = "wardrobe_fields"
"""The attribute of a log record that holds fields of a JSON line: `extra={FIELDS: {...}}`."""

QUEUE_SIZE = 10_000


class JsonLines(logging.Formatter):
    """One JSON object per line: `at` (UNIX seconds), `level`, `logger`, `message`, the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: Mapping[str, JsonValue] = getattr(record, FIELDS, {})
        line: dict[str, JsonValue] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


class TextLines(logging.Formatter):
    """What the launcher's own lines look like: the time, the level where it is not `info`, the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the exception's below it."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        message = record.getMessage().replace("\n", "\\n")
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}  {level}{message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Queued(logging.handlers.QueueHandler):
    """Puts records into a bounded queue and never waits; `dropped` counts those for which it had no room."""

    def __init__(self, size: int = QUEUE_SIZE) -> None:
        self.waiting: queue.Queue[logging.LogRecord] = queue.Queue(size)
        self.dropped = 0
        super().__init__(self.waiting)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the record as it is: it never leaves the process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put it in, or count that it was dropped."""
        try:
            self.waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class LogWriter(logging.handlers.QueueListener):
    """Writes what waits; a line that cannot be written is dropped, and the next one is tried."""

    def handle(self, record: logging.LogRecord) -> None:
        """Write one record."""
        # NOTE: WatchedFileHandler opens a file that was moved away outside of its own handling of errors.
        with contextlib.suppress(Exception):
            super().handle(record)


def begin(settings: ServeSettings) -> Callable[[], None]:
    """Send this process's log lines where `settings` say; return what ends that and writes the rest.

    A process that the launcher did not start, and that is told nothing of logs, is left as it is.
    """
    output = _output(settings)
    if output is None:
        return lambda: None
    output.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    queued = Queued()
    listener = LogWriter(queued.waiting, output)
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)
    before = {name: logging.getLogger(name).level for name in OURS}
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level.upper())
        logging.getLogger(name).addHandler(queued)
        logging.getLogger(name).addHandler(errors)
    listener.start()

    def end() -> None:
        for name, level in before.items():
            logging.getLogger(name).removeHandler(queued)
            logging.getLogger(name).removeHandler(errors)
            logging.getLogger(name).setLevel(level)
        listener.stop()
        with contextlib.suppress(OSError):  # what it could not write it could not write
            output.close()
        if queued.dropped:
            sys.stderr.write(f"{queued.dropped} log lines were dropped: their reader did not keep up\n")

    return end


class _Pipe(logging.StreamHandler[TextIO]):
    """Writes to an inherited descriptor; a reader that has gone is not an error of ours."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            self.stream.close()


class _File(logging.handlers.WatchedFileHandler):
    """Writes to `log_file`, made anew where log rotation moved it away; a disk that refuses costs its lines.

    NOTE: the standard handler raises where it cannot open the file again, which ends the thread that writes.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # it may be there, or come to be
            path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", delay=True)
        self._refused = False
        try:
            self.stream = self._open()
            self._statstream()
        except OSError as error:
            self._lose(error)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError as error:
            self._lose(error)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._lose(error)
        else:
            super().handleError(record)

    def _lose(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            sys.stderr.write(
                f"log_file {self.baseFilename} cannot be written ({error.strerror}): lines are lost\n"
            )


def _output(settings: ServeSettings) -> logging.Handler | None:
    if settings.log_file is not None:
        return _File(Path(settings.log_file))
    descriptor = os.environ.get(OUTPUT_VARIABLE, "")
    if descriptor.isascii() and descriptor.isdigit():
        # The engine's own processes have no use for it.
        os.set_inheritable(int(descriptor), False)  # noqa: FBT003 - os' signature
        return _Pipe(os.fdopen(os.dup(int(descriptor)), "w", encoding="utf-8"))
    return logging.StreamHandler(sys.stderr) if settings.access_log else None
