"""One attention group as the machine sees it: counts, what the data decided, where the operands stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.timing.operand_layout import OperandLayout, packed_layout
from topsieve_sim.timing.operand_requests import GroupAddresses


@dataclass(frozen=True, kw_only=True)
class AttentionGroup:
    """One attention group: `heads` key-value heads in sequence, `queries` rows each.

    With grouped-query attention, `heads` counts key-value heads and `queries` the rows of all query heads that share
    one. `kept` < `keys` asks for local value selection: with one query a head only the survivors' value rows are
    fetched and weighted; with more, the head's values are resident and pruned probabilities are zeros.

    Parameters
    ----------
    lsb_flags : rows whose first pass is discarded, bool [heads * queries] or one bool for all.
    select_cycles : cycles of the top-k engine's selector, command to result (`golden.topk.select_cycles`), int
        [heads * queries] or one number; unused when all are kept.
    flush_cycles : 1 for rows whose survivors overflow the packer with the last filtered row
        (`golden.attention.flush_cycles`), else 0; int [heads * queries] or one number.
    row_keys : keys each row attends to (a prefix; causal masks), int [heads * queries]; default `keys`.
    progressive : the key planes stay until the decision; default: a second pass is possible (`key_lsb_bits` > 0 and
        enabled in the configuration).
    query_bits, key_msb_bits, key_lsb_bits, value_bits : default to the configuration's formats, which are always the widths
        in the memory of a machine with fetchers.
    layout : where the operands stand, for a machine with fetchers; default: `packed_layout`.
    """

    heads: int
    queries: int
    keys: int
    kept: int
    head_dim: int
    lsb_flags: NDArray[np.bool_] | bool = False
    select_cycles: NDArray[np.int64] | int = 0
    flush_cycles: NDArray[np.int64] | int = 0
    row_keys: NDArray[np.int64] | None = None
    progressive: bool | None = None
    query_bits: int | None = None
    key_msb_bits: int | None = None
    key_lsb_bits: int | None = None
    value_bits: int | None = None
    layout: OperandLayout | None = None

    def check(self, config: AcceleratorConfig) -> None:
        """Raise `InputError` where the machine cannot run this group."""
        for name, value, low, high in (
            ("heads", self.heads, 1, 1 << 20),
            ("queries", self.queries, 1, 1 << 24),
            ("keys", self.keys, 1, config.capacity),
            ("kept", self.kept, 1, self.keys),
            ("head_dim", self.head_dim, 1, config.max_head_dim),
        ):
            if not low <= value <= high:
                raise InputError(
                    "out of range", source="attention group", field=name, value=value, allowed=f"{low} to {high}"
                )
        rows = self.heads * self.queries
        for name, array in (
            ("lsb_flags", self.lsb_flags),
            ("select_cycles", self.select_cycles),
            ("flush_cycles", self.flush_cycles),
            ("row_keys", self.row_keys),
        ):
            if isinstance(array, np.ndarray) and array.shape != (rows,):
                raise InputError(
                    "wrong shape", source="attention group", field=name, value=array.shape, allowed=f"({rows},)"
                )
        if self.row_keys is not None and not (self.row_keys.min() >= 1 and self.row_keys.max() <= self.keys):
            raise InputError(
                "out of range", source="attention group", field="row_keys", allowed=f"1 to keys = {self.keys}"
            )
        if np.any(self.lsb_flags) and not self._progressive(config):
            raise InputError(
                "rows ask for the LSB plane of a group without progressive quantisation",
                source="attention group",
                field="lsb_flags",
            )

    def addresses(self, config: AcceleratorConfig) -> GroupAddresses:
        """Where the operands stand, as the compiled kernel takes it."""
        rows = self.heads * self.queries
        layout = self.layout or packed_layout(config, self.heads, rows, self.keys, self.head_dim)
        fetched = self.kept < self.keys and self.queries == 1
        return GroupAddresses(
            layout.heads,
            layout.row_bytes,
            layout.query,
            layout.tokens is not None,
            np.zeros(0, np.int64) if layout.tokens is None else layout.tokens,
            layout.survivor_rows(self.keys, self.kept, rows) if fetched else np.zeros((0, 0), np.int64),
            layout.output,
        )

    def _width(self, name: str, config: AcceleratorConfig) -> int:
        own, width = getattr(self, name), getattr(config.formats, name)
        return int(width if own is None or config.memory.has_fetchers else own)

    def _lsb_bits(self, config: AcceleratorConfig) -> int:
        return self._width("key_lsb_bits", config)

    def _progressive(self, config: AcceleratorConfig) -> bool:
        possible = config.progressive.enabled and self._lsb_bits(config) > 0
        return possible if self.progressive is None else self.progressive and self._lsb_bits(config) > 0

    def shape(self, config: AcceleratorConfig) -> tuple[int, ...]:
        """The line of scalars that the compiled kernel takes."""
        lanes = config.softmax.lanes
        return (
            config.dot_product.interval_cycles(lanes, self.head_dim),
            config.weighted_sum.interval_cycles(lanes, self.head_dim),
            self.heads,
            self.queries,
            self.keys,
            self.kept,
            self.head_dim,
            self._width("query_bits", config),
            self._width("key_msb_bits", config),
            self._lsb_bits(config),
            self._width("value_bits", config),
            config.formats.output_bits,
            int(self._progressive(config)),
            operand_banks(config, self.keys),
        )


def operand_banks(config: AcceleratorConfig, keys: int) -> int:
    """Heads whose keys and values are on chip at once: the machine's banks, or more short heads that share them."""
    banks = 2 if config.double_buffer else 1
    return max(banks, min(config.successor.buffered_heads, banks * config.capacity // keys))
