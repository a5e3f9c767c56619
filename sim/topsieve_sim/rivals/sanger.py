"""Sanger (Lu et al., MICRO 2021): a four-bit prediction masks scores; rows are packed and split onto a score-stationary array.

Queries and keys rounded to four bits predict the softmax; scores under a threshold are masked. A mask row is cut into
pieces as wide as the array's ports; empty pieces are left out (pack) and a piece with more survivors than a line of the
array has elements takes several lines (split). A line computes its scores in d cycles and, with the scores in place, its
weighted sums in d more. The real mask gives the load balance.

Source: specification `accelerator`, section 5.3; line width and ports are those of the released simulator.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig, NumberFormats
from topsieve_sim.energy import load_technology
from topsieve_sim.rivals.heads import Floats, Head, HeadOperands
from topsieve_sim.rivals.machine import (
    Basis,
    HeadCost,
    Rival,
    at_least_one,
    attended,
    probabilities,
    whole_operands,
)

LINE_ELEMENTS, PORTS = 16, 64


class Sanger(Rival):
    """Sanger; all multipliers form one array, a prediction array of as many four-bit elements stands before it."""

    name: ClassVar[str] = "sanger"
    title: ClassVar[str] = "Sanger (MICRO 2021)"
    basis: ClassVar[Basis] = Basis.ANALYTICAL
    source: ClassVar[str] = "specification `accelerator`, section 5.3; MICRO 2021"

    threshold: float = Field(
        0.002, ge=0, le=1, description="scores under this predicted probability are masked; 0: none"
    )
    prediction_bits: int = Field(4, ge=2, le=12, description="width of the predicting operands")

    def notes(self) -> tuple[str, ...]:
        return (
            f"{self.label}: the {self.prediction_bits}-bit prediction array comes on top of the equal multipliers, as "
            "many elements again",
        )

    def predicted(self, head: Head, operands: HeadOperands, formats: NumberFormats) -> Floats:
        """The softmax of the few-bit operands: float64 [rows, keys]."""
        limit = (1 << (self.prediction_bits - 1)) - 1
        query_step = ((1 << (formats.query_bits - 1)) - 1) / limit
        key_step = ((1 << (formats.key_bits - 1)) - 1) / limit
        query, key = np.rint(operands.query / query_step), np.rint(operands.key / key_step)
        scores = query @ key.T * (query_step * key_step) * operands.scale[:, None] + operands.bias
        return probabilities(scores, head.visible)

    def mask(self, head: Head, operands: HeadOperands, formats: NumberFormats) -> NDArray[np.bool_]:
        """Bool [rows, keys]: scores that are computed in full."""
        predicted = np.where(head.visible, self.predicted(head, operands, formats), -1.0)
        return at_least_one((predicted >= self.threshold) & head.visible, predicted)

    def lines(self, mask: NDArray[np.bool_], width: int = LINE_ELEMENTS) -> int:
        """Lines of the array that all rows of `mask` take after packing and splitting."""
        ports = PORTS // LINE_ELEMENTS * width
        rows, keys = mask.shape
        padded = np.zeros((rows, -(-keys // ports) * ports), np.bool_)
        padded[:, :keys] = mask
        survivors = padded.reshape(rows, -1, ports).sum(axis=2)
        return int((-(-survivors // width)).sum())

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        assert head.operands is not None
        mask = self.mask(head, head.operands, config.formats)
        elements = config.dot_product.multipliers + config.weighted_sum.multipliers
        width = min(LINE_ELEMENTS, elements)
        height, ports = elements // width, PORTS // LINE_ELEMENTS * width
        steps = -(-self.lines(mask, width) // height)
        count = int(mask.sum())
        return HeadCost(
            job_cycles=np.array([steps * 2 * head.head_dim], np.int64),
            tail_cycles=height + ports,
            fetch_bits=whole_operands(head),
            scores=count,
            score_macs=count * head.head_dim,
            weighted=count,
            value_macs=count * head.head_dim,
            # The lines of a step share what stands at the ports.
            key_reads=steps * ports * head.head_dim,
            value_reads=steps * ports * head.head_dim,
            before_cycles=-(-head.scores_seen * head.head_dim // elements),
            extra_pj={"prediction": self._prediction_pj(head, config)},
            output=attended(head.operands, mask),
        )

    def _prediction_pj(self, head: Head, config: AcceleratorConfig) -> float:
        table, bits = load_technology(config.technology), self.prediction_bits
        width = 2 * bits + max(head.head_dim - 1, 0).bit_length()
        mac = table.value("multiplier", "multiply", bits, bits) + table.value("adder", "add", width)
        # The exponential of the prediction is a small table; its comparison with the threshold is what is counted.
        return head.scores_seen * (head.head_dim * mac + table.value("comparator", "compare", width))
