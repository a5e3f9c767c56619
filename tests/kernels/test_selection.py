"""Top-k selection: by its definition, against the simulator's golden model, and the kernels bit for bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_kernels.selection import topk_select, topk_select_reference
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
    yield "long", torch.randint(-5, 6, (2, 5001), generator=generator).float()
    yield "long-random", torch.randn(1, 9000, generator=generator)


@pytest.mark.parametrize(
    ("name", "scores"), adversarial_rows(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_kernel_equals_reference(interpreter, name, scores):
    columns = scores.shape[1]
    for k in sorted({1, columns // 2, columns - 1, columns, columns + 5} - {0}):
        found, wanted = topk_select(scores, k, backend="triton"), topk_select_reference(scores, k)
        assert torch.equal(found.indices, wanted.indices)
        assert torch.equal(found.threshold.nan_to_num(nan=-1.5), wanted.threshold.nan_to_num(nan=-1.5))
        again = topk_select(scores, k, backend="triton")
        assert torch.equal(found.indices, again.indices)


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
