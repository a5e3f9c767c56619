"""Payloads and strobes of the attention core's ports; `docs/accelerator.md`, section "Attention core"."""

from __future__ import annotations

from amaranth.lib import data

from topsieve_rtl.attention.words import WordGeometry
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import ROW_STRIDE_BITS
from topsieve_sim.golden.attention_latency import attention_latencies, beats
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, SCORE_SHIFT_BITS


class RowNumber(data.StructLayout):
    """Number of an output row: the query and the query head's slot, `slot of the key-value head x group + member`."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"query": range(config.capacity), "head": range(config.importance.heads)})


class CoreRow(data.StructLayout):
    """A row inside the core: its number and the operand bank of its head."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"number": RowNumber(config), "bank": range(attention_latencies(config).banks)})


class AttentionJob(data.StructLayout):
    """One layer of one sequence, after its checks.

    `heads` key-value heads are live, at least 1; `queries` rows for each of the `group` query heads that share one, at most
    `capacity`. `keys` is the row length, `kept_values` 0 or the survivors of local value selection. `product_words` and
    `weighted_words` are the operand words of a beat in the two arrays (`ArrayConfig.interval_cycles`).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        lanes, head_dim, address = config.softmax.lanes, config.max_head_dim, config.memory.axi.address_bits
        super().__init__(
            {
                "keys": range(config.capacity + 1),
                "queries": range(config.capacity + 1),
                "heads": range(config.importance.heads + 1),
                "group": range(config.importance.heads + 1),
                "head_dim": range(head_dim + 1),
                "kept_values": range(config.capacity + 1),
                "causal": 1,
                "progressive": 1,
                "live_tokens": 1,
                "live_queries": 1,
                "threshold": config.formats.probability_bits + 1,
                "query_row_bytes": ROW_STRIDE_BITS,
                "key_msb_row_bytes": ROW_STRIDE_BITS,
                "key_lsb_row_bytes": ROW_STRIDE_BITS,
                "value_row_bytes": ROW_STRIDE_BITS,
                "query_head_bytes": address,
                "product_words": range(WordGeometry(config.dot_product, lanes, head_dim).words + 1),
                "weighted_words": range(WordGeometry(config.weighted_sum, lanes, head_dim).words + 1),
            }
        )


class HeadWrite(data.StructLayout):
    """A live key-value head: addresses of its key planes, of its values and of its first query head's queries."""

    def __init__(self, config: AcceleratorConfig) -> None:
        address = config.memory.axi.address_bits
        names = ("key_msb", "key_lsb", "value", "query")
        super().__init__({"valid": 1, "slot": range(config.importance.heads), **dict.fromkeys(names, address)})


class FactorWrite(data.StructLayout):
    """The score factor of a live query head."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "valid": 1,
                "slot": range(config.importance.heads),
                "multiplier": SCORE_MULTIPLIER_BITS,
                "shift": SCORE_SHIFT_BITS,
            }
        )


class TokenWrite(data.StructLayout):
    """A place of the live list."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"valid": 1, "position": range(config.capacity), "token": range(config.capacity)})


class ProbabilityTap(data.StructLayout):
    """A beat of probabilities on its way, 0 beyond the row's end, and its place in the row."""

    def __init__(self, config: AcceleratorConfig) -> None:
        lanes = config.softmax.lanes
        super().__init__(
            {
                "valid": 1,
                "lanes": data.ArrayLayout(config.formats.probability_bits, lanes),
                "word": range(beats(config.capacity, lanes)),
            }
        )


class BankRow(data.StructLayout):
    """A strobe for a row of the head in `bank`."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"valid": 1, "bank": range(attention_latencies(config).banks)})
