"""2^-(maximum - score), lane by lane: subtraction, table, interpolation, rounding."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import round_half_up_shift
from topsieve_rtl.topk.networks import registered
from topsieve_sim.arch import NumberFormats
from topsieve_sim.golden.tables import SegmentTable, exponential_table


def table_memory(table: SegmentTable, base_bits: int) -> tuple[memory.Memory, int]:
    """The table as a ROM of words `base | drop << base_bits`, and the bits of `drop`."""
    words = [int(base) | int(drop) << base_bits for base, drop in zip(table.base, table.drop, strict=True)]
    drop_bits = max(int(table.drop.max()).bit_length(), 1)
    return memory.Memory(shape=unsigned(base_bits + drop_bits), depth=len(words), init=words), drop_bits


class Exponentials(wiring.Component):
    """Golden `exponential_of` on every lane, a beat a cycle, `STAGES` cycles long.

    Members
    -------
    scores : In, one a lane.
    live : In(lanes), the others become 0.
    maximum : In, not below any live score.
    o : Out, exponentials of the beat `STAGES` cycles earlier.
    """

    STAGES = 4

    def __init__(self, formats: NumberFormats, lanes: int) -> None:
        self.formats = formats
        self.lanes = lanes
        super().__init__(
            {
                "scores": In(data.ArrayLayout(signed(formats.score_bits), lanes)),
                "live": In(lanes),
                "maximum": In(signed(formats.score_bits)),
                "o": Out(data.ArrayLayout(unsigned(formats.exponential_bits), lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        table, drop_bits = table_memory(exponential_table(self.formats), self.formats.exponential_bits)
        m.submodules.table = table
        for lane in range(self.lanes):
            m.d.comb += self.o[lane].eq(self._lane(m, lane, table.read_port(), drop_bits))
        return m

    def _lane(self, m: Module, lane: int, port: memory.ReadPort, drop_bits: int) -> Signal:
        formats = self.formats
        bits = formats.exponential_bits
        table_bits = formats.exponential_table_bits
        position_bits = formats.score_fraction_bits - table_bits
        distance = registered(
            m, (self.maximum - self.scores[lane])[: formats.score_bits], f"distance_{lane}", formats.score_bits
        )
        live = registered(m, self.live[lane], f"live_{lane}")

        octaves = distance[formats.score_fraction_bits :]
        m.d.comb += port.addr.eq(distance[position_bits : formats.score_fraction_bits])
        shift = registered(m, octaves, f"octaves_{lane}")
        position = registered(m, distance[:position_bits], f"position_{lane}")
        reaches = registered(m, live & (octaves < bits), f"reaches_{lane}")

        fall = registered(m, port.data[bits : bits + drop_bits] * position, f"fall_{lane}")
        base = registered(m, port.data[:bits], f"base_{lane}")
        last_shift = registered(m, shift, f"shift_{lane}")
        reaches = registered(m, reaches, f"reaches_late_{lane}")
        return registered(
            m,
            Mux(reaches, self._rounded(base, fall, last_shift, position_bits), 0),
            f"exponential_{lane}",
            bits,
        )

    def _rounded(self, base: Value, fall: Value, octaves: Value, position_bits: int) -> Value:
        exact = ((base << position_bits) - fall)[: self.formats.exponential_bits + position_bits]
        return round_half_up_shift(exact, octaves + position_bits)
