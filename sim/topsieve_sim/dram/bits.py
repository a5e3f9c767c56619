"""Sets of banks as 64-bit words: the one operation numpy lacks."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Index of the lowest set bit of an int64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@njit(cache=True)
def lowest_bit(word: int) -> int:
    """Index of the lowest set bit of an int64 that is not 0."""
    return int(_count_trailing_zeros(word))  # type: ignore[call-arg]
