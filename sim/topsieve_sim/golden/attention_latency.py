"""Every fixed latency, FIFO depth and bank count of the attention unit, in one place.

Stepped reference, fast timing and RTL read these and nothing else; `docs/attention-unit.md` derives each formula.
A latency counts register stages from the cycle of the input handshake to the first cycle in which the result can be
used; the write into an output FIFO is the last stage.
"""

from __future__ import annotations

from typing import NamedTuple

from topsieve_sim.arch.config import AcceleratorConfig, MemoryModel
from topsieve_sim.golden.accelerator_latency import ISSUE_ROWS_AXI
from topsieve_sim.golden.topk_latency import LOAD_TO_COMMAND, filter_stages, zero_eliminator_stages

# A word of accumulators is read, added to and written back: address, RAM output, adder.
IMPORTANCE_UPDATE = 3
# A word is read out: address, RAM output, FIFO.
IMPORTANCE_READOUT = 2
# Rows chosen but not finished by the dot-product array: the running one and the next, whose query is there at once.
ISSUE_ROWS = 2
# With request ports before a DRAM: enough rows that a query comes from memory before its row's turn.
ISSUE_ROWS_DRAM = 8
# From a survivor beat's handshake to the cycle in which the survivor bank can deliver it: write, read.
SURVIVOR_READ = 2
# Finished output rows the weighted-sum array can hold.
OUTPUT_ROWS = 4


def tree_levels(inputs: int) -> int:
    """Registered levels of a binary adder or comparator tree over `inputs` operands."""
    return max(inputs - 1, 0).bit_length()


def beats(elements: int, lanes: int) -> int:
    """Beats that carry `elements` elements, `lanes` a beat."""
    return -(-elements // lanes)


_ISSUE_ROWS = {MemoryModel.IDEAL: ISSUE_ROWS, MemoryModel.AXI: ISSUE_ROWS_AXI, MemoryModel.DRAM: ISSUE_ROWS_DRAM}


class AttentionLatencies(NamedTuple):
    """Cycles and depths of one configuration; a tuple of integers so that compiled code can take it whole.

    `dot_product` and `weighted_sum` are for an interval of one cycle; a longer interval adds `interval - 1` cycles,
    because the result is complete with the last of the words.
    """

    lanes: int
    banks: int
    issue_rows: int
    score_beats: int
    exponential_beats: int
    row_slots: int
    dot_product: int
    dot_product_depth: int
    softmax_fill: int
    exponential: int
    reciprocal: int
    normalise: int
    normalise_depth: int
    topk_lanes: int
    topk_command: int
    topk_filter: int
    survivor_banks: int
    weighted_sum: int
    output_rows: int


def attention_latencies(config: AcceleratorConfig) -> AttentionLatencies:
    """The latencies of `config`, in cycles."""
    lanes = config.softmax.lanes
    scored = config.dot_product.multipliers // config.dot_product.lane_split
    weighted = config.weighted_sum.multipliers // config.weighted_sum.lane_split
    # Key word read, operand register (products stand before the tree), trees in a segment and over a lane's segments,
    # accumulator, score factor, rounding, bias.
    dot_product = 1 + 1 + tree_levels(config.dot_product.lane_split) + tree_levels(max(scored // lanes, 1)) + 4
    # Row buffer read, product with the reciprocal's mantissa, shift and rounding.
    normalise = 1 + 1 + 1
    # Row buffer read, subtraction, table read, interpolation product, rounding; adder tree, running sum.
    exponential = 5 + tree_levels(lanes) + 1
    # Leading-one search, normalising shift, table read, interpolation product, rounding and threshold comparison.
    reciprocal = 5
    banks = 2 if config.double_buffer else 1
    row_beats = banks * beats(config.capacity, lanes)
    return AttentionLatencies(
        lanes=lanes,
        banks=banks,
        issue_rows=_ISSUE_ROWS[config.memory.model],
        score_beats=row_beats,
        exponential_beats=row_beats,
        # Rows of a single beat must not wait for the latency of the rows before them.
        row_slots=1 << tree_levels(exponential + reciprocal + 2),
        dot_product=dot_product,
        dot_product_depth=dot_product + 2,
        # Comparator tree over the lanes, running maximum.
        softmax_fill=tree_levels(lanes) + 1,
        exponential=exponential,
        reciprocal=reciprocal,
        normalise=normalise,
        normalise_depth=normalise + 2,
        topk_lanes=config.topk.parallelism,
        topk_command=LOAD_TO_COMMAND,
        # Filter, output FIFO, survivor bank: a row's survivors can be read once its last beat is in.
        topk_filter=filter_stages(config.topk.parallelism) + 1 + SURVIVOR_READ,
        # Rows in the engine's own banks, one that is weighted and one whose values are fetched.
        survivor_banks=banks + 2,
        # Value word read, operand register, tree over the rows of a word, accumulator, rounding.
        weighted_sum=1 + 1 + tree_levels(min(lanes, weighted)) + 1 + 1,
        output_rows=OUTPUT_ROWS,
    )


class ImportanceLatencies(NamedTuple):
    """Cycles of an accumulator unit: from a beat to its landing in memory, and of the readout with its FIFO."""

    add: int
    readout: int
    readout_depth: int


def token_importance_latencies() -> ImportanceLatencies:
    """The column sums: probabilities are added as they come."""
    return ImportanceLatencies(IMPORTANCE_UPDATE, IMPORTANCE_READOUT, IMPORTANCE_READOUT + 2)


def head_importance_latencies(config: AcceleratorConfig) -> ImportanceLatencies:
    """The absolute sums of output rows: magnitudes and a tree over the head dimensions come first."""
    return ImportanceLatencies(
        1 + tree_levels(config.max_head_dim) + IMPORTANCE_UPDATE, IMPORTANCE_READOUT, IMPORTANCE_READOUT + 2
    )


class TerminationLatencies(NamedTuple):
    """Cycles and sizes of what early termination adds (`docs/successor.md`).

    bound : from a score beat to the candidates of the tile that it ends. compact : from the last beat read of a row's sums to
    the cycle in which the row can be picked again. partial_beats : beats of first-pass sums that the store holds. tile_beats :
    beats of a tile; 0 = the row is one.
    """

    bound: int
    compact: int
    partial_beats: int
    tile_beats: int


def termination_latencies(config: AcceleratorConfig) -> TerminationLatencies:
    """The latencies of `config`, in cycles."""
    lanes = config.softmax.lanes
    successor = config.successor
    return TerminationLatencies(
        # Maximum over the lanes, subtraction, table, product, rounding, tree, shift and sum; logarithm, border, comparison.
        bound=tree_levels(lanes) + 4 + tree_levels(lanes) + 1 + 3,
        # Store read, prefix count and shifts, row register.
        compact=1 + zero_eliminator_stages(lanes) + 1,
        partial_beats=successor.partial_rows * beats(config.capacity, lanes),
        tile_beats=successor.tile_keys // lanes,
    )
