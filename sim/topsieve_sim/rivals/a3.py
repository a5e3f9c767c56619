"""A3 (Ham et al., HPCA 2020): greedy candidate search in sorted key columns, exact scores, post-scoring selection.

A query walks through the columns of the keys, each sorted beforehand: in every iteration the largest remaining product
of a query component and a key component is added to its row's estimate, and the smallest (most negative) one too unless
all products found so far sum to less than zero. Rows with a positive estimate are candidates and are scored exactly;
those far below the best score are dropped before the softmax.

Source: specification `accelerator`, section 5.1; the constants of a query are from memory there.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import load_technology
from topsieve_sim.rivals.heads import Head, HeadOperands
from topsieve_sim.rivals.machine import (
    Basis,
    Fetch,
    HeadCost,
    Rival,
    at_least_one,
    attended,
    key_cycles,
    row_units,
    whole_operands,
)

# Cycles that a query adds to the interval between two, and to its own latency.
INTERVAL_OVERHEAD, LATENCY_OVERHEAD = 9, 27


@njit(cache=True)
def greedy_estimates(
    query: NDArray[np.int64],
    key: NDArray[np.int64],
    order: NDArray[np.int64],
    row_keys: NDArray[np.int64],
    iterations: NDArray[np.int64],
    estimates: NDArray[np.int64],
) -> None:
    """Add the products that the search of each row finds to `estimates` int64 [rows, keys].

    Parameters
    ----------
    query : int64 [rows, d]. key : int64 [keys, d]. order : int64 [keys, d], rows of `key` by ascending component.
    row_keys : int64 [rows]; columns hold only the first keys of a row. iterations : int64 [rows].
    """
    keys, head_dim = key.shape
    place = np.empty((2, head_dim), np.int64)
    step = np.empty((2, head_dim), np.int64)
    for row in range(query.shape[0]):
        for column in range(head_dim):
            upwards = query[row, column] < 0
            for side in range(2):  # 0 looks for the largest products, 1 for the smallest
                forward = upwards == (side == 0)
                place[side, column] = 0 if forward else keys - 1
                step[side, column] = 1 if forward else -1
        found = 0
        for _ in range(iterations[row]):
            for side in range(2):
                if side == 1 and found < 0:
                    break
                best = 0
                chosen = -1
                for column in range(head_dim):
                    at = place[side, column]
                    while 0 <= at < keys and order[at, column] >= row_keys[row]:
                        at += step[side, column]
                    place[side, column] = at
                    if 0 <= at < keys:
                        product = query[row, column] * key[order[at, column], column]
                        if (side == 0 and product > best) or (side == 1 and product < best):
                            best = product
                            chosen = column
                if chosen >= 0:
                    estimates[row, order[place[side, chosen], chosen]] += best
                    found += best
                    place[side, chosen] += step[side, chosen]


class A3(Rival):
    """A3 with its two knobs; `search` 0 and `margin_percent` 0 are the base machine without approximation."""

    name: ClassVar[str] = "a3"
    title: ClassVar[str] = "A3 (HPCA 2020)"
    basis: ClassVar[Basis] = Basis.ANALYTICAL
    source: ClassVar[str] = "specification `accelerator`, section 5.1"

    search: float = Field(0.5, ge=0, le=64, description="search iterations as a share of the keys; 0 scores every key")
    margin_percent: float = Field(
        5.0, ge=0, lt=100, description="keys with less than this share of the largest weight are dropped; 0 drops none"
    )
    spilled: bool = Field(
        False, description="sorted copies of the keys are read from DRAM instead of sorted on the way"
    )

    @property
    def needs_operands(self) -> bool:
        return self.search > 0 or self.margin_percent > 0

    def units(self, head_dim: int, config: AcceleratorConfig) -> int:
        return row_units(head_dim, config)

    def notes(self) -> tuple[str, ...]:
        if not self.search:
            return ()
        place = "read from DRAM beside the keys" if self.spilled else "sorted off the critical path, without cycles"
        return (f"{self.label}: sorted key columns are {place}",)

    def candidates(self, head: Head, operands: HeadOperands) -> NDArray[np.bool_]:
        """Bool [rows, keys]: keys that are scored."""
        if not self.search:
            return head.visible
        estimates = np.zeros((head.rows, head.keys), np.int64)
        order = np.argsort(operands.key, axis=0, kind="stable")
        greedy_estimates(operands.query, operands.key, order, head.row_keys, self._iterations(head), estimates)
        hopeful = np.where(head.visible, estimates, np.iinfo(np.int64).min)
        return at_least_one((hopeful > 0) & head.visible, hopeful)

    def survivors(self, operands: HeadOperands, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bool [rows, keys]: candidates that enter the softmax."""
        if not self.margin_percent:
            return candidates
        scores = np.where(candidates, operands.scores, -np.inf)
        border = scores.max(axis=1, keepdims=True) + np.log(self.margin_percent) - np.log(100.0)
        return np.asarray(candidates & (scores >= border))

    def _iterations(self, head: Head) -> NDArray[np.int64]:
        return np.asarray(np.ceil(self.search * head.row_keys), np.int64)

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        output = None
        scored = weighted = head.row_keys
        if head.operands is not None:
            candidates = self.candidates(head, head.operands)
            kept = self.survivors(head.operands, candidates)
            scored, weighted = candidates.sum(axis=1), kept.sum(axis=1)
            output = attended(head.operands, kept)
        per_key = key_cycles(head.head_dim, config)
        searched = self._iterations(head)
        interval = np.maximum(np.maximum(searched, scored * per_key), weighted * per_key) + INTERVAL_OVERHEAD
        latency = searched + (2 * scored + weighted) * per_key + LATENCY_OVERHEAD
        fetch = whole_operands(head)
        if self.search and self.spilled:
            # A sorted component stands beside the number of its row, which is as wide: twice the keys.
            fetch[Fetch.INDEX] = 2 * fetch[Fetch.KEY]
        scores, rows_added = int(scored.sum()), int(weighted.sum())
        return HeadCost(
            job_cycles=np.asarray(interval, np.int64),
            tail_cycles=int(latency[-1] - interval[-1]),
            fetch_bits=fetch,
            scores=scores,
            score_macs=scores * head.head_dim,
            weighted=rows_added,
            value_macs=rows_added * head.head_dim,
            extra_pj={"search": self._search_pj(int(searched.sum()), head.head_dim, config)} if self.search else {},
            output=output,
        )

    def _search_pj(self, iterations: int, head_dim: int, config: AcceleratorConfig) -> float:
        """Both sides of an iteration: a product, the comparators of its path through the tree, an addition, two reads."""
        table, formats = load_technology(config.technology), config.formats
        bits = formats.query_bits + formats.key_bits
        levels = max(head_dim - 1, 1).bit_length()
        side = (
            table.value("multiplier", "multiply", formats.query_bits, formats.key_bits)
            + levels * table.value("comparator", "compare", bits)
            + table.value("adder", "add", bits)
            + table.value("sram", "read", 1) * 2 * formats.key_bits
        )
        return 2 * iterations * side
