"""Area of the machine by component, from its configuration and a technology table."""

from __future__ import annotations

from topsieve_sim.arch import AcceleratorConfig, SelectorKind
from topsieve_sim.energy.actions import SCORE_FACTOR_BITS, cascade_score_bits, memory_bits
from topsieve_sim.energy.components import Component
from topsieve_sim.energy.reference import ReferenceTables
from topsieve_sim.energy.technology import technology_of


def area_um2(config: AcceleratorConfig) -> dict[Component, float]:
    """Area in square micrometres of each component; pads and the DRAM itself are not in it.

    Read from the reference tables that `config.technology` names, or composed of cells and macros, times the table's
    calibration. Without one, wires and clock tree are not in it either.

    Arrays: a multiplier and an adder a multiplier, a score scaler a lane. Softmax: a lane has a comparator, a
    subtractor, an interpolating exponential, a sum adder and a normalising multiplier; one reciprocal serves all. Top-k:
    two comparators an element (SpAtten, section IV-B) and, for each of three compactors, log2 levels of registers; radix
    selection has no partitions to compact, but a counter for each digit value and a one-bit adder for each element and value. Early
    termination: a lane has an interpolating exponential, a sum adder and two comparators more, and one compactor moves the
    stored sums; the top-k engine of values is not there. Shared buffers: two addresses a head in each.

    Raises
    ------
    InputError
        `config.technology` names no table, or a file that is none.
    """
    table = technology_of(config.technology)
    if isinstance(table, ReferenceTables):
        return dict(table.areas_um2)
    formats = config.formats

    def multiplier(first: int, second: int) -> float:
        return table.value("multiplier", "area", max(first, 1), max(second, 1))

    def adder(bits: int) -> float:
        return table.value("adder", "area", bits)

    def comparator(bits: int) -> float:
        return table.value("comparator", "area", bits)

    def registers(bits: int) -> float:
        return table.value("register", "area", bits)

    def topk(bits: int) -> float:
        parallelism = config.topk.parallelism
        levels = max(parallelism - 1, 0).bit_length()
        if config.topk.selector is SelectorKind.RADIX:
            values, count_bits = 1 << config.topk.radix_bits, config.capacity.bit_length()
            histogram = values * (registers(count_bits) + adder(count_bits) + parallelism * adder(1))
            return parallelism * 2 * comparator(bits) + registers(parallelism * levels * bits) + histogram
        return parallelism * 2 * comparator(bits) + 3 * registers(parallelism * levels * bits)

    lanes = config.softmax.lanes
    successor = config.successor
    dot_bits = formats.dot_product_bits(config.max_head_dim)
    interpolation_bits = formats.score_fraction_bits - formats.exponential_table_bits
    # Begin and end of each head's rows.
    heads = (
        2 * registers(successor.buffered_heads * (2 * config.capacity).bit_length())
        if successor.buffered_heads
        else 0.0
    )
    bound = 0.0
    if successor.terminates:
        bound = lanes * (
            2 * comparator(formats.score_bits)
            + adder(formats.score_bits)
            + multiplier(formats.exponential_bits, interpolation_bits)
            + adder(formats.exponential_bits)
            + adder(formats.row_sum_bits(config.capacity))
        ) + registers(lanes * max(lanes - 1, 0).bit_length() * dot_bits)
    logic = {
        Component.DOT_PRODUCT: config.dot_product.multipliers
        * (multiplier(formats.query_bits, formats.key_bits) + adder(dot_bits))
        + lanes * multiplier(dot_bits, SCORE_FACTOR_BITS)
        + registers(config.max_head_dim * formats.query_bits),
        Component.KEY_BUFFER: heads,
        Component.SOFTMAX: lanes
        * (
            comparator(formats.score_bits)
            + adder(formats.score_bits)
            + multiplier(formats.exponential_bits, interpolation_bits)
            + adder(formats.exponential_bits)
            + adder(formats.row_sum_bits(config.capacity))
            + multiplier(formats.exponential_bits, formats.reciprocal_bits)
        )
        + multiplier(formats.reciprocal_bits, formats.reciprocal_bits)
        + bound,
        Component.VALUE_TOPK: 0.0 if successor.terminates else topk(formats.probability_bits),
        Component.WEIGHTED_SUM: config.weighted_sum.multipliers
        * (
            multiplier(formats.probability_bits, formats.value_bits)
            + adder(formats.output_accumulator_bits(config.capacity))
        )
        + registers(config.max_head_dim * formats.output_accumulator_bits(config.capacity)),
        Component.VALUE_BUFFER: heads,
        Component.IMPORTANCE: lanes * adder(formats.token_importance_bits)
        + adder(formats.head_importance_bits)
        + registers(config.importance.heads * formats.head_importance_bits),
        Component.CASCADE_TOPK: topk(cascade_score_bits(config)),
        Component.FETCHER: 0.0,
    }
    memories = memory_bits(config)
    return {
        component: table.area_factor(component)
        * (value + (table.value("sram", "area", memories[component]) if memories.get(component) else 0.0))
        for component, value in logic.items()
    }
