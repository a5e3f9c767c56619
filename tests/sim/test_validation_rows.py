"""Every validation row runs, exact rows are exact, and the committed page is what the code writes."""

from __future__ import annotations

import functools
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.energy import load_technology
from topsieve_sim.validation import (
    AGREEMENT,
    SECTIONS,
    UNMODELLED,
    Check,
    Result,
    Status,
    Validation,
    Verdict,
    Workbench,
    as_json,
    markdown,
    validate,
)
from topsieve_sim.validation.selection import PUBLISHED_SIZES, authors_model_cycles

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validation.md"


@functools.cache
def validation() -> Validation:
    return validate(Workbench("spatten"))


def test_the_committed_page_is_what_the_code_writes() -> None:
    """Regenerate with `topsieve validate --out docs/validation.md`."""
    assert markdown(validation()) == PAGE.read_text(encoding="utf-8")


def test_exact_rows_are_exact() -> None:
    exact = [result for result in validation().results if result.check.status is Status.EXACT]
    assert len(exact) >= 17
    assert [result.check.name for result in exact if result.verdict is not Verdict.EQUAL] == []
    assert validation().exact_misses == ()


def test_the_authors_model_is_reproduced() -> None:
    again = [result for result in validation().results if result.check.status is Status.RECOMPUTED]
    assert len(again) == 15
    assert {result.verdict for result in again} == {Verdict.AGREES}


def test_exactly_what_the_technology_was_fitted_to_is_calibrated() -> None:
    """No other row may claim to be fitted, and none that is may claim to be a prediction."""
    marked = {result.check.name: result for result in validation().results if result.check.status is Status.CALIBRATED}
    fitted = {entry.fitted_to: entry for entry in load_technology("40nm").calibration}
    assert set(marked) == set(fitted)
    for name, entry in fitted.items():
        assert (marked[name].check.published, marked[name].check.unit) == (entry.published, entry.unit)
        assert name in markdown(validation())
    # An area follows from the configuration alone, so a fitted area is met to the digits of its factor.
    assert marked["area of QxK and key buffer"].ours == pytest.approx(7.12, rel=1e-5)
    assert marked["area of fetcher"].ours == pytest.approx(2.65, rel=1e-5)


def test_every_miss_and_no_other_row_has_a_reason() -> None:
    misses = {result.check.name for result in validation().results if result.verdict is Verdict.MISS}
    reasons = {result.check.name for result in validation().results if result.check.reason}
    assert misses == reasons


def test_every_row_is_a_finite_number_with_a_source() -> None:
    for result in validation().results:
        assert math.isfinite(result.ours), result.check.name
        assert result.check.source, result.check.name
    assert all(row.published and row.source and row.needs for row in UNMODELLED)


def test_names_are_unique_and_fit_a_table() -> None:
    names = [check.name for section in SECTIONS for check in section.checks]
    assert len(names) == len(set(names))
    texts = [*names, *(check.reason + check.source for section in SECTIONS for check in section.checks)]
    assert not any("|" in text or "\n" in text for text in texts)


def test_a_wider_engine_is_never_slower_and_stops_paying() -> None:
    cycles = [result.ours for result in validation().results if result.check.name.startswith("pruned GPT-2-Small, P =")]
    assert len(cycles) == 6
    savings = [1 - wider / own for own, wider in pairwise(cycles)]
    assert min(savings) >= 0
    assert savings == sorted(savings, reverse=True)


def test_json_holds_every_row_with_full_digits() -> None:
    data = json.loads(as_json(validation()))
    rows = [row for section in data["sections"] for row in section["rows"]]
    assert [row["ours"] for row in rows] == [result.ours for result in validation().results]
    assert {row["verdict"] for row in rows} <= {verdict.value for verdict in Verdict}
    assert len(data["not_modelled"]) == len(UNMODELLED)


@functools.cache
def expected_cycles(size: int, target: int, parallelism: int) -> float:
    """The mean of the authors' model by its recurrence: every rank is equally often the pivot."""
    if size == 0:
        return 0.0
    rounds = 0.0
    for larger in range(size):
        if larger + 1 <= target:
            rounds += expected_cycles(size - larger - 1, target - larger - 1, parallelism)
        elif larger > target:
            rounds += expected_cycles(larger, target, parallelism)
    return -(-size // parallelism) + 3 + rounds / size


@pytest.mark.parametrize(("n", "k", "parallelism"), [(64, 32, 16), (102, 20, 16), (40, 1, 4), (50, 49, 1), (1, 0, 2)])
def test_the_monte_carlo_meets_the_recurrence(n: int, k: int, parallelism: int) -> None:
    drawn = authors_model_cycles(n, k, parallelism, draws=20_000, seed=1)
    # A selection's relative deviation is at most 0.5 at these sizes: four standard errors of 20,000 draws.
    exact = expected_cycles(n, k, parallelism) if 0 < k < n else 0.0
    assert abs(drawn - exact) <= 4 * 0.5 * exact / math.sqrt(20_000)


def test_the_published_column_is_the_recurrences() -> None:
    """Within three standard errors of its 300 draws, without any draw of ours."""
    for n, k, mean, deviation in PUBLISHED_SIZES:
        if n <= 204:
            assert abs(expected_cycles(n, k, 16) - mean) <= 3 * deviation / math.sqrt(300) + 0.5


@given(published=st.floats(0.1, 1e6), share=st.floats(-0.9, 2.0), uncertainty=st.floats(0.0, 0.5))
def test_a_predicted_row_agrees_within_the_wider_of_both_bounds(published, share, uncertainty) -> None:
    check = Check("any", "", published, lambda bench: 0.0, "any", uncertainty=uncertainty)
    bound = max(AGREEMENT, uncertainty)
    if abs(abs(share) - bound) > 1e-9:
        wanted = Verdict.AGREES if abs(share) < bound else Verdict.MISS
        assert Result(check, published * (1 + share)).verdict is wanted


@given(published=st.integers(0, 10_000), decimals=st.integers(0, 3))
def test_an_exact_row_differs_with_its_last_digit(published: int, decimals: int) -> None:
    number = published / 10**decimals
    check = Check("any", "", number, lambda bench: 0.0, "any", Status.EXACT, decimals, uncertainty=0.5)
    assert Result(check, number + 0.3 * 10**-decimals).verdict is Verdict.EQUAL
    assert Result(check, number + 10**-decimals).verdict is Verdict.MISS
