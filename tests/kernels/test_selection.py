"""Top-k selection: by its definition, against the simulator's golden model, and the kernels bit for bit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_kernels import selection
from topsieve_kernels.selection import select_long, topk_select, topk_select_reference
from topsieve_kernels.selection_filtered import CAPACITIES, FilterPlan, plan_filter, plan_for, select_filtered
from topsieve_sim.golden.topk import top_k

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-42, -1e-42, 3.5, math.inf, -math.inf]) | st.floats(
    width=32, allow_nan=False
)


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(0, 70))
@settings(max_examples=200, deadline=None)
def test_reference_is_the_golden_model(values, k):
    found = topk_select(torch.tensor([values], dtype=torch.float32), k)
    wanted = top_k(np.asarray(values, np.float32), k)
    assert found.indices[0].tolist() == wanted.tolist()


def adversarial_rows():
    generator = torch.Generator().manual_seed(1)
    yield "all-equal", torch.full((2, 300), -2.5)
    yield "seven-values", torch.randint(-3, 4, (3, 700), generator=generator).float()
    yield "zeros", torch.tensor([[0.0, -0.0, 0.0, -0.0, -1.0]])
    yield "nan-inf-denormal", torch.tensor([[math.nan, -math.inf, math.inf, 0.0, 1e-42, -1e-42, math.nan, -math.inf]])
    yield "one", torch.tensor([[-7.0]])
    yield "digit-boundary", torch.arange(-129, 131).float().repeat(1, 2)
    yield "longest-in-registers", torch.randint(-5, 6, (1, selection.SHORT_ROW), generator=generator).float()
    yield "one-longer", torch.randn(1, selection.SHORT_ROW + 1, generator=generator)


@pytest.mark.parametrize(
    ("name", "scores"), list(adversarial_rows()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_kernel_equals_reference(interpreter, name, scores):
    columns = scores.shape[1]
    for k in sorted({1, columns // 2, columns - 1, columns, columns + 5} - {0}):
        found, wanted = topk_select(scores, k, backend="triton"), topk_select_reference(scores, k)
        same(found, wanted)
        again = topk_select(scores, k, backend="triton")
        assert torch.equal(found.indices, again.indices)


def same(found, wanted):
    assert torch.equal(found.indices, wanted.indices)
    assert torch.equal(found.threshold.nan_to_num(nan=-1.5), wanted.threshold.nan_to_num(nan=-1.5))


def long_rows():
    """Rows that a filter with a careless sample, or careless with ties, would get wrong or give up."""
    generator = torch.Generator().manual_seed(4)
    columns = 20011
    number = torch.arange(columns).float()
    random = torch.randn(columns, generator=generator)
    yield "random", random
    yield "ascending", number
    yield "descending", -number
    yield "largest-at-the-end", torch.where(number >= columns - 900, number, random)
    yield "largest-at-the-start", torch.where(number < 900, 1e6 - number, random)
    yield "periodic", (number * 4093) % 20000
    yield "all-equal", torch.zeros(columns)
    yield "three-values", torch.randint(0, 3, (columns,), generator=generator).float()
    yield "quantised", (random * 8).round() / 8
    yield "mostly-zero", torch.where(number % 40 == 7, random.abs(), 0.0 * random)
    yield "mostly-masked", torch.where(number % 50 == 3, random, -math.inf)
    yield "infinities", torch.where(number % 5 == 0, math.inf, random)


@pytest.mark.parametrize(("name", "row"), list(long_rows()), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("parts", [1, 4])
def test_one_pass_is_enough_whatever_the_order(interpreter, name, row, parts):
    k = 1000
    scores = row[None]
    plan = replace(plan_for(scores, k), parts=parts)
    indices, threshold = torch.empty((1, k), dtype=torch.int32), torch.empty(1)
    again = torch.empty(1, dtype=torch.int32)
    select_filtered(scores, indices, threshold, again, plan)
    assert again.tolist() == [0]
    same(selection.TopK(indices, threshold), topk_select_reference(scores, k))


def test_a_row_that_the_filter_gives_up_is_selected_all_the_same(interpreter):
    generator = torch.Generator().manual_seed(6)
    scores = torch.randn(2, 9000, generator=generator)
    scores[1, torch.rand(9000, generator=generator) < 0.99] = math.nan
    k = 600
    plan = plan_for(scores, k)
    indices, threshold = torch.empty((2, k), dtype=torch.int32), torch.empty(2)
    again = torch.empty(2, dtype=torch.int32)
    select_filtered(scores, indices, threshold, again, plan)
    assert again.tolist() == [0, 1]
    same(topk_select(scores, k, backend="triton"), topk_select_reference(scores, k))


@st.composite
def small_filters(draw):
    """Rows of every kind, with chunks, parts, room and sample so small that every border is crossed."""
    chunk = draw(st.sampled_from([16, 32]))
    capacity = draw(st.sampled_from([32, 64]))
    sample = draw(st.sampled_from([16, 32]))
    rows = draw(st.integers(1, 2))
    near = chunk * draw(st.integers(2, 6)) + draw(st.integers(-2, 2))
    columns = max(near, sample)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scores = {
        "normal": lambda: torch.randn(rows, columns, generator=generator),
        "few": lambda: torch.randint(0, 3, (rows, columns), generator=generator).float(),
        "sorted": lambda: torch.randn(rows, columns, generator=generator).sort(1).values,
        "steps": lambda: (torch.arange(columns) // (chunk - 3)).float().repeat(rows, 1),
    }[draw(st.sampled_from(["normal", "few", "sorted", "steps"]))]()
    special = draw(st.sampled_from([None, -math.inf, math.inf, math.nan, -0.0, 1e-42]))
    if special is not None:
        scores[torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.1, 0.9]))] = special
    k = draw(st.integers(1, min(columns, capacity + 2)))
    rank = min(math.ceil(sample * k / columns) + draw(st.integers(0, 5)), sample)
    return scores, k, FilterPlan(sample, rank, capacity, draw(st.integers(1, 4)), chunk)


@pytest.mark.usefixtures("interpreter")
@given(small_filters())
@settings(max_examples=50, deadline=None)
def test_any_filter_selects_exactly(case):
    scores, k, plan = case
    indices = torch.empty((scores.shape[0], k), dtype=torch.int32)
    threshold = torch.empty(scores.shape[0])
    select_long(scores, indices, threshold, plan)
    same(selection.TopK(indices, threshold), topk_select_reference(scores, k))


def test_k_too_large_for_the_filter(interpreter):
    scores = torch.randn(1, 12_345, generator=torch.Generator().manual_seed(8))
    k = 9000
    assert plan_for(scores, k) is None
    same(topk_select(scores, k, backend="triton"), topk_select_reference(scores, k))


def test_many_rows_go_in_slices(interpreter, monkeypatch):
    monkeypatch.setattr(selection, "ROWS_AT_A_TIME", 2)
    scores = torch.randint(0, 999, (3, 8200), generator=torch.Generator().manual_seed(9)).float()
    found = topk_select(scores, 40, backend="triton")
    same(found, topk_select_reference(scores, 40))
    assert torch.equal(found.indices, topk_select(scores, 40, backend="triton").indices)


def tail_at_most(count, mean):
    """P(Poisson(mean) <= count)."""
    return sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(count + 1))


@pytest.mark.parametrize(
    ("rows", "columns", "k"),
    [
        (4096, 200_000, 1024),
        (256, 131_072, 1024),
        (1, 1_000_000, 1024),
        (64, 16_384, 2048),
        (8, 524_288, 256),
        (1, 8193, 1),
    ],
)
def test_the_sample_fails_rarely(rows, columns, k):
    plan = plan_filter(rows, columns, k, 132)
    too_few = 1 - tail_at_most(plan.rank - 1, plan.sample * k / columns)
    too_many = tail_at_most(plan.rank_limit - 1, plan.sample * plan.capacity / columns)
    assert too_few + too_many < 2e-5
    assert plan.capacity in CAPACITIES
    assert plan.parts == 1 or rows * plan.parts <= 132 * 5


def test_a_nan_is_kept_last():
    scores = torch.tensor([[math.nan, -math.inf, 1.0, math.nan]])
    assert topk_select(scores, 2).indices.tolist() == [[1, 2]]
    assert topk_select(scores, 3).indices.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_compare_by_value(interpreter, dtype):
    scores = torch.randn(2, 100, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = topk_select(scores, 17, backend="triton").indices
    assert torch.equal(found, topk_select_reference(scores, 17).indices)


def test_keeping_nothing():
    found = topk_select(torch.zeros(3, 4), 0)
    assert found.indices.shape == (3, 0)
    assert (found.threshold == math.inf).all()


@pytest.mark.parametrize(
    ("scores", "k", "field"),
    [
        (torch.zeros(4), 1, "scores"),
        (torch.zeros(2, 0), 1, "scores"),
        (torch.zeros(1, 4).double(), 1, "scores"),
        (torch.zeros(1, 4), -1, "k"),
    ],
)
def test_bad_input_is_named(scores, k, field):
    with pytest.raises(ValueError, match=f"^{field}: got"):
        topk_select(scores, k)
