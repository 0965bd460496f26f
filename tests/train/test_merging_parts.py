"""The small parts of merging: the folder that appears whole, the factors, the figures of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from registry.errors import Conflict
from train.merging.factors import EXACT, factorise, frobenius
from train.merging.parity import compare
from train.merging.staging import new_folder


def test_a_folder_appears_only_when_its_block_ended_well(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "weights").write_text("whole")
        assert not out.exists()
    assert (out / "weights").read_text() == "whole"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "weights").write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_made_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    def overtaken() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "weights").write_text("mine")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "weights").write_text("theirs")

    with pytest.raises(Conflict, match="exists already"):
        overtaken()
    assert (tmp_path / "out" / "weights").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("size", [EXACT - 56, EXACT + 144], ids=["exact", "randomised"])
def test_factors_are_the_best_approximation_and_know_what_they_leave_out(size: int) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(size + 50, size, generator=generator) * torch.logspace(0, -4, size)
    found = factorise(matrix, 32)
    values = torch.linalg.svdvals(matrix)
    for rank in (1, 8, 32):
        b, a = found.product(rank)
        assert found.left_out(rank) == pytest.approx(frobenius(matrix - b @ a), rel=1e-3)
        assert found.left_out(rank) <= 1.01 * float(values[rank:].square().sum().sqrt())
    assert found.norm == pytest.approx(float(torch.linalg.matrix_norm(matrix)), rel=1e-5)


def test_factors_beyond_the_rank_of_a_matrix_are_zero() -> None:
    b, a = factorise(torch.ones(6, 4), 32).product(32)
    assert (b.shape, a.shape) == ((6, 32), (32, 4))
    assert torch.allclose(b @ a, torch.ones(6, 4), atol=1e-5)


def test_the_same_matrix_gives_the_same_factors_and_leaves_the_random_numbers_alone() -> None:
    matrix = torch.randn(400, 400, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    one, other = factorise(matrix, 8), factorise(matrix, 8)
    assert torch.equal(one.left, other.left)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_comparison_counts_every_position_of_every_prompt() -> None:
    reference = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0]])]
    candidate = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0]])]
    base = [torch.zeros(2, 2), torch.zeros(1, 2)]
    found = compare(reference, candidate, base)
    assert (found.probes, found.positions, found.max_difference) == (2, 3, 2.0)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.mean_difference == pytest.approx(4 / 6)
    assert found.effect == pytest.approx(4 / 6)
    assert found.lost == pytest.approx(1.0)
    chosen = torch.softmax(torch.tensor([2.0, 0.0]), -1)
    assert found.kl == pytest.approx(float(2 * (chosen[0] - chosen[1])) / 3, rel=1e-5)


def test_a_copy_has_no_distance() -> None:
    logits = [torch.tensor([[1.0, 0.0]])]
    found = compare(logits, logits, [torch.zeros(1, 2)])
    assert (found.kl, found.lost, found.top1) == (0.0, 0.0, 1.0)
