"""Energy of a rival: the accelerator's own action energies for what both do, its own parts beside them.

Dynamic energy only. The memories of the rivals' papers are of other sizes and nodes, so leakage is left out of every
row, the accelerator's too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import Action, Component, action_energies_pj, energy_pj, total_pj
from topsieve_sim.report import Report
from topsieve_sim.rivals.heads import Head
from topsieve_sim.rivals.machine import Fetch, HeadCost


def actions(head: Head, cost: HeadCost, read_bits: int, written_bits: int) -> dict[tuple[Component, Action], int]:
    """Events of one head that the accelerator's tables price; buffers are written once and read at each use."""
    key_reads = cost.score_macs if cost.key_reads is None else cost.key_reads
    value_reads = cost.value_macs if cost.value_reads is None else cost.value_reads
    return {
        (Component.DRAM, Action.READ_BIT): read_bits,
        (Component.DRAM, Action.WRITE_BIT): written_bits,
        (Component.FETCHER, Action.TRANSFER_BIT): read_bits,
        (Component.KEY_BUFFER, Action.WRITE_BIT): cost.fetch_bits.get(Fetch.KEY, 0)
        + cost.fetch_bits.get(Fetch.INDEX, 0),
        (Component.KEY_BUFFER, Action.READ_BIT): key_reads * head.key_bits,
        (Component.DOT_PRODUCT, Action.MULTIPLY): cost.score_macs,
        (Component.DOT_PRODUCT, Action.ADD): cost.score_macs,
        (Component.DOT_PRODUCT, Action.SCALE): cost.scores,
        (Component.SOFTMAX, Action.COMPARE): cost.scores,
        (Component.SOFTMAX, Action.EXPONENTIAL): cost.scores,
        (Component.SOFTMAX, Action.ADD): cost.scores,
        (Component.SOFTMAX, Action.RECIPROCAL): head.rows,
        (Component.SOFTMAX, Action.NORMALISE): cost.weighted,
        (Component.VALUE_BUFFER, Action.WRITE_BIT): cost.fetch_bits.get(Fetch.VALUE, 0),
        (Component.VALUE_BUFFER, Action.READ_BIT): value_reads * head.value_bits,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): cost.value_macs,
        (Component.WEIGHTED_SUM, Action.ADD): cost.value_macs,
    }


def rival_energy_pj(
    counts: dict[tuple[Component, Action], int], extra_pj: Iterable[float], config: AcceleratorConfig
) -> float:
    """Energy of the counted actions and of the rival's own parts, in picojoules."""
    return total_pj(energy_pj(counts, action_energies_pj(config))) + math.fsum(extra_pj)


def accelerator_energy_pj(report: Report) -> float:
    """The accelerator's energy without leakage, in picojoules."""
    return math.fsum(
        value
        for actions_pj in report.energy_pj.values()
        for action, value in actions_pj.items()
        if action != Action.LEAK_CYCLE
    )
