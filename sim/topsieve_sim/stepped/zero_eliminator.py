"""The zero eliminator clock by clock."""

from __future__ import annotations

from typing import Any

from topsieve_sim.golden.zero_eliminator import compact
from topsieve_sim.stepped.pipeline import CreditPipeline
from topsieve_sim.timing.zero_eliminator import zero_eliminator_shape


class ZeroEliminator(CreditPipeline):
    """Beats ((payload per lane), (valid bit per lane), last) in; ((payload per lane), count, last) out.

    Lanes beyond `count` carry `empty`.
    """

    def __init__(self, lanes: int, empty: Any = 0) -> None:
        def eliminate(beat: tuple[tuple[Any, ...], tuple[int, ...], int]) -> tuple[tuple[Any, ...], int, int]:
            payloads, valid, last = beat
            kept, count = compact(payloads, [bool(bit) for bit in valid], empty)
            return kept, count, last

        latency_cycles, depth = zero_eliminator_shape(lanes)
        super().__init__(eliminate, latency_cycles, depth)
