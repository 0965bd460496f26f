"""Making a fine-tuning job: what was asked, checked as far as the server can, and written down once.

Owns the order of the checks and which of two equal creates is a repetition. Invariant: a request that a
client sends again because it heard no answer makes no second job: the id holds a hash of who asked for what,
so a repetition finds the first job by its id alone. A first attempt always makes a job.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.entries.openai.files import FilePurpose, FileStore
from registry.entries.openai.ids import derived_id, made_at
from registry.errors import InvalidName, NotFound, Occupied
from registry.names import check_adapter_name, means_base
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.records import PREFIX, TuningRequest
from registry.validation.canonical import canonical_json, sha256_hex
from registry.views.view import View
from serve.groups.sight import Sight
from serve.openai.asker import Asker
from serve.openai.errors import RequestRefused
from serve.tuning.naming import adapter_name, tuned_name
from serve.tuning.origin import find_start
from serve.tuning.parameters import EXTRAS, MAX_SEED, CreateJob, whole_method

if TYPE_CHECKING:
    from pydantic import JsonValue

REPETITION_SECONDS = 900.0
"""How old the job may be that a repetition finds: OpenAI's clients wait ten minutes for an answer."""
_SHOWN = 20
"""Patterns that an error names."""
KEYED_SECONDS = 86_400.0
"""The same for an `Idempotency-Key`, which says by itself that the request is the same."""


@dataclass(frozen=True, slots=True)
class CreateAttempt:
    """How a create was sent: whether it is sent again, and under which key of idempotency, if any."""

    repeated: bool = False
    key: str = ""


