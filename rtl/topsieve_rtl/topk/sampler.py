"""Pivot samples: the hardware of `topsieve_sim.golden.topk_pivot`."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.topk.networks import lowest_set, one_hot_select, registered
from topsieve_sim.golden.topk_pivot import (
    CHANCE_BITS,
    CHANCE_SHIFT,
    LFSR_BITS,
    LFSR_POLYNOMIAL,
    LFSR_STEPS,
    OFFERS_LIMIT,
    SAMPLES,
    SLOT_SHIFT,
)


def lfsr_after_row(state: Value) -> Value:
    """The LFSR's state one row later: `LFSR_STEPS` Galois steps as one layer of XORs."""
    bits = list(state)
    for _ in range(LFSR_STEPS):
        out = bits[0]
        bits = [
            (bits[i + 1] if i + 1 < LFSR_BITS else 0) ^ (out if LFSR_POLYNOMIAL >> i & 1 else 0)
            for i in range(LFSR_BITS)
        ]
    return Cat(*(bit if isinstance(bit, Value) else Value.cast(bit)[:1] for bit in bits))


class Sampler(wiring.Component):
    """Offers one masked lane of each row to three sample registers; they show it two cycles later.

    Members
    -------
    start : In(1), a row is on `row`.
    first : In(1), it is the first row of a partition; earlier samples are forgotten.
    row : In(ArrayLayout(score, lanes))
    mask : In(lanes), the lanes that belong to the partition.
    state : In(16), the LFSR's state for this row.
    samples : Out(ArrayLayout(score, 3))
    offers : Out(range), elements offered so far, at most `OFFERS_LIMIT`.
    """

    def __init__(self, score_bits: int, lanes: int) -> None:
        self.score_bits = score_bits
        self.lanes = lanes
        super().__init__(
            {
                "start": In(1),
                "first": In(1),
                "row": In(data.ArrayLayout(score_bits, lanes)),
                "mask": In(lanes),
                "state": In(LFSR_BITS),
                "samples": Out(data.ArrayLayout(score_bits, SAMPLES)),
                "offers": Out(range(OFFERS_LIMIT + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.lanes
        start_lane = self.state[: max(lanes - 1, 0).bit_length()]
        above = Signal(lanes)
        m.d.comb += above.eq(self.mask & Cat(start_lane <= lane for lane in range(lanes)))
        chosen = registered(m, Mux(above.any(), lowest_set(above), lowest_set(self.mask)), "chosen")
        row = Signal(self.row.shape(), name="row_later")
        first = registered(m, self.first, "first_later")
        started = registered(m, self.start, "start_later")
        state = registered(m, self.state, "state_later")
        m.d.sync += row.eq(self.row)

        offers = Signal.like(self.offers)
        m.d.comb += offers.eq(Mux(first, 0, self.offers))
        # Chance bit i counts once there were 4 * 2^i offers.
        needed = Cat(offers[bit + 2 :].any() for bit in range(CHANCE_BITS))
        kept = (state[CHANCE_SHIFT : CHANCE_SHIFT + CHANCE_BITS] & needed) == 0
        drawn = state[SLOT_SHIFT : SLOT_SHIFT + 2]
        slot = Signal(2)
        m.d.comb += slot.eq(Mux(offers < SAMPLES, offers[:2], Mux(drawn == 3, 1, drawn)))
        offered = started & chosen.any()
        value = one_hot_select(chosen, [row[lane] for lane in range(lanes)])
        for place in range(SAMPLES):
            with m.If(offered & kept & (slot == place)):
                m.d.sync += self.samples[place].eq(value)
        with m.If(started):
            m.d.sync += self.offers.eq(offers + (chosen.any() & (offers != OFFERS_LIMIT)))
        return m
