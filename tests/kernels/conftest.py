"""Kernels run in Triton's interpreter here; it must be switched on before the first kernel is defined.

Every uninitialised tensor is filled with NaN (floats) or the largest number (integers), so that an output element no
program wrote cannot pass.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable, Iterator

import pytest
import torch

from topsieve_kernels.backend import HAS_TRITON, INTERPRETED


@pytest.fixture
def interpreter() -> None:
    """Skips, with the reason, where Triton is missing."""
    if not HAS_TRITON:
        pytest.skip("Triton is not installed")
    assert INTERPRETED, "the kernels were imported before the interpreter was switched on"


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory holds NaN, checked."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(4).isnan().all()
    assert torch.zeros(1).new_empty((2, 2)).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def relative_error() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """||found - wanted|| / ||wanted|| in float64; NaN anywhere gives NaN, which no bound accepts; 0 / 0 is 0."""

    def measure(found: torch.Tensor, wanted: torch.Tensor) -> float:
        difference = (found.double() - wanted.double()).norm()
        return float(difference) if difference == 0 else float(difference / wanted.double().norm())

    return measure
