"""Bytes that the machine moves, as steps of the performance counters."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import KeyValuePlane, key_value_fetch_shape
from topsieve_sim.report.model import Traffic

STEP_BITS = 15
_PLANES = {
    KeyValuePlane.KEY_MSB: Traffic.KEY_MSB,
    KeyValuePlane.KEY_LSB: Traffic.KEY_LSB,
    KeyValuePlane.VALUE: Traffic.VALUE,
}
# Commands that the fetcher can have taken while one of their rows is counted.
_COMMANDS = 8


class TrafficMeter(wiring.Component):
    """Counts wanted bytes: a row's when it is asked for, a row a cycle; a query's, an output's and a record's at once.

    Members
    -------
    head_dim : In, of the layer.
    fetched : In(1), a command of the core was taken, for `rows` rows of `plane`.
    queried, written, recorded : In(1), a query was asked for; an output row, a record was taken by the writer.
    control : In(1), the sequencer's command was taken, for `control_bytes`.
    <kind> : Out(15), bytes of this cycle, for each kind of `Traffic`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "head_dim": In(range(config.max_head_dim + 1)),
                "fetched": In(1),
                "plane": In(range(len(KeyValuePlane))),
                "rows": In(range(config.capacity + 1)),
                "queried": In(1),
                "written": In(1),
                "recorded": In(1),
                "control": In(1),
                "control_bytes": In(STEP_BITS),
                **{kind.value: Out(STEP_BITS) for kind in Traffic},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        formats = self.config.formats
        bits = key_value_fetch_shape(self.config).element_bits
        for plane, kind in _PLANES.items():
            rows = Signal(range(_COMMANDS * self.config.capacity), name=f"{kind}_rows")
            asked = Mux(self.fetched & (self.plane == plane), self.rows, 0)
            m.d.sync += rows.eq(rows + asked - (rows != 0))
            m.d.comb += getattr(self, kind).eq(Mux(rows != 0, self._row_bytes(bits[plane]), 0))
        m.d.comb += [
            self.query.eq(Mux(self.queried, self._row_bytes(formats.query_bits), 0)),
            self.output.eq(Mux(self.written, self._row_bytes(formats.output_bits), 0)),
            self.vector_read.eq(Mux(self.control, self.control_bytes, 0)),
            self.vector_write.eq(Mux(self.recorded, 8, 0)),
        ]
        return m

    def _row_bytes(self, bits: int) -> Value:
        return (self.head_dim * bits + 7) >> 3
