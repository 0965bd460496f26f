"""The one reader of files that people write: YAML, TOML or JSON in, checked values out, faults by line.

Owns how a file is read (a plain file, UTF-8, of a bounded size and depth), and which language it is in (by
its suffix). What the keys mean is the model's of who reads. Invariants: no key is given twice; of a file with
several faults all are told; whatever is in a file, the error is a `UsageError` with file and line:
`run.yaml:3: unknown setting lora.rnak; did you mean lora.rank?`
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from registry.errors import UsageError
from registry.settings.bounds import MOST_CHARACTERS, Place, RepeatedKey, measure
from registry.settings.faults import SettingFault, faults_of, refusal
from registry.validation.canonical import parse_json

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")
Language = Literal["YAML", "TOML", "JSON"]

_SUFFIXES: Mapping[str, Language] = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML", ".json": "JSON"}
_KINDS: Mapping[type, str] = {type(None): "it is empty", list: "it is a list, not keys and values"}
_CORRECT = "correct the file"
_NAME_ONE = "name a file that is there"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The content of one file: `subject` is what errors call it, `see` is where its keys are described.

    `changed` are the places whose values came from elsewhere, such as an option.
    """

    subject: str
    text: str
    language: Language
    value: dict[str, Any]
    see: str
    changed: frozenset[Place] = frozenset()

    def checked(self, model: type[Model], value: object = None) -> Model:
        """Return the content, or `value` that was made of it, as `model`.

        Raises: UsageError: naming file, line and key of every fault.
        """
        given = self.value if value is None else value
        return _checked(given, model, self.subject, self.see, self._finder)

    def refusal(self, faults: Sequence[SettingFault]) -> UsageError:
        """Return the error that tells these faults, of which there is at least one."""
        return refusal(faults, self._finder())

    def refuse(self, place: Place, fact: str, remedy: str) -> UsageError:
        """Return the error about one value."""
        return self.refusal([SettingFault.wrong(place, fact, remedy)])

    def _finder(self) -> Callable[[Place], str]:
        """Return what names the file and the line of a place."""
        if self.language == "TOML":
            from registry.settings.toml_lines import lines_in_toml as lines_in
        else:
            from registry.settings.yaml_text import lines_in_yaml as lines_in
        line_of = lines_in(self.text)

        def where(place: Place) -> str:
            # What is missing has no line of its own, but the block that misses it has.
            line = None if place in self.changed else line_of(place) or line_of(place[:-1])
            return self.subject if line is None else f"{self.subject}:{line}"

        return where


def read_settings(
    path: Path, *, see: str, language: Language = "YAML", absent: str = _NAME_ONE
) -> SettingsFile:
    """Read the file at `path`, in the language of its suffix, else in `language`.

    `absent` says what to do where it cannot be read.

    Raises: UsageError: it cannot be read or parsed, gives a key twice, or holds no keys and values.
    """
    language = _SUFFIXES.get(path.suffix.lower(), language)
    text = read_text(path, most=MOST_CHARACTERS, absent=absent)
    return parse_settings(text, str(path), see=see, language=language)


def parse_settings(text: str, subject: str, *, see: str, language: Language = "YAML") -> SettingsFile:
    """Parse the `text` of what errors call `subject`.

    Raises: UsageError: it is not valid, gives a key twice, or holds no keys and values.
    """
    value = parse_text(text, subject, language)
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "it is one value, not keys and values")
        raise UsageError(subject, f"holds no settings: {kind}", f"see {see}")
    return SettingsFile(subject, text, language, value, see)


def parse_text(text: str, subject: str, language: Language = "YAML", *, first_line: int = 1) -> object:
    """Return what `text` holds, which begins on line `first_line` of `subject`.

    Raises: UsageError: it is not valid, or gives a key twice.
    """
    try:
        return _PARSERS[language](text)
    except RepeatedKey as error:
        raise UsageError(
            f"{subject}:{error.line + first_line - 1}", error.fact, "keep one", param=error.key
        ) from error
    except RecursionError:  # of a parser, or of the search for a key that is given twice
        raise UsageError(subject, f"is not valid {language}: nested too deep", _CORRECT) from None
    except _NotValid as error:
        where = subject if error.line is None else f"{subject}:{error.line + first_line - 1}"
        raise UsageError(where, f"is not valid {language}: {error.fact}", _CORRECT) from error


