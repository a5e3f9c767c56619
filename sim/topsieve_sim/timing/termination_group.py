"""A decoding group whose keys end early, as the machine sees it: counts, and what the bounds decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import beats, termination_latencies
from topsieve_sim.timing.attention_group import operand_banks


class TerminationShape(NamedTuple):
    """The scalars that the compiled kernel takes.

    `operand_banks` heads have operands on chip at once; `row_slots` rows have their first-pass sums there.
    """

    product_interval: int
    weighted_interval: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    query_bits: int
    key_msb_bits: int
    key_lsb_bits: int
    value_bits: int
    output_bits: int
    operand_banks: int
    row_slots: int
    tile_beats: int


def tile_counts(candidates: NDArray[np.bool_], config: AcceleratorConfig) -> NDArray[np.int64]:
    """Candidates of each tile, int64 [heads, tiles], of `candidates` bool [heads, keys]."""
    tile = config.successor.tile_keys or candidates.shape[1]
    return np.add.reduceat(candidates.astype(np.int64), np.arange(0, candidates.shape[1], tile), axis=1)


@dataclass(frozen=True, kw_only=True)
class TerminationGroup:
    """`heads` key-value heads in sequence, `queries` rows each: the query heads that share it, one query each.

    Parameters
    ----------
    candidates : int64 [heads, tiles], keys of each tile that any row needs (`tile_counts`); at least one a head.
    whole : bool [heads], heads whose candidates need their LSB plane.
    query_bits, key_msb_bits, key_lsb_bits, value_bits : in memory; default: the configuration's formats.
    """

    heads: int
    queries: int
    keys: int
    head_dim: int
    candidates: NDArray[np.int64]
    whole: NDArray[np.bool_]
    query_bits: int | None = None
    key_msb_bits: int | None = None
    key_lsb_bits: int | None = None
    value_bits: int | None = None

    def check(self, config: AcceleratorConfig) -> None:
        """Raise `InputError` where the machine cannot run this group."""
        source = "attention group"
        for name, value, high in (
            ("heads", self.heads, 1 << 20),
            ("keys", self.keys, config.capacity),
            ("head_dim", self.head_dim, config.max_head_dim),
            ("queries", self.queries, partial_rows(config, self.keys)),
        ):
            if not 1 <= value <= high:
                raise InputError("out of range", source=source, field=name, value=value, allowed=f"1 to {high}")
        tile = config.successor.tile_keys or self.keys
        tiles = -(-self.keys // tile)
        if self.candidates.shape != (self.heads, tiles) or self.whole.shape != (self.heads,):
            raise InputError(
                "wrong shape",
                source=source,
                field="candidates and whole",
                value=(self.candidates.shape, self.whole.shape),
                allowed=f"{(self.heads, tiles)} and {(self.heads,)}",
            )
        room = np.minimum(tile, self.keys - tile * np.arange(tiles))
        if (self.candidates < 0).any() or (self.candidates > room).any() or (self.candidates.sum(axis=1) < 1).any():
            raise InputError(
                "out of range", source=source, field="candidates", allowed="up to the keys of a tile, one a head"
            )

    def shape(self, config: AcceleratorConfig) -> TerminationShape:
        """The line of scalars that the compiled kernel takes."""
        lanes, formats = config.softmax.lanes, config.formats
        banks = operand_banks(config, self.keys)

        def width(name: str) -> int:
            own = getattr(self, name)
            return int(getattr(formats, name) if own is None else own)

        return TerminationShape(
            product_interval=config.dot_product.interval_cycles(lanes, self.head_dim),
            weighted_interval=config.weighted_sum.interval_cycles(lanes, self.head_dim),
            heads=self.heads,
            queries=self.queries,
            keys=self.keys,
            head_dim=self.head_dim,
            query_bits=width("query_bits"),
            key_msb_bits=width("key_msb_bits"),
            key_lsb_bits=width("key_lsb_bits"),
            value_bits=width("value_bits"),
            output_bits=formats.output_bits,
            operand_banks=banks,
            # No more heads between bound and output than have room for candidates.
            row_slots=min(partial_rows(config, self.keys), banks * self.queries),
            tile_beats=termination_latencies(config).tile_beats or beats(self.keys, lanes),
        )


def partial_rows(config: AcceleratorConfig, keys: int) -> int:
    """Rows of `keys` keys whose first-pass sums the machine can hold."""
    return termination_latencies(config).partial_beats // beats(keys, config.softmax.lanes)
