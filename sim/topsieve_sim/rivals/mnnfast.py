"""MNNFast (Jang et al., ISCA 2019): keys stream through in chunks, and small probabilities skip their value row.

Everything is fetched and every score is computed; the sum of exponentials runs along with the chunks and divides once.
The trace's own probabilities decide which value rows are skipped.

Source: specification `accelerator`, section 5.2.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.rivals.heads import Head
from topsieve_sim.rivals.machine import Basis, HeadCost, Rival, probabilities, whole_operands


class MNNFast(Rival):
    """MNNFast; the published zero-skipping threshold is for memory networks, the default here is ours."""

    name: ClassVar[str] = "mnnfast"
    title: ClassVar[str] = "MNNFast (ISCA 2019)"
    basis: ClassVar[Basis] = Basis.ANALYTICAL
    source: ClassVar[str] = "specification `accelerator`, section 5.2"

    threshold: float = Field(
        0.001, ge=0, le=1, description="value rows under this probability are skipped; 0 skips none"
    )
    overlap: bool = Field(False, description="work on both products at once; off as in the SpAtten authors' own model")

    @property
    def needs_operands(self) -> bool:
        return self.threshold > 0

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        output = None
        weighted = head.row_keys
        if head.operands is not None:
            probability = probabilities(head.operands.scores, head.visible)
            added = (probability >= self.threshold) & head.visible
            weighted = added.sum(axis=1)
            output = np.where(added, probability, 0.0) @ head.operands.value
        dim = head.head_dim
        score = np.array([config.dot_product.interval_cycles(int(count), dim) for count in head.row_keys], np.int64)
        value = np.array([config.weighted_sum.interval_cycles(int(count), dim) for count in weighted], np.int64)
        interval = np.maximum(score, value) if self.overlap else score + value
        scores, rows_added = head.scores_seen, int(weighted.sum())
        return HeadCost(
            job_cycles=interval,
            tail_cycles=int(min(score[-1], value[-1])) if self.overlap else 0,
            fetch_bits=whole_operands(head),
            scores=scores,
            score_macs=scores * dim,
            weighted=rows_added,
            value_macs=rows_added * dim,
            output=output,
        )
