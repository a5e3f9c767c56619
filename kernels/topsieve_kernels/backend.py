"""Which code runs a kernel: Triton on a GPU, plain torch everywhere else; chosen from where the operands are.

Triton's interpreter (`TRITON_INTERPRET=1`, set before this package is imported) lets the Triton code run on CPU tensors
on request; its bfloat16 arithmetic is wrong in every version, so bfloat16 is refused there.
"""

import os
from typing import Any, Literal

import torch

try:
    import triton
    import triton.language as tl

    HAS_TRITON = True
    INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
except ImportError:
    HAS_TRITON = INTERPRETED = False

    class tl:  # type: ignore[no-redef]  # noqa: N801
        """Enough of the language for kernel signatures to be read; kernels cannot be launched."""

        constexpr = None


Backend = Literal["auto", "torch", "triton"]
LOG2_E = 1.4426950408889634
SPLIT_TARGET_MULTIPROCESSORS = 132
MAXIMUM_HEAD_DIM = 256
MAXIMUM_FLOAT32_HEAD_DIM = 128


def jit(function: Any) -> Any:
    """`triton.jit`, or the function itself where Triton is not installed."""
    return triton.jit(function) if HAS_TRITON else function


def choose(
    backend: Backend, *operands: torch.Tensor, arithmetic: bool = True, head_dim: int = 0
) -> Literal["torch", "triton"]:
    """The backend that runs: `auto` is Triton when every operand is on a CUDA device, else torch.

    `arithmetic` is False for kernels that only move their operands or convert them first: any dtype will do. Else float64
    stays in torch, and bfloat16 is refused in the interpreter. `head_dim` is that of the first operand where it matters:
    float32 rows of more than 128 channels would spill.

    Raises
    ------
    ValueError
        an unknown name, operands on different devices, or Triton asked for where it cannot run.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend: got {backend!r}, allowed: 'auto', 'torch', 'triton'")
    devices = {str(operand.device) for operand in operands}
    if len(devices) > 1:
        raise ValueError(f"operands: on devices {sorted(devices)}, allowed: one device")
    on_gpu = operands[0].is_cuda
    narrow = operands[0].dtype != torch.float32 or head_dim <= MAXIMUM_FLOAT32_HEAD_DIM
    wide = arithmetic and any(operand.dtype == torch.float64 for operand in operands)
    if backend == "auto":
        return "triton" if on_gpu and HAS_TRITON and narrow and not wide else "torch"
    if backend == "triton":
        require(not wide, "dtype", torch.float64, "float16, bfloat16, float32 with backend 'triton'")
        require(narrow, "head_dim", head_dim, f"up to {MAXIMUM_FLOAT32_HEAD_DIM} in float32 with backend 'triton'")
        if not HAS_TRITON:
            raise ValueError("backend: 'triton' is not installed; allowed: 'auto', 'torch'")
        if not on_gpu and not INTERPRETED:
            raise ValueError("backend: 'triton' needs CUDA tensors, or TRITON_INTERPRET=1 set before the import")
        if INTERPRETED and arithmetic and any(operand.dtype == torch.bfloat16 for operand in operands):
            raise ValueError("dtype: bfloat16 is wrong in Triton's interpreter; allowed there: float16, float32")
    return backend


def ceil_div(numerator: int, denominator: int) -> int:
    """Quotient rounded up."""
    return -(-numerator // denominator)


def next_power_of_2(value: int) -> int:
    """Smallest power of two that is at least `value` (at least 1)."""
    return 1 << max(value - 1, 0).bit_length()


def multiprocessors(operand: torch.Tensor) -> int:
    """Multiprocessors of the operand's GPU; a fixed count elsewhere, so that results do not depend on the host."""
    if operand.is_cuda:
        return torch.cuda.get_device_properties(operand.device).multi_processor_count
    return SPLIT_TARGET_MULTIPROCESSORS


def capability(operand: torch.Tensor) -> int:
    """Ten times the compute capability of the operand's GPU; Hopper's elsewhere."""
    if operand.is_cuda:
        major, minor = torch.cuda.get_device_capability(operand.device)
        return 10 * major + minor
    return 90


def rows_last(operand: torch.Tensor) -> torch.Tensor:
    """The operand with unit stride in its last axis and rows that 32 bits can tell apart: itself where that holds."""
    near = operand.shape[-2] * operand.stride(-2) < 1 << 31
    return operand if operand.stride(-1) == 1 and near else operand.contiguous()


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise a one-line ValueError that names the field, its value and what is allowed, unless `condition`."""
    if not condition:
        raise ValueError(f"{field}: got {value}, allowed: {allowed}")
