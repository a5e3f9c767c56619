"""Payloads of the attention units' streams.

A beat carries one element a lane; the first `count` lanes are valid, and only the `last` beat of a row may be partial.
`row` is the row's number, which the units carry along: rows may leave the softmax in another order.
"""

from __future__ import annotations

from amaranth import signed, unsigned
from amaranth.lib import data

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, SCORE_SHIFT_BITS

# Queries of a group of heads, in the order of issue.
ROW_BITS = 16


class ProductBeat(data.StructLayout):
    """A beat of scores to compute: `count` keys, and a bias a lane in score units."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        lanes = config.softmax.lanes
        super().__init__(
            {
                "bias": data.ArrayLayout(signed(config.formats.score_bits), lanes),
                **_row_fields(lanes, row_bits),
                "second_pass": 1,
            }
        )


class ProductOperands(data.StructLayout):
    """A beat of scores with its operands: a query, a key a lane, the score factor; elements beyond the head dimension
    are 0."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        formats, lanes, head_dim = config.formats, config.softmax.lanes, config.max_head_dim
        super().__init__(
            {
                "query": data.ArrayLayout(signed(formats.query_bits), head_dim),
                "keys": data.ArrayLayout(data.ArrayLayout(signed(formats.key_bits), head_dim), lanes),
                "beat": ProductBeat(config, row_bits),
                "multiplier": SCORE_MULTIPLIER_BITS,
                "shift": SCORE_SHIFT_BITS,
            }
        )


class ScoreBeat(data.StructLayout):
    """Scores; `second_pass` marks a row whose decision is not asked for again."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        lanes = config.softmax.lanes
        super().__init__(
            {
                "lanes": data.ArrayLayout(signed(config.formats.score_bits), lanes),
                **_row_fields(lanes, row_bits),
                "second_pass": 1,
            }
        )


class ProbabilityBeat(data.StructLayout):
    """Probabilities; lanes at and beyond `count` are 0."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        lanes = config.softmax.lanes
        super().__init__(
            {
                "lanes": data.ArrayLayout(unsigned(config.formats.probability_bits), lanes),
                **_row_fields(lanes, row_bits),
            }
        )


class SurvivorPosition(data.StructLayout):
    """Where a survivor of local value selection stood in its row; `last` closes the row."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"position": range(config.capacity), "last": 1})


class FinishedRow(data.StructLayout):
    """A row whose survivors are known, and how many they are."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        super().__init__({"row": unsigned(row_bits), "survivors": range(config.capacity + 1)})


class WeightedOperands(data.StructLayout):
    """A beat of probabilities with a value row a lane; elements beyond the head dimension are 0."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        lanes, head_dim = config.softmax.lanes, config.max_head_dim
        value = signed(config.formats.value_bits)
        super().__init__(
            {
                "values": data.ArrayLayout(data.ArrayLayout(value, head_dim), lanes),
                "beat": ProbabilityBeat(config, row_bits),
            }
        )


class OutputRow(data.StructLayout):
    """A row of the attention output; elements beyond the head dimension are 0."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        super().__init__(
            {
                "elements": data.ArrayLayout(signed(config.formats.output_bits), config.max_head_dim),
                "row": unsigned(row_bits),
            }
        )


def _row_fields(lanes: int, row_bits: int) -> dict[str, object]:
    return {"count": range(lanes + 1), "last": 1, "row": unsigned(row_bits)}
