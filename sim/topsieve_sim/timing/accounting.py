"""Where the cycles and bytes of an attention group go: units, causes, byte kinds, and the rule that attributes a wait."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Units, in the order of the accounting table's rows.
MEMORY, DOT_PRODUCT, SOFTMAX_FILL, EXPONENTIAL, NORMALISE, TOPK, WEIGHTED_SUM = range(7)
UNITS = 7
# Causes, in the order of its columns.
BUSY, INPUT, MEMORY_WAIT, DOWNSTREAM, DONE = range(5)
CAUSES = 5
# Byte kinds.
KEY_MSB, KEY_LSB, VALUE, QUERY, OUTPUT = range(5)
BYTE_KINDS = 5

UNIT_NAMES = (
    "memory",
    "dot_product",
    "softmax_fill",
    "softmax_exponential",
    "softmax_normalise",
    "topk",
    "weighted_sum",
)
CAUSE_NAMES = ("busy", "waiting_for_input", "waiting_for_memory", "back_pressure", "done")
BYTE_KIND_NAMES = ("key_msb", "key_lsb", "value", "query", "output")


@njit(cache=True)
def account(
    table: NDArray[np.int64], unit: int, cursor: int, input_at: int, memory_at: int, event: int, busy: int
) -> int:
    """Attribute the cycles [cursor, event) to what was missing and [event, event + busy) to work; the new cursor."""
    first = min(max(input_at, cursor), event)
    second = min(max(memory_at, first), event)
    table[unit, INPUT] += first - cursor
    table[unit, MEMORY_WAIT] += second - first
    table[unit, DOWNSTREAM] += event - second
    table[unit, BUSY] += busy
    return event + busy


@njit(cache=True)
def account_end(
    table: NDArray[np.int64],
    end: int,
    memory: int,
    product: int,
    fill: int,
    exponential: int,
    normalise: int,
    topk: int,
    weighted: int,
) -> None:
    """Attribute every unit's cycles from its cursor to `end` to having nothing left to do."""
    table[MEMORY, DONE] += end - memory
    table[DOT_PRODUCT, DONE] += end - product
    table[SOFTMAX_FILL, DONE] += end - fill
    table[EXPONENTIAL, DONE] += end - exponential
    table[NORMALISE, DONE] += end - normalise
    table[TOPK, DONE] += end - topk
    table[WEIGHTED_SUM, DONE] += end - weighted
