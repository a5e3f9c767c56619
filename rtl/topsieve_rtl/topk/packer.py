"""The packer: joins compacted beats of any count to full rows."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Beat
from topsieve_rtl.topk.networks import delayed, lanes_below, layers_per_rank, registered
from topsieve_sim.golden.topk_latency import packer_stages


class Packer(wiring.Component):
    """Rotate each beat behind the elements that wait, write a row when more than a row has come together.

    A full row waits for the next element, so that the last row of a packet is empty only if the packet is. The last
    beat of a packet may write two rows, the second in the following cycle; no beat may follow it directly.

    Parameters
    ----------
    element : shape of one lane.
    lanes : elements per row, a power of two.
    writes_empty : a packet without elements writes one row with count 0.

    Members
    -------
    start : In(1), a beat is on `i`.
    first : In(1), it opens a packet.
    i : In(Beat(element, lanes))
    opens : Out(1), `packer_stages` cycles after `start` of a packet's first beat.
    passes : Out(1), the same for every beat.
    spare : Out(1), the same for a beat that does not fill a row.
    write : Out(1), a row is on `row`.
    row : Out(Beat(element, lanes)), `count` valid lanes; lanes beyond hold anything.
    """

    def __init__(self, element: ShapeLike, lanes: int, *, writes_empty: bool) -> None:
        if lanes < 1 or lanes & (lanes - 1):
            raise ValueError(f"lanes must be a power of two, got {lanes}")
        self.element = element
        self.lanes = lanes
        self.writes_empty = writes_empty
        super().__init__(
            {
                "start": In(1),
                "first": In(1),
                "i": In(Beat(element, lanes)),
                "opens": Out(1),
                "passes": Out(1),
                "spare": Out(1),
                "write": Out(1),
                "row": Out(Beat(element, lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, stages = self.lanes, packer_stages(self.lanes)
        width = Shape.cast(self.element).width
        fill = Signal(range(lanes + 1))
        total = Signal(range(2 * lanes + 1))
        overflows = Signal()
        m.d.comb += [total.eq(fill + self.i.count), overflows.eq(total > lanes)]
        with m.If(self.start):
            m.d.sync += fill.eq(Mux(self.i.last, 0, Mux(overflows, total - lanes, total)))

        arriving = self.i.lanes.as_value()
        values = [arriving[lane * width : (lane + 1) * width] for lane in range(lanes)]
        shift = fill
        for rank, layers in enumerate(layers_per_rank(lanes)):
            for layer in layers:
                step = 1 << layer
                values = [Mux(shift[layer], values[(lane - step) % lanes], values[lane]) for lane in range(lanes)]
            values = [registered(m, value, f"rotated_{rank}_{lane}") for lane, value in enumerate(values)]
            shift = registered(m, shift, f"shift_{rank}")

        last = delayed(m, self.i.last, stages, "last")
        passes = delayed(m, self.start, stages, "start")
        full = delayed(m, overflows, stages, "full")
        # Elements of the row that the beat completes or leaves open, and of the row after an overflow.
        counted = delayed(m, Mux(overflows, lanes, total)[: (lanes).bit_length()], stages, "counted")
        beyond = delayed(m, (total - lanes)[: (lanes).bit_length()], stages, "beyond")
        held = delayed(m, lanes_below(fill, lanes), stages, "held")

        waiting = [Signal(width, name=f"waiting_{lane}") for lane in range(lanes)]
        flush = Signal()
        flush_count = Signal(range(lanes + 1))
        joined = [Mux(held[lane] | flush, waiting[lane], values[lane]) for lane in range(lanes)]
        wanted = full | last if self.writes_empty else full | (last & (counted != 0))
        m.d.comb += [
            self.passes.eq(passes),
            self.spare.eq(passes & ~full),
            self.opens.eq(delayed(m, self.first & self.start, stages, "first")),
            self.write.eq((passes & wanted) | flush),
            self.row.lanes.as_value().eq(Cat(joined)),
            self.row.count.eq(Mux(flush, flush_count, counted)),
            self.row.last.eq(flush | (last & ~full)),
        ]
        m.d.sync += [flush.eq(passes & last & full), flush_count.eq(beyond)]
        with m.If(passes):
            for lane in range(lanes):
                m.d.sync += waiting[lane].eq(Mux(full, values[lane], joined[lane]))
        return m
