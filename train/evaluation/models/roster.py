"""Who is evaluated: from `base` and `NAME@N` to models that answer, and back to the version's attestation.

Owns how the server and the root are found: `--url`, else a live replica of the root. Invariant: with a
root, a version's answers are tied to the digest that the registry knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import NotFound, UsageError
from registry.names import BASE, parse_version
from registry.records import Version
from registry.store import Registry
from registry.validation.architectures import OUTPUT_EMBEDDING
from train.evaluation.grading.grades import Model
from train.evaluation.models.offline import OfflineModel
from train.evaluation.models.served import ServedModel
from train.evaluation.runner import EvaluatedArm


@dataclass(slots=True)
class Roster:
    """The models of one evaluation; `close` ends their connections.

    `registry` is None where only a URL is known: then versions have no digest and nothing is attested.
    """

    registry: Registry | None
    url: str | None
    key: str | None = None
    offline: bool = False
    _models: dict[str, Model] = field(default_factory=dict)

    @classmethod
    def find(
        cls, root: Path, url: str | None, key: str | None, *, offline: bool | None, need_root: bool
    ) -> Roster:
        """Open the root if there is one, and find the server; `offline` is None where no option says so.

        Raises: NotFound: there is no root where one is needed; UsageError: no server is known.
        """
        try:
            registry: Registry | None = Registry.open(root)
        except NotFound:
            if need_root or url is None:
                raise
            registry = None
        if offline:
            return cls(registry, None, key, offline=True)
        return cls(registry, url or _live_url(registry, may_be_offline=offline is not None), key)

    @property
    def via(self) -> str:
        """Return how the answers come: `server` or `offline`."""
        return "offline" if self.offline else "server"

    def arm(self, reference: str, *, shots: int = 0, label: str | None = None) -> EvaluatedArm:
        """Return the arm of `base` or `NAME@N`.

        Raises: InvalidName: a name without a version's number; NotFound: no such version.
        """
        if reference != BASE:
            parse_version(reference)
        digest = self._digest(reference)
        shown = label or (f"{reference} +{shots} shots" if shots else reference)
        return EvaluatedArm(shown, self.model(reference), shots, digest)

    def model(self, reference: str) -> Model:
        """Return the model of `base`, `NAME@N` or, for a judge, any served name; made once.

        Raises: NotFound; UsageError.
        """
        if reference not in self._models:
            self._models[reference] = self._make(reference)
        return self._models[reference]

    def served(self, reference: str, *, strict: bool = False, by_answers: bool = False) -> ServedModel:
        """Return the served model of `base` or `NAME@N`, apart from those that `model` gives.

        With `strict`, an answer that does not say which content gave it is an error; `by_answers` is
        ServedModel's.

        Raises: NotFound; UsageError.
        """
        assert self.url is not None, "offline there is no server"
        name = self._base_name() if reference == BASE else reference
        digest = self._digest(reference)
        found = ServedModel(self.url, name, key=self.key, digest=digest, strict=strict, by_answers=by_answers)
        self._models[f"{reference} served"] = found
        return found

    def adapts_head(self, reference: str) -> bool:
        """Whether `reference` is a version that adapts `lm_head`, as far as the root tells."""
        version = self._version(reference)
        return version is not None and adapts_head(version)

    def close(self) -> None:
        """Close every connection."""
        for model in self._models.values():
            if isinstance(model, ServedModel | OfflineModel):
                model.close()

    def _make(self, reference: str) -> Model:
        if self.offline:
            return self._offline(reference)
        assert self.url is not None
        name = self._base_name() if reference == BASE else reference
        by_answers = self.adapts_head(reference)
        return ServedModel(
            self.url, name, key=self.key, digest=self._digest(reference), by_answers=by_answers
        )

    def _offline(self, reference: str) -> Model:
        if self.registry is None:
            raise UsageError("--offline", "needs the root of the base and its versions", "give --root")
        base = Path(self.registry.base.path)
        if reference == BASE:
            return OfflineModel(base, None, self.registry.base.name, self.registry.root)
        version = self.registry.version(*parse_version(reference))
        self.registry.verify_version(version)
        return OfflineModel(base, version.path, version.name, self.registry.root)

    def _digest(self, reference: str) -> str | None:
        version = self._version(reference)
        return None if version is None else version.digest

    def _version(self, reference: str) -> Version | None:
        if reference == BASE or "@" not in reference or self.registry is None:
            return None
        return self.registry.version(*parse_version(reference))

    def _base_name(self) -> str:
        if self.registry is not None:
            return self.registry.base.name
        assert self.url is not None
        return _served_base(self.url, self.key)


def adapts_head(version: Version) -> bool:
    """Whether a version's prompt log-probabilities cannot be trusted to be those of its answers.

    vLLM's kernels leave an adapted `lm_head` out of them, or take it from another request (vllm#51594).
    """
    return OUTPUT_EMBEDDING in version.target_modules


def _live_url(registry: Registry | None, *, may_be_offline: bool) -> str:
    for beat, live in registry.replicas() if registry is not None else ():
        if live and beat.state == "ready":
            # A server that listens on every address says so; from here it is this machine.
            return beat.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//:::", "//127.0.0.1:")
    otherwise = "give --url, or evaluate with --offline" if may_be_offline else "or give --url"
    remedy = f"start `wardrobe serve`, {otherwise}"
    raise UsageError("server", "none of this root is live", remedy)


def _served_base(url: str, key: str | None) -> str:
    import httpx

    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        found = httpx.get(
            f"{url.rstrip('/').removesuffix('/v1')}/v1/models", headers=headers, timeout=10
        ).json()
        return str(next(one["id"] for one in found["data"] if not one.get("parent")))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UsageError(url, f"does not list its base model ({error!r})", "check --url and --key") from error
