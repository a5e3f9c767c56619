"""Every constant that the accelerator around the attention unit shares between models and RTL, in one place.

Fetcher shapes, planes, depths and the fixed costs of the phases; `docs/accelerator.md` says what each is for. The
attention unit's own constants are in `topsieve_sim.golden.attention_latency`.
"""

from __future__ import annotations

from enum import IntEnum

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.plane_fetch import COMMAND_SLOTS, PlaneFetchShape

# Rows chosen but not finished by the dot-product array where queries come through a fetcher, each with a slot for its
# query: enough to hide a query's way through the fetcher behind the rows before it.
ISSUE_ROWS_AXI = 4
# Commands whose indices wait for their turn: as many as the fetcher can have taken before it has walked their rows.
INDEX_COMMANDS = COMMAND_SLOTS + 2
# A descriptor in memory.
DESCRIPTOR_BYTES = 128
# A score factor in memory: multiplier, shift.
FACTOR_BYTES = 4
# A record of the report.
REPORT_RECORD_BYTES = 8
# Width of the distance between rows that a fetch command carries.
ROW_STRIDE_BITS = 16

# Sequencer. A phase begins in the first cycle of its state; `docs/accelerator.md`, "Order of the phases".
# The cycle of `start` to the first fetch phase.
START_TO_FETCH = 1
# Handshake of the descriptor's final beat to the clear-and-reset phase: fields, sums, conditions.
DESCRIPTOR_TO_RESET = 3
# Handshake of the factors' final beat to the set-up phase.
FACTORS_TO_SETUP = 1
# The core's `done` to the wait for the writer, and the last cycle of a phase that waits to the next phase.
PHASE_STEP = 1

# Cascade unit. Costs run from a command's handshake to the cycle in which the next command can be taken.
# Clear, reset of the heads, and a pruning that has nothing to do.
CASCADE_COMMAND = 1
# Handshake of a command to its readout command, its first written token or its first record.
CASCADE_FIRST = 1
# A head's accumulator leaves the readout; the beat that it completes is offered.
CASCADE_PACK = 1
# Handshake of a survivor beat to its first survivor in the live list.
CASCADE_SERIALISE = 1
# The last survivor in the live list to the next command: its word of importance is added back in between.
CASCADE_FINISH = 2

# Writer. Handshake of a row to the offer of its first address: the products that the address is the sum of.
ROW_TO_ADDRESS = 1


class KeyValuePlane(IntEnum):
    """Planes of fetcher 0."""

    KEY_MSB = 0
    KEY_LSB = 1
    VALUE = 2
    BYTES = 3


class QueryPlane(IntEnum):
    """Planes of fetcher 1."""

    QUERY = 0


def key_value_fetch_shape(config: AcceleratorConfig) -> PlaneFetchShape:
    """Fetcher 0: keys, values, descriptors and score factors. A beat is one chunk (`lane_split` elements) of a row."""
    formats = config.formats
    # A machine without LSB planes never asks for one; a plane has at least one bit.
    bits = (formats.key_msb_bits, max(formats.key_lsb_bits, 1), formats.value_bits, 8)
    longest = max(config.max_head_dim, DESCRIPTOR_BYTES, FACTOR_BYTES * config.importance.heads)
    return _shape(config, bits, longest)


def query_fetch_shape(config: AcceleratorConfig) -> PlaneFetchShape:
    """Fetcher 1: queries. A beat is one chunk of a query."""
    return _shape(config, (config.formats.query_bits,), config.max_head_dim)


def _shape(config: AcceleratorConfig, element_bits: tuple[int, ...], max_elements: int) -> PlaneFetchShape:
    axi = config.memory.axi
    return PlaneFetchShape(
        lanes=config.dot_product.lane_split,
        element_bits=element_bits,
        data_bits=8 * config.memory.bytes_per_cycle,
        address_bits=axi.address_bits,
        stride_bits=ROW_STRIDE_BITS,
        max_rows=config.capacity,
        max_elements=max_elements,
        max_burst_words=axi.burst_words,
        max_outstanding=axi.outstanding,
        buffer_words=axi.buffer_words,
        merge_bytes=axi.merge_bytes,
    )
