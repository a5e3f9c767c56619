"""1 / row sum by leading one, table and interpolation, with the progressive decision."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import round_half_up_shift
from topsieve_rtl.attention.exponential import table_memory
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import NumberFormats
from topsieve_sim.golden.softmax import softmax_parameters
from topsieve_sim.golden.tables import reciprocal_table


class Reciprocal(wiring.Component):
    """Golden `reciprocal_of`, a sum a cycle, `STAGES` cycles long; the caller's register is the stage after.

    The largest probability of the row is that of the exponential 1.0, 2^(exponential_bits - 1). With s the shift of
    `normalise`, it is under the threshold T exactly if mantissa x 2^(exponential_bits - 1) < (2 T - 1) x 2^(s - 1), so
    the comparison needs a shifted threshold and no probability.

    Members
    -------
    sum : In, at least 2^(exponential_bits - 1).
    threshold : In, in probability steps; 2^probability_bits lies above every probability.
    mantissa, excess : Out, golden mantissa, and the sum's bit length less `exponential_bits`.
    below : Out(1), the row's largest probability is under the threshold.
    """

    STAGES = 4

    def __init__(self, formats: NumberFormats, capacity: int) -> None:
        self.formats = formats
        self.unit = softmax_parameters(formats, capacity)
        self.row_sum_bits = formats.row_sum_bits(capacity)
        self.largest_excess = self.row_sum_bits - formats.exponential_bits
        super().__init__(
            {
                "sum": In(self.row_sum_bits),
                "threshold": In(formats.probability_bits + 1),
                "mantissa": Out(formats.reciprocal_bits),
                "excess": Out(range(self.largest_excess + 1)),
                "below": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        formats, sum_bits = self.formats, self.unit.sum_bits
        bits, table_bits = formats.reciprocal_bits, formats.reciprocal_table_bits
        position_bits = sum_bits - 1 - table_bits

        # Leading one.
        excess = Signal(range(self.largest_excess + 1))
        for place in range(self.largest_excess + 1):
            with m.If(self.sum[formats.exponential_bits - 1 + place]):
                m.d.comb += excess.eq(place)
        excess_1 = registered(m, excess, "excess_1")
        sum_1 = registered(m, self.sum, "sum_1")

        # Aligned, without its leading one.
        aligned = (sum_1 << (sum_bits - formats.exponential_bits)) >> excess_1
        fraction = registered(m, aligned[: sum_bits - 1], "fraction")
        doubled = (self.threshold << 1) - 1
        bound = registered(m, Mux(self.threshold == 0, 0, doubled[: formats.probability_bits + 2] << excess_1), "bound")

        # Table, then the interpolation's product.
        table, drop_bits = table_memory(reciprocal_table(formats), bits)
        m.submodules.table = table
        port = table.read_port()
        m.d.comb += port.addr.eq(fraction[position_bits:])
        position = registered(m, fraction[:position_bits], "position")
        fall = registered(m, port.data[bits : bits + drop_bits] * position, "fall")
        base = registered(m, port.data[:bits], "base")

        # Rounding and comparison.
        exact = ((base << position_bits) - fall)[: bits + position_bits]
        late_bound = delayed(m, bound, 2, "bound")
        scale = formats.reciprocal_bits - 2 - formats.probability_bits
        always = self.threshold[-1]
        m.d.comb += [
            self.mantissa.eq(round_half_up_shift(exact, position_bits)),
            self.excess.eq(delayed(m, excess_1, 3, "excess")),
            self.below.eq(always | ((self.mantissa << max(-scale, 0)) < (late_bound << max(scale, 0)))),
        ]
        return m
