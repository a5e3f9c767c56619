"""Chooses quick-select's pivot from the samples: two registers from samples to pivot."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.topk.networks import registered
from topsieve_sim.golden.topk_pivot import OFFERS_LIMIT, SAMPLES


class PivotChooser(wiring.Component):
    """The sample whose rank is nearest to the wanted one: `topsieve_sim.golden.topk_pivot.choose_pivot`.

    Members
    -------
    start : In(1), choose from what the other inputs hold in this cycle.
    samples, offers : In, of the partition.
    above_target : In, wanted rank from the top, minus one.
    size : In, elements of the partition.
    pivot : Out(score_bits), from the second cycle after `start` until the next choice arrives.
    """

    def __init__(self, score_bits: int, capacity: int) -> None:
        super().__init__(
            {
                "start": In(1),
                "samples": In(data.ArrayLayout(score_bits, SAMPLES)),
                "offers": In(range(OFFERS_LIMIT + 1)),
                "above_target": In(range(capacity + 1)),
                "size": In(range(capacity + 1)),
                "pivot": Out(score_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first, second, third = (registered(m, self.samples[n], f"sample_{n}") for n in range(SAMPLES))
        first_second = registered(m, self.samples[0] >= self.samples[1], "first_second")
        first_third = registered(m, self.samples[0] >= self.samples[2], "first_third")
        second_third = registered(m, self.samples[1] >= self.samples[2], "second_third")
        single = registered(m, self.offers == 1, "single")
        pair = registered(m, self.offers == 2, "pair")
        target = self.above_target + 1
        upper_half = registered(m, (target << 1) <= self.size, "upper_half")
        upper_quarter = registered(m, (target << 2) <= self.size, "upper_quarter")
        lower_quarter = registered(m, (target << 2) > self.size + (self.size << 1), "lower_quarter")
        started = registered(m, self.start, "started")

        wants_high = Mux(pair, upper_half, upper_quarter)
        wants_low = Mux(pair, ~upper_half, lower_quarter)
        # Ranks among the three; with two samples the third takes no part.
        first_high = first_second & (pair | first_third)
        second_high = ~first_second & (pair | second_third)
        first_low = ~first_second & (pair | ~first_third)
        second_low = first_second & (pair | ~second_third)
        takes_first, takes_second = Signal(), Signal()
        m.d.comb += [
            takes_first.eq(single | Mux(wants_high, first_high, Mux(wants_low, first_low, ~first_high & ~first_low))),
            takes_second.eq(
                ~single & Mux(wants_high, second_high, Mux(wants_low, second_low, ~second_high & ~second_low))
            ),
        ]
        with m.If(started):
            m.d.sync += self.pivot.eq(Mux(takes_first, first, Mux(takes_second, second, third)))
        return m