class JobMaker:
    """Makes jobs in one root."""

    def __init__(
        self,
        jobs: TuningJobs,
        files: FileStore,
        view: Callable[[], View],
        *,
        base: str,
        organization: str,
        stand_ins: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._view = view
        self._base = base
        self._organization = organization
        self._stand_ins = stand_ins
        self._clock = clock
        self._lock = threading.Lock()

    def make(self, asked: CreateJob, asker: Asker, attempt: CreateAttempt) -> TuningJob:
        """Make the job, or return the one that an earlier attempt made.

        Its files are the asker's own, and its model and adapter exist for the asker. Raises: RequestRefused;
        StorageFailed.
        """
        who = asker.who
        method = whole_method(asked)
        identity = self._identity(asked, who, attempt)
        with self._lock:
            if attempt.repeated or attempt.key:
                found = self._earlier(identity, who, attempt)
                if found is not None:
                    return _same(found, asked, method)
            self._check_file("training_file", asked.training_file, asker)
            if asked.validation_file is not None:
                self._check_file("validation_file", asked.validation_file, asker)
            return self._write(asked, method, asker, identity)

    def _write(
        self, asked: CreateJob, method: Mapping[str, JsonValue], asker: Asker, identity: str
    ) -> TuningJob:
        extras = dict(asked.x_wardrobe or {})
        start = self._start(asked, extras, asker.sight)
        now = self._clock()
        while True:
            job = derived_id(PREFIX, now, identity)
            request = TuningRequest(
                id=job,
                created=int(now),
                who=asker.who,
                adapter=self._adapter(extras.get("name"), asked.suffix, job, asker.sight),
                model=asked.model,
                base_model=self._base,
                start=start,
                training_file=asked.training_file,
                validation_file=asked.validation_file,
                method=method,
                seed=secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed,
                tuned_name=tuned_name(self._base, self._organization, asked.suffix, job),
                suffix=asked.suffix,
                metadata=asked.metadata,
                integrations=tuple(one.model_dump() for one in asked.integrations or ()),
                extras=extras,
            )
            try:
                return self._jobs.create(request)
            except Occupied:
                now += 0.001  # the same was asked in the same millisecond, on purpose

    def _start(self, asked: CreateJob, extras: Mapping[str, JsonValue], sight: Sight) -> str | None:
        view, base = sight.view(self._view()), self._base if sight.base else ""
        start = find_start(asked.model, view, base, self._stand_ins)
        if "start" in extras:  # the config's own word for it, which nobody would have looked up
            raise RequestRefused(
                f"Unknown parameter: '{EXTRAS}.start'; write '{EXTRAS}.from'.",
                param=f"{EXTRAS}.start",
                reason="unknown_parameter",
            )
        named = extras.get("from")
        if named is None:
            return start
        if not isinstance(named, str):
            raise _no_text(f"{EXTRAS}.from")
        own = find_start(named, view, base, self._stand_ins, f"{EXTRAS}.from")
        if start not in {None, own}:
            message = (
                f"Invalid '{EXTRAS}.from': 'model' names {start} and this {own or self._base}; name one."
            )
            raise RequestRefused(message, param=f"{EXTRAS}.from", reason="invalid_value")
        return own

    def _adapter(self, named: JsonValue, suffix: str | None, job: str, sight: Sight) -> str:
        if named is None:
            found = adapter_name(suffix, job)
            found = adapter_name(None, job) if means_base(found, self._base) else found
            return _seen(found, sight, "suffix")
        if not isinstance(named, str):
            raise _no_text(f"{EXTRAS}.name")
        try:
            check_adapter_name(named)
        except InvalidName as error:
            raise RequestRefused(
                f"Invalid '{EXTRAS}.name': {error.subject} {error.fact}.",
                param=f"{EXTRAS}.name",
                reason="invalid_value",
            ) from error
        if means_base(named, self._base):
            message = f"Invalid '{EXTRAS}.name': the base is called {self._base}."
            raise RequestRefused(message, param=f"{EXTRAS}.name", reason="invalid_value")
        return _seen(named, sight, f"{EXTRAS}.name")

    def _check_file(self, param: str, file: str, asker: Asker) -> None:
        try:
            info = self._files.info(file)
        except NotFound:
            info = None
        if info is None or not asker.sees(info.who):
            raise RequestRefused(
                f"Invalid file: {file[:100]} does not exist.", param=param, reason="invalid_file"
            )
        if info.purpose != FilePurpose.FINE_TUNE:
            message = f"Invalid file: {file} has the purpose '{info.purpose}', not '{FilePurpose.FINE_TUNE}'."
            raise RequestRefused(message, param=param, reason="invalid_file_purpose")

    def _identity(self, asked: CreateJob, who: str, attempt: CreateAttempt) -> str:
        told: dict[str, JsonValue] = {"who": who, "key": attempt.key}
        if not attempt.key:
            told["asked"] = asked.model_dump(mode="json")
        return sha256_hex(canonical_json(told))

    def _earlier(self, identity: str, who: str, attempt: CreateAttempt) -> TuningJob | None:
        since = self._clock() - (KEYED_SECONDS if attempt.key else REPETITION_SECONDS)
        for job in self._jobs.all():
            if job.request.created < int(since):
                return None
            if job.request.who == who and _is_of(job.id, identity):
                return job
        return None


def _is_of(job: str, identity: str) -> bool:
    return derived_id(PREFIX, made_at(job), identity) == job


def _same(job: TuningJob, asked: CreateJob, method: Mapping[str, JsonValue]) -> TuningJob:
    """Return the job where the same is asked.

    Raises: RequestRefused: a key of idempotency that was used for something else.
    """
    request = job.request
    before = (
        request.model,
        request.training_file,
        request.validation_file,
        request.suffix,
        dict(request.method),
    )
    now = (asked.model, asked.training_file, asked.validation_file, asked.suffix, dict(method))
    if before != now:
        message = f"The Idempotency-Key was used for another request, which made {job.id}; send another key."
        raise RequestRefused(message, param=None, reason="idempotency_key_reused")
    return job


def _seen(adapter: str, sight: Sight, param: str) -> str:
    """Return the adapter that gets the version, which whoever made the job must be able to ask.

    Raises: RequestRefused: whether or not there is such an adapter.
    """
    if not sight.sees(adapter):
        allowed = ", ".join(sight.patterns[:_SHOWN]) or "none"
        message = f"Invalid '{param}': this key's group has the adapters {allowed}, and {adapter} is none."
        raise RequestRefused(message, param=param, reason="invalid_value")
    return adapter


def _no_text(param: str) -> RequestRefused:
    return RequestRefused(
        f"Invalid type for '{param}': expected a string.", param=param, reason="invalid_type"
    )
