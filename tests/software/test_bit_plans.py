"""Accuracy by bit plan on MiniLM's operands: rounding explains the error, and the page says what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topsieve.bit_plans import (
    CAPACITY,
    PLANS,
    THRESHOLD,
    Operands,
    exact_probabilities,
    measure,
    minilm_operands,
    write_page,
)
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import LOG2_E
from topsieve_sim.golden.softmax import softmax

PAGE = Path(__file__).parents[2] / "docs" / "bit-plans.md"


@pytest.fixture(scope="module")
def operands() -> list[Operands]:
    return minilm_operands(paragraphs=3)


@pytest.mark.parametrize("plan", PLANS)
def test_errors_stay_below_what_rounding_allows(plan: tuple[int, int], operands: list[Operands]) -> None:
    error = measure(plan, operands)
    # The expectation to first order; what it leaves out is of the order of its square.
    for one in (error.msb, error.progressive, error.whole):
        assert one.probability <= one.predicted * (1 + one.predicted)
    assert error.whole.probability < error.progressive.probability <= error.msb.probability
    assert error.whole.output < error.progressive.output <= error.msb.output
    assert 0 < error.repeated < 1


def test_the_threshold_decides_how_many_rows_get_their_lsbs(operands: list[Operands]) -> None:
    shares = [measure((4, 4), operands[:6], threshold).repeated for threshold in (0.01, THRESHOLD, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    every = measure((4, 4), operands[:6], 1.0)
    assert every.progressive == every.whole


def test_the_softmax_of_real_rows_keeps_its_promise(operands: list[Operands]) -> None:
    """Every probability of every row of MiniLM, float64 scores in: at most 2^-10 away from float64, rounding of scores included."""
    formats = NumberFormats()
    for part in operands:
        score = part.query @ part.key.transpose(0, 2, 1) / np.sqrt(part.query.shape[-1]) * LOG2_E
        exact = exact_probabilities(part)
        steps = np.rint(score * (1 << formats.score_fraction_bits)).astype(np.int64)
        probability, largest = softmax(steps, formats, CAPACITY)
        assert np.abs(probability / (1 << formats.probability_bits) - exact).max() <= 2.0**-10
        assert (largest == probability.max(axis=-1)).all()


@pytest.mark.full
def test_the_page_is_measured(tmp_path: Path) -> None:
    write_page(tmp_path / "page.md")

    def numbers(path: Path) -> list[float]:
        lines = [line for line in path.read_text().splitlines() if line.startswith("| ") and "%" in line]
        words = " ".join(lines).replace("(≤", " ").replace(")", " ").split()
        return [float(word.rstrip("%")) for word in words if word.endswith("%")]

    found, written = numbers(tmp_path / "page.md"), numbers(PAGE)
    assert len(found) == len(written) > 20
    # The last digit of a rounded percentage may differ between float libraries.
    assert np.abs(np.array(found) - np.array(written)).max() <= 0.011
