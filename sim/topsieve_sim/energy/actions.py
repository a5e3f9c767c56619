"""What the machine's components do, counted, and what each action costs on a given machine.

An action's energy is composed from the primitives of a technology table at the widths of the configuration. The engine
counts actions; `energy_pj` multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from topsieve_sim.arch import AcceleratorConfig, SelectorKind
from topsieve_sim.energy.components import Action, Component, Counts, Key
from topsieve_sim.energy.reference import ReferenceTables
from topsieve_sim.energy.tables import TechnologyTable
from topsieve_sim.energy.technology import technology_of

# Widths that the score scaling and the reciprocal use, stated in `topsieve_sim.arch.formats`.
SCORE_FACTOR_BITS = 16


def memory_bits(config: AcceleratorConfig) -> dict[Component, int]:
    """On-chip memory of each component in bits.

    Key and value buffers and the softmax's row buffer follow the configuration (doubled with `double_buffer`). A top-k
    engine holds the original stream and the two partitions, `capacity` elements each (SpAtten, section IV-B); one with radix
    selection reads the stream again and has no partitions. The fetcher
    has, a channel, 64 addresses of 8 bytes and 64 beats of data (SpAtten, section IV-A). A machine that ends keys early
    has no top-k engine for values, and a store of first-pass sums beside the softmax.
    """
    formats = config.formats
    copies = 2 if config.double_buffer else 1
    rows = config.capacity * config.max_head_dim
    score_entry = formats.score_bits + formats.exponential_bits
    streams = 1 if config.topk.selector is SelectorKind.RADIX else 3
    ends = config.successor.terminates
    sums = config.successor.partial_rows * config.capacity * formats.dot_product_bits(config.max_head_dim)
    return {
        Component.KEY_BUFFER: copies * rows * formats.key_bits,
        Component.VALUE_BUFFER: copies * rows * formats.value_bits,
        Component.SOFTMAX: copies * config.capacity * score_entry + (sums if ends else 0),
        Component.VALUE_TOPK: 0 if ends else streams * config.capacity * formats.probability_bits,
        Component.CASCADE_TOPK: streams * config.capacity * cascade_score_bits(config),
        Component.IMPORTANCE: config.capacity * formats.token_importance_bits,
        Component.FETCHER: config.memory.channels * 64 * (64 + 8 * config.memory.beat_bytes),
    }


def cascade_score_bits(config: AcceleratorConfig) -> int:
    """Width of the second top-k engine, which serves tokens and heads."""
    return max(config.formats.token_importance_bits, config.formats.head_importance_bits)


def action_energies_pj(config: AcceleratorConfig) -> dict[Key, float]:
    """Energy of one occurrence of every action, in picojoules.

    Read from the reference tables that `config.technology` names, or composed from its primitives at the widths of the
    configuration, times the table's calibration.

    Raises
    ------
    InputError
        `config.technology` names no table, or a file that is none.
    """
    technology = technology_of(config.technology)
    if isinstance(technology, ReferenceTables):
        return dict(technology.energies_pj)
    return {
        (component, action): value * technology.energy_factor(component, action)
        for (component, action), value in _composed(config, technology).items()
    }


def _composed(config: AcceleratorConfig, table: TechnologyTable) -> dict[Key, float]:
    """Energies from the primitives of `table`, not calibrated."""
    formats = config.formats
    dot_bits = formats.dot_product_bits(config.max_head_dim)
    interpolation_bits = formats.score_fraction_bits - formats.exponential_table_bits
    cascade_bits = cascade_score_bits(config)
    sram_read, sram_write = table.value("sram", "read", 1), table.value("sram", "write", 1)
    dram = table.value("dram", "access", 1)

    def multiply(first: int, second: int) -> float:
        return table.value("multiplier", "multiply", max(first, 1), max(second, 1))

    def add(bits: int) -> float:
        return table.value("adder", "add", bits)

    def compare(bits: int) -> float:
        return table.value("comparator", "compare", bits)

    energies = {
        (Component.DOT_PRODUCT, Action.MULTIPLY): multiply(formats.query_bits, formats.key_bits),
        (Component.DOT_PRODUCT, Action.ADD): add(dot_bits),
        (Component.DOT_PRODUCT, Action.SCALE): multiply(dot_bits, SCORE_FACTOR_BITS),
        (Component.SOFTMAX, Action.COMPARE): compare(formats.score_bits),
        (Component.SOFTMAX, Action.ADD): add(formats.row_sum_bits(config.capacity)),
        (Component.SOFTMAX, Action.EXPONENTIAL): multiply(formats.exponential_bits, interpolation_bits)
        + add(formats.score_bits)
        + add(formats.exponential_bits),
        (Component.SOFTMAX, Action.RECIPROCAL): multiply(formats.reciprocal_bits, formats.reciprocal_bits)
        + add(formats.reciprocal_bits),
        (Component.SOFTMAX, Action.NORMALISE): multiply(formats.exponential_bits, formats.reciprocal_bits),
        (Component.VALUE_TOPK, Action.COMPARE): compare(formats.probability_bits),
        (Component.WEIGHTED_SUM, Action.MULTIPLY): multiply(formats.probability_bits, formats.value_bits),
        (Component.WEIGHTED_SUM, Action.ADD): add(formats.output_accumulator_bits(config.capacity)),
        (Component.IMPORTANCE, Action.ADD): add(formats.token_importance_bits),
        (Component.CASCADE_TOPK, Action.COMPARE): compare(cascade_bits),
        # A bit enters and leaves the channel's FIFO; wires and crossbar have no row in any table.
        (Component.FETCHER, Action.TRANSFER_BIT): sram_write + sram_read,
        (Component.DRAM, Action.READ_BIT): dram,
        (Component.DRAM, Action.WRITE_BIT): dram,
        (Component.DRAM, Action.TRANSFER_BIT): table.value("dram", "transfer", 1),
        (Component.DRAM, Action.ACTIVATE): table.value("dram", "activate"),
    }
    leak_pj_per_bit_cycle = table.value("sram", "leak", 1) * 1000.0 / config.clock_mhz
    for component, bits in memory_bits(config).items():
        if component is not Component.FETCHER:
            energies[component, Action.READ_BIT] = sram_read
            energies[component, Action.WRITE_BIT] = sram_write
        energies[component, Action.LEAK_CYCLE] = leak_pj_per_bit_cycle * bits
    return energies


def energy_pj(counts: Counts, energies: Mapping[Key, float]) -> dict[Component, dict[Action, float]]:
    """Energy of `counts` in picojoules by component and action; `energies` is from `action_energies_pj`."""
    result: dict[Component, dict[Action, float]] = {}
    for component in Component:
        for action in Action:
            count = counts.get((component, action), 0)
            if count:
                result.setdefault(component, {})[action] = count * energies[component, action]
    return result


def total_pj(energy: Mapping[Component, Mapping[Action, float]]) -> float:
    """Sum over all components and actions, in picojoules."""
    return math.fsum(value for actions in energy.values() for value in actions.values())


def hbm_energy_pj(bits: int, activations: int, energies: Mapping[Key, float]) -> float:
    """DRAM energy where row activations are known: 909 pJ each and 3.48 pJ a bit for HBM2 (O'Connor et al., MICRO 2017).

    `energies` is from `action_energies_pj`. The ideal memory has no rows, so the engine books bits at the average of
    3.92 pJ, which holds the activations of typical traffic.
    """
    return (
        energies[Component.DRAM, Action.ACTIVATE] * activations + energies[Component.DRAM, Action.TRANSFER_BIT] * bits
    )