def check(value: object, model: type[Model], subject: str, *, see: str, param: str | None = None) -> Model:
    """Return `value`, which stands in no file of settings, as `model`; `param` is what all of it is called.

    Raises: UsageError: naming `subject` and every key at fault.
    """
    try:
        return _checked(value, model, subject, see, lambda: lambda _: subject)
    except UsageError as error:
        error.param = error.param or param
        raise


def read_rows(path: Path, model: type[Model], *, see: str) -> Iterator[tuple[str, Model]]:
    """Yield `FILE:LINE` and the value of each line of a JSON Lines file; empty lines are passed over.

    Raises: UsageError: naming the line.
    """
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            subject = f"{path}:{number}"
            value = parse_text(line, str(path), "JSON", first_line=number)
            yield subject, check(value, model, subject, see=see)


def read_text(path: Path, *, most: int | None = None, absent: str = _NAME_ONE) -> str:
    """Return the text of a plain file in UTF-8 of at most `most` bytes; `absent` is the remedy without one.

    Raises: UsageError.
    """
    try:
        data = _read_plain(path, most)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(str(path), f"cannot be read ({reason})", absent) from error
    return decoded(data, str(path))


def decoded(data: bytes, subject: str) -> str:
    """Return the text of a file, lines ending as on Unix; a mark at its beginning is none of it.

    Raises: UsageError.
    """
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{subject}:{line}", "is not UTF-8 text", "save it as UTF-8") from error


def _read_plain(path: Path, most: int | None) -> bytes:
    # O_NONBLOCK: opening a pipe must not wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(str(path), "is not a plain file", "name a file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(-1 if most is None else most + 1)
    if most is not None and len(data) > most:
        raise UsageError(str(path), f"is larger than {most} bytes", "settings are small: name another file")
    return data


def _checked(
    value: object, model: type[Model], subject: str, see: str, finder: Callable[[], Callable[[Place], str]]
) -> Model:
    from pydantic import ValidationError

    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refusal(faults_of(error, value, model, see), finder()) from error
    except UsageError as error:  # a validator's own, such as InvalidName
        fact = f"{error.subject}: {error.fact}"
        raise type(error)(subject, fact, error.remedy, param=error.param) from error


class _NotValid(Exception):
    def __init__(self, fact: str, line: int | None = None) -> None:
        self.fact, self.line = fact, line
        super().__init__(fact)


def _parse_yaml(text: str) -> object:
    import yaml

    from registry.settings.yaml_text import RepeatedYamlKey, parse_yaml

    try:
        return parse_yaml(text)
    except RepeatedYamlKey:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _NotValid(error.problem or str(error), line) from error
    except yaml.YAMLError as error:
        raise _NotValid(" ".join(str(error).split())) from error


def _parse_toml(text: str) -> object:
    from tomllib import TOMLDecodeError

    from registry.settings.toml_lines import parse_toml, split_place

    try:
        return _measured(parse_toml(text))
    except TOMLDecodeError as error:
        raise _NotValid(*split_place(error, text)) from error


def _parse_json(text: str) -> object:
    from json import JSONDecodeError

    try:
        return _measured(parse_json(text.encode()))
    except JSONDecodeError as error:
        raise _NotValid(error.msg, error.lineno) from error
    except ValueError as error:
        _parse_yaml(text.replace("\t", " "))  # it knows the lines of a key that is given twice
        raise _NotValid(str(error)) from error


def _measured(value: object) -> object:
    try:
        measure(value)
    except ValueError as error:
        raise _NotValid(str(error)) from error
    return value


_PARSERS: Mapping[Language, Callable[[str], object]] = {
    "YAML": _parse_yaml,
    "TOML": _parse_toml,
    "JSON": _parse_json,
}
