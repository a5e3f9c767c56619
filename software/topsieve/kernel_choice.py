"""Whether a step of the library runs through `topsieve_kernels` or in plain torch.

Kernels run where every operand is on one CUDA device and Triton is installed. They know no gradients: operands that want
some stay in torch. Results agree up to rounding, decisions on equal scores exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["auto", "never", "always"]

_MODE: ContextVar[Mode] = ContextVar("kernels", default="auto")
# What the kernels are compiled for; a float64 operand would be rounded.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def kernels(mode: Mode) -> Iterator[None]:
    """Within: kernels on CUDA operands ("auto", as everywhere else), "never", or "always" (in Triton's interpreter).

    Raises
    ------
    ValueError
        another mode.
    """
    if mode not in ("auto", "never", "always"):
        raise ValueError(f"mode: got {mode!r}, allowed: 'auto', 'never', 'always'")
    token = _MODE.set(mode)
    try:
        yield
    finally:
        _MODE.reset(token)


def uses_kernels(*operands: Tensor) -> bool:
    """Whether these floating operands go to a kernel."""
    mode = _MODE.get()
    if mode == "never" or any(x.dtype not in DTYPES for x in operands):
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in operands):
        return False
    if mode == "always":
        return True
    device = operands[0].device
    if device.type != "cuda" or any(x.device != device for x in operands):
        return False
    # Only where it will be used: the import of Triton takes up to a second.
    from topsieve_kernels.backend import HAS_TRITON

    return HAS_TRITON
