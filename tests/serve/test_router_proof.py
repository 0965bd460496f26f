"""The proof that a loaded version does something."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from registry.errors import NotServable
from registry.records import Version
from serve.engine.interface import TOP_TOKENS
from serve.errors import LoadFailed
from serve.router.residents.probing import (
    CONSISTENT,
    NOISE_FACTOR,
    PROBES,
    ROUNDS,
    consistency,
    difference,
)
from serve.router.residents.proof import MOST_TOGETHER, Prover
from tests.fakes.adapters import make_adapter
from tests.fakes.engine import FakeEngine


class NoisyEngine(FakeEngine):
    """An engine whose scores tremble by `noise` and move by `effect` where an adapter is asked."""

    def __init__(self, *, noise: float, effect: float) -> None:
        super().__init__()
        self.noise, self.effect = noise, effect
        self.asked: list[str | None] = []
        self._random = random.Random(7)

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        self.asked.append(name)
        shift = self.effect if name else 0.0
        return [
            {
                token: -1 + shift * (-1) ** token + self._random.gauss(0, self.noise)
                for token in range(TOP_TOKENS)
            }
            for _ in prompts
        ]


def version(path: Path, number: int = 1) -> Version:
    return Version("a", number, "sha256:0", 0.0, "", "me", 8, ("q_proj",), 1, (), path)


def prove(
    engine: FakeEngine, folder: Path, *, proved: bool = False, required: bool = True
) -> list[Mapping[str, JsonValue]]:
    """Load and prove a@1; return what was attested."""
    attested: list[Mapping[str, JsonValue]] = []
    prover = Prover(engine, lambda _: proved, lambda _, body: attested.append(body), required)
    one = version(make_adapter(folder / "1", seed=1))

    async def run() -> None:
        await engine.load(one.name, one.path)
        await prover.prove(one)

    try:
        asyncio.run(run())
    except LoadFailed:
        assert attested[0]["passed"] is False
        raise
    return attested


def test_a_version_that_changes_the_answers_is_proved_and_attested(tmp_path: Path) -> None:
    (body,) = prove(FakeEngine(), tmp_path)
    assert body["passed"] is True
    assert body["noise_factor"] == NOISE_FACTOR


def test_a_version_without_effect_is_refused_with_both_figures(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.without_effect.add("a@1")
    with pytest.raises(LoadFailed, match=r"differ from the base's by 0 nats .* 3 times the base's own noise"):
        prove(engine, tmp_path)


def test_a_version_that_answers_with_nan_is_refused(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.infinite.add("a@1")
    with pytest.raises(LoadFailed, match="not all finite"):
        prove(engine, tmp_path)


def test_noise_alone_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="not more than 3 times"):
        prove(NoisyEngine(noise=0.05, effect=0.0), tmp_path)


def test_an_effect_within_the_noise_is_proved_by_being_the_same_each_time(tmp_path: Path) -> None:
    engine = NoisyEngine(noise=0.05, effect=0.06)
    (body,) = prove(engine, tmp_path)
    assert body["passed"] is True
    assert isinstance(body["difference"], float)
    assert isinstance(body["noise"], float)
    assert body["difference"] < 3 * body["noise"]
    assert isinstance(body["consistency"], float)
    assert body["consistency"] >= CONSISTENT
    assert engine.asked.count("a@1") == 1 + ROUNDS, "once among others, and then in turn"


@pytest.mark.parametrize("seed", range(50))
def test_noise_is_not_the_same_each_time(seed: int) -> None:
    source = random.Random(seed)

    def scores() -> list[dict[int, float]]:
        return [{token: -1 + source.gauss(0, 0.05) for token in range(TOP_TOKENS)} for _ in PROBES]

    assert consistency([(scores(), scores()) for _ in range(ROUNDS)]) < CONSISTENT


def test_what_a_few_tokens_say_is_no_proof() -> None:
    rounds = [([{1: 0.5, 2: 0.1}], [{1: 0.0, 2: 0.3}])] * ROUNDS
    assert consistency(rounds) == 0.0


def test_an_effect_beyond_the_noise_is_proved(tmp_path: Path) -> None:
    (body,) = prove(NoisyEngine(noise=0.05, effect=0.5), tmp_path)
    assert body["passed"] is True


def test_what_another_replica_proved_is_not_measured_again(tmp_path: Path) -> None:
    engine = NoisyEngine(noise=0.0, effect=0.0)
    assert prove(engine, tmp_path, proved=True) == []
    assert prove(engine, tmp_path / "again", required=False) == []
    assert engine.asked == []


def prove_all(engine: FakeEngine, folder: Path, count: int, *, at_once: bool) -> list[str]:
    """Load and prove a@1 … a@count; return the names of those that were refused."""
    prover = Prover(engine, lambda _: False, lambda _, __: None)
    versions = [version(make_adapter(folder / str(one), seed=one), one) for one in range(1, count + 1)]
    refused = []

    async def one_of(each: Version) -> None:
        try:
            await prover.prove(each)
        except LoadFailed:
            refused.append(each.name)

    async def run() -> None:
        for each in versions:
            await engine.load(each.name, each.path)
        await prover.get_ready()
        if at_once:
            await asyncio.gather(*map(one_of, versions))
        else:
            for each in versions:
                await one_of(each)

    asyncio.run(run())
    return sorted(refused)


class CountingEngine(FakeEngine):
    """An engine that keeps whom it was asked to score, and how many were asked at once."""

    def __init__(self) -> None:
        super().__init__(capacity=16)
        self.asked: list[str | None] = []
        self.most = 0

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        self.asked.append(name)
        self.unfinished += 1
        self.most = max(self.most, self.unfinished)
        try:
            return await super().score(name, prompts)
        finally:
            self.unfinished -= 1


def test_on_an_idle_engine_a_version_is_asked_once_and_the_base_not_again(tmp_path: Path) -> None:
    engine = CountingEngine()
    assert prove_all(engine, tmp_path, 3, at_once=False) == []
    assert engine.asked == [None, None, "a@1", "a@2", "a@3"]


def test_versions_that_wait_at_once_are_measured_together_with_the_base(tmp_path: Path) -> None:
    engine = CountingEngine()
    engine.without_effect.add("a@3")
    engine.infinite.add("a@4")
    assert prove_all(engine, tmp_path, 12, at_once=True) == ["a@3", "a@4"]
    assert engine.most > MOST_TOGETHER, "eight of them, and the base three times"
    assert engine.asked.count("a@1") == 1
    assert engine.asked.count("a@3") > 1, "nobody is refused by one short prompt"


def test_an_engine_that_computes_something_else_proves_in_company(tmp_path: Path) -> None:
    engine = CountingEngine()
    engine.unfinished = 1
    assert prove_all(engine, tmp_path, 2, at_once=False) == []
    assert engine.asked == [None, None, "a@1", None, None, None, "a@2", None]


def test_a_version_that_is_gone_meanwhile_fails_alone(tmp_path: Path) -> None:
    engine = CountingEngine()
    prover = Prover(engine, lambda _: False, lambda _, __: None)
    one, two = (version(make_adapter(tmp_path / str(each), seed=each), each) for each in (1, 2))

    async def run() -> tuple[BaseException | None, BaseException | None]:
        await engine.load(one.name, one.path)
        return await asyncio.gather(prover.prove(one), prover.prove(two), return_exceptions=True)

    proved, failed = asyncio.run(run())
    assert proved is None
    assert isinstance(failed, NotServable)


def test_the_difference_is_the_mean_over_all_tokens() -> None:
    assert difference([{7: 1.0, 8: 2.0}, {9: 3.0}], [{7: 1.0, 8: 1.0}, {9: 5.0}]) == pytest.approx(1.0)
    assert difference([{}], [{}]) == 0.0


def test_a_token_that_one_side_does_not_list_counts_with_what_is_sure() -> None:
    left, right = {1: -1.0, 2: -2.0}, {1: -1.0, 3: -1.5}
    # 2 is at most -1.5 on the right, so it may not differ at all; 3 is at most -2.0 on the left.
    assert difference([left], [right]) == pytest.approx((0.0 + 0.0 + 0.5) / 3)
    assert difference([left], [right]) == difference([right], [left])
    assert difference([{1: -1.0}], [{}]) == 0.0
    assert difference([{5: -0.1}], [{6: -0.1}]) == 0.0


def test_one_probe_is_enough_for_a_clear_effect(tmp_path: Path) -> None:
    engine = NoisyEngine(noise=0.0, effect=1.0)
    (body,) = prove(engine, tmp_path)
    assert body["tokens"] == TOP_TOKENS
