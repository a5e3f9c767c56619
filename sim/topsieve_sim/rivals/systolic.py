"""A dense systolic array: cycles of a matrix product in three dataflows, and both attention products on one array.

Every product is cut into folds that fill the array; a fold is loaded, streamed and left to drain, one after the other.
The counts are those of SCALE-Sim without stalls, cycle for cycle, and of an array stepped clock by clock.

Source: specification `simulators`, section 0.1, and `tests/data/scalesim`.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import ClassVar

import numpy as np
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.rivals.heads import Head
from topsieve_sim.rivals.machine import Basis, HeadCost, Rival, attended, whole_operands


class Dataflow(StrEnum):
    """Which operand stays in the array."""

    OUTPUT_STATIONARY = "os"
    WEIGHT_STATIONARY = "ws"
    INPUT_STATIONARY = "is"


def systolic_cycles(m: int, n: int, k: int, rows: int, columns: int, dataflow: Dataflow) -> int:
    """Cycles of [m, k] x [k, n] on an array of `rows` x `columns`, without stalls, from the first to the last one counted.

    A fold streams its third dimension through the skew of the array; a stationary operand is first shifted in, a row a
    cycle. Stationary outputs leave while the next fold starts. The last cycle of the last fold is not counted, as
    SCALE-Sim counts.
    """
    if dataflow is Dataflow.OUTPUT_STATIONARY:
        across, down, streamed, preload = m, n, k, 0
    elif dataflow is Dataflow.WEIGHT_STATIONARY:
        across, down, streamed, preload = k, n, m, rows
    else:
        across, down, streamed, preload = k, m, n, rows
    folds = -(-across // rows) * -(-down // columns)
    return folds * (preload + streamed + rows + columns - 2) - 1


def array_shape(multipliers: int) -> tuple[int, int]:
    """Rows and columns of the array: the divisors of `multipliers` nearest to a square, rows no more than columns."""
    rows = next(size for size in range(math.isqrt(multipliers), 0, -1) if multipliers % size == 0)
    return rows, multipliers // rows


class Systolic(Rival):
    """All multipliers as one array that computes every score, masked ones too, and keeps every value."""

    name: ClassVar[str] = "systolic"
    title: ClassVar[str] = "dense systolic array"
    basis: ClassVar[Basis] = Basis.CYCLE_EXACT
    source: ClassVar[str] = "SCALE-Sim 3.0.0; specification `simulators`, section 0.1"

    dataflow: Dataflow = Field(Dataflow.OUTPUT_STATIONARY, description="os, ws or is: what stays in the array")

    @property
    def needs_operands(self) -> bool:
        return False

    def notes(self) -> tuple[str, ...]:
        return (f"{self.label}: the softmax between both products takes no cycles",)

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        rows, columns = array_shape(config.dot_product.multipliers + config.weighted_sum.multipliers)
        score = systolic_cycles(head.rows, head.keys, head.head_dim, rows, columns, self.dataflow)
        value = systolic_cycles(head.rows, head.head_dim, head.keys, rows, columns, self.dataflow)
        scores = head.rows * head.keys
        # A stationary operand is read once; a streamed one once for each fold of the rows.
        passes = {
            Dataflow.OUTPUT_STATIONARY: -(-head.rows // rows),
            Dataflow.WEIGHT_STATIONARY: 1,
            Dataflow.INPUT_STATIONARY: -(-head.rows // columns),
        }[self.dataflow]
        reads = passes * head.keys * head.head_dim
        return HeadCost(
            # Each product's last cycle, which the count leaves out, is one in which the array is taken.
            job_cycles=np.array([score + value + 2], np.int64),
            tail_cycles=0,
            fetch_bits=whole_operands(head),
            scores=scores,
            score_macs=scores * head.head_dim,
            weighted=scores,
            value_macs=scores * head.head_dim,
            key_reads=reads,
            value_reads=reads,
            output=None if head.operands is None else attended(head.operands, head.visible),
        )
