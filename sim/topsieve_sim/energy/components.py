"""The machine's components and their actions: what energy is booked to, and the rows of its reference tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Component(StrEnum):
    """Parts of the machine that energy and area are booked to."""

    DOT_PRODUCT = "dot_product"
    KEY_BUFFER = "key_buffer"
    SOFTMAX = "softmax"
    VALUE_TOPK = "value_topk"
    WEIGHTED_SUM = "weighted_sum"
    VALUE_BUFFER = "value_buffer"
    IMPORTANCE = "importance"
    CASCADE_TOPK = "cascade_topk"
    FETCHER = "fetcher"
    DRAM = "dram"


class Action(StrEnum):
    """Events that cost energy. Memory actions count bits, the others operations.

    DRAM has two models: `READ_BIT` and `WRITE_BIT` at the average per bit, or `TRANSFER_BIT` and `ACTIVATE` where row
    activations are known.
    """

    MULTIPLY = "multiply"
    ADD = "add"
    SCALE = "scale"
    COMPARE = "compare"
    EXPONENTIAL = "exponential"
    RECIPROCAL = "reciprocal"
    NORMALISE = "normalise"
    READ_BIT = "read_bit"
    WRITE_BIT = "write_bit"
    TRANSFER_BIT = "transfer_bit"
    ACTIVATE = "activate"
    LEAK_CYCLE = "leak_cycle"


Key = tuple[Component, Action]
Counts = Mapping[Key, int]

_MEMORY = (Action.READ_BIT, Action.WRITE_BIT, Action.LEAK_CYCLE)

# What each component can do: a reference table holds exactly these.
ACTIONS: dict[Component, tuple[Action, ...]] = {
    Component.DOT_PRODUCT: (Action.MULTIPLY, Action.ADD, Action.SCALE),
    Component.KEY_BUFFER: _MEMORY,
    Component.SOFTMAX: (
        Action.ADD,
        Action.COMPARE,
        Action.EXPONENTIAL,
        Action.RECIPROCAL,
        Action.NORMALISE,
        *_MEMORY,
    ),
    Component.VALUE_TOPK: (Action.COMPARE, *_MEMORY),
    Component.WEIGHTED_SUM: (Action.MULTIPLY, Action.ADD),
    Component.VALUE_BUFFER: _MEMORY,
    Component.IMPORTANCE: (Action.ADD, *_MEMORY),
    Component.CASCADE_TOPK: (Action.COMPARE, *_MEMORY),
    Component.FETCHER: (Action.TRANSFER_BIT, Action.LEAK_CYCLE),
    Component.DRAM: (Action.READ_BIT, Action.WRITE_BIT, Action.TRANSFER_BIT, Action.ACTIVATE),
}
# Components with an area of their own; the DRAM stands outside the chip.
PLACED = tuple(component for component in Component if component is not Component.DRAM)
