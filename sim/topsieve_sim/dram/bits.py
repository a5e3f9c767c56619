"""Two things the kernels need and numpy lacks: the lowest bit of a word, and an array without a reference count."""

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


@intrinsic
def _without_owner(typing_context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        return view._getvalue()

    return array(array), generate


@njit(cache=True)
def borrowed(array: Any) -> Any:
    """The same memory as an array without a reference count; the caller keeps the owner alive."""
    return _without_owner(array)  # type: ignore[call-arg]
