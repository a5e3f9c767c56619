"""Counts: every way of saying how many stay, without float error."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve.reduction import Base, Budget, Rounding

DECIMAL_RULE = {
    Rounding.FLOOR: ROUND_FLOOR,
    Rounding.CEIL: ROUND_CEILING,
    Rounding.HALF_EVEN: ROUND_HALF_EVEN,
    Rounding.HALF_UP: ROUND_HALF_UP,
}


@given(percent=st.integers(1, 1000), tokens=st.integers(1, 5000), rounding=st.sampled_from(Rounding))
def test_a_ratio_is_the_decimal_that_was_written(percent: int, tokens: int, rounding: Rounding) -> None:
    expected = int((Decimal(percent) / 1000 * tokens).to_integral_value(DECIMAL_RULE[rounding]))
    budget = Budget(ratio=percent / 1000, rounding=rounding)
    assert budget.keep_count(tokens, tokens) == max(1, expected)


def test_published_roundings() -> None:
    """EViT keeps ceil(0.7 x 196) = 138 beside CLS; DynamicViT int(0.7 x 196) = 137; FastV rounds half to even."""
    evit = Budget(ratio=0.7, rounding=Rounding.CEIL, protect_first=1, ratio_excludes_protected=True)
    assert evit.keep_count(197, 197) == 139
    assert Budget(ratio=0.7).keep_count(196, 196) == 137
    assert Budget(ratio=0.5, rounding=Rounding.HALF_EVEN).keep_count(5, 5) == 2
    assert Budget(ratio=0.5, rounding=Rounding.HALF_UP).keep_count(5, 5) == 3


def test_base_and_bounds() -> None:
    assert Budget(ratio=0.5, base=Base.INITIAL).keep_count(60, 100) == 50
    assert Budget(ratio=0.5, base=Base.CURRENT).keep_count(60, 100) == 30
    assert Budget(ratio=0.5, base=Base.INITIAL).keep_count(40, 100) == 40
    assert Budget(remove=7).keep_count(40, 100) == 33
    assert Budget(count=12).keep_count(40, 100) == 12
    assert Budget(count=0, minimum=3).keep_count(40, 100) == 3
    assert Budget(count=1, protect_first=2, protect_last=3).keep_count(40, 100) == 5
    assert Budget(count=9, multiple_of=8).keep_count(40, 100) == 16
    assert Budget(count=9, multiple_of=8).keep_count(10, 100) == 10
    assert Budget(count=1).keep_count(0, 0) == 0


def test_a_reserved_slot_comes_off_only_where_tokens_go() -> None:
    budget = Budget(count=10, reserve=1)
    assert budget.keep_count(10, 10) == 10
    assert budget.keep_count(11, 11) == 9


@pytest.mark.parametrize(
    "wrong",
    [{}, {"count": 1, "ratio": 0.5}, {"ratio": 1.5}, {"ratio": -0.1}, {"count": -1}, {"count": 1, "multiple_of": 0}],
)
def test_contradictory_budgets_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|exactly one"):
        Budget(**wrong)


def test_a_threshold_has_no_count() -> None:
    with pytest.raises(ValueError, match="no count"):
        Budget(threshold=0.1).keep_count(3, 3)
