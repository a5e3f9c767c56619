"""The filter: replays the row buffer against the threshold and packs the survivors."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Element, Fifo
from topsieve_rtl.topk.networks import delayed, prefix_counts, registered
from topsieve_rtl.topk.packer import Packer
from topsieve_rtl.topk.selector import Threshold
from topsieve_rtl.topk.zero_eliminator import Compactor
from topsieve_sim.golden.topk import PacketStatus
from topsieve_sim.golden.topk_latency import network_ranks, output_fifo_depth, packer_stages

STATUS_BITS = max(status.value for status in PacketStatus).bit_length()


class Survivors(data.StructLayout):
    """`count` surviving elements in ascending index order; `status` is that of the packet on its `last` beat."""

    def __init__(self, score_bits: int, capacity: int, lanes: int) -> None:
        element = Element(score_bits, max(1, (capacity - 1).bit_length()))
        super().__init__(
            {
                "lanes": data.ArrayLayout(element, lanes),
                "count": range(lanes + 1),
                "last": 1,
                "status": STATUS_BITS,
            }
        )


class FilterJob(data.StructLayout):
    """A packet to filter: its threshold, its length (0 if it was refused) and its status."""

    def __init__(self, score_bits: int, capacity: int) -> None:
        super().__init__(
            {"threshold": Threshold(score_bits, capacity), "n": range(capacity + 1), "status": STATUS_BITS}
        )


class Filter(wiring.Component):
    """Keeps what is greater than the threshold and the first `quota` equal scores, one row per cycle.

    A row is issued only while the output FIFO is sure to have room for what it can become: one slot, two for a
    packet's last row. Nothing behind the issue ever stalls.

    Members
    -------
    job : In(stream.Signature(FilterJob))
    o : Out(stream.Signature(Survivors))
    read : Out(1), read the row at `address`; it is on `row` in the next cycle.
    address : Out
    row : In(ArrayLayout(score_bits, lanes))
    finishes : Out(1), the packet's last row is read in this cycle: its buffer is free from the next.
    """

    def __init__(self, lanes: int, score_bits: int, capacity: int) -> None:
        self.lanes = lanes
        self.score_bits = score_bits
        self.capacity = capacity
        self.rows = -(-capacity // lanes)
        super().__init__(
            {
                "job": In(stream.Signature(FilterJob(score_bits, capacity))),
                "o": Out(stream.Signature(Survivors(score_bits, capacity, lanes))),
                "read": Out(1),
                "address": Out(range(self.rows)),
                "row": In(data.ArrayLayout(score_bits, lanes)),
                "finishes": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits = self.lanes, self.score_bits
        output = self.o.payload.shape()
        depth = output_fifo_depth(lanes)
        m.submodules.fifo = fifo = Fifo(output, depth)
        m.submodules.compactor = compactor = Compactor(output["lanes"].shape.elem_shape, lanes)
        m.submodules.packer = packer = Packer(output["lanes"].shape.elem_shape, lanes, writes_empty=True)

        idle = Signal(init=1)
        job = Signal(self.job.payload.shape())
        index = Signal(range(self.rows + 1))
        remaining = Signal(range(self.capacity + 1))
        last_row, issue, enough = Signal(), Signal(), Signal()
        credits = Signal(range(depth + 1), init=depth)

        m.d.comb += [
            self.job.ready.eq(idle),
            last_row.eq(remaining <= lanes),
            enough.eq(credits >= Mux(last_row, 2, 1)),
            issue.eq(~idle & enough),
            self.read.eq(~idle),
            self.address.eq(index),
            self.finishes.eq(issue & last_row),
        ]
        with m.If(idle & self.job.valid):
            m.d.sync += [job.eq(self.job.payload), index.eq(0), remaining.eq(self.job.payload.n), idle.eq(0)]
        with m.If(issue):
            m.d.sync += [index.eq(index + 1), remaining.eq(remaining - lanes)]
            with m.If(last_row):
                m.d.sync += idle.eq(1)

        # Memory answer, row register; the job may change under the rows that are on their way.
        row = registered(m, self.row.as_value(), "row")
        flags = Cat(issue, index == 0, last_row, job.status)
        flags = delayed(m, flags, 2, "flags")
        live = delayed(m, Cat(~last_row | (remaining > lane) for lane in range(lanes)), 2, "live")
        kth = delayed(m, job.threshold.kth, 2, "kth")
        quota = delayed(m, job.threshold.quota, 3 + network_ranks(lanes), "quota")
        index_in = delayed(m, index, 2, "index")

        # Comparison.
        scores = [row[lane * bits : (lane + 1) * bits] for lane in range(lanes)]
        greater = registered(m, live & Cat(score > kth for score in scores), "greater")
        equal = registered(m, live & Cat(score == kth for score in scores), "equal")
        scores_in = registered(m, row, "scores")
        flags = registered(m, flags, "compared_flags")
        index_in = registered(m, index_in, "compared_index")

        # Ties: lane by lane how many equal ones came before in this row, against what the quota still allows.
        ranks = network_ranks(lanes)
        ties = prefix_counts(m, list(equal), "ties")
        greater = delayed(m, greater, ranks, "greater_tied")
        equal = delayed(m, equal, ranks, "equal_tied")
        scores_in = delayed(m, scores_in, ranks, "scores_tied")
        flags = delayed(m, flags, ranks, "flags_tied")
        index_in = delayed(m, index_in, ranks, "index_tied")
        allowed = Signal(range(self.capacity + 1))
        allowed_now = Signal(range(self.capacity + 1))
        m.d.comb += allowed_now.eq(Mux(flags[1], quota, allowed))
        with m.If(flags[0]):
            m.d.sync += allowed.eq(Mux(ties[-1] >= allowed_now, 0, allowed_now - ties[-1]))
        keep = registered(m, greater | (equal & Cat(tie <= allowed_now for tie in ties)), "keep")
        scores_in = registered(m, scores_in, "scores_kept")
        flags = registered(m, flags, "flags_kept")
        index_in = registered(m, index_in, "index_kept")

        # Compaction and packing.
        lane_bits = (lanes - 1).bit_length()
        for lane in range(lanes):
            element = compactor.i.lanes[lane]
            m.d.comb += [
                element.score.eq(scores_in[lane * bits : (lane + 1) * bits]),
                element.index.eq(lane | index_in << lane_bits),
            ]
        flags_out = delayed(m, flags, compactor.stages, "flags_compacted")
        m.d.comb += [
            compactor.start.eq(flags[0]),
            compactor.i.valid.eq(keep),
            compactor.i.last.eq(flags[2]),
            packer.start.eq(flags_out[0]),
            packer.first.eq(flags_out[1]),
            packer.i.eq(compactor.o),
        ]
        status_in = delayed(m, flags_out[3:], packer_stages(lanes), "status")
        status_held = Signal(STATUS_BITS)
        status = Mux(packer.passes, status_in, status_held)
        m.d.sync += status_held.eq(status)

        # Output FIFO; a credit is a slot of it.
        beat = fifo.i.payload
        width = Shape.cast(compactor.element).width
        for lane in range(lanes):
            packed = packer.row.lanes[lane].as_value()
            m.d.comb += beat.lanes[lane].as_value().eq(packed & (packer.row.count > lane).replicate(width))
        m.d.comb += [
            fifo.i.valid.eq(packer.write),
            beat.count.eq(packer.row.count),
            beat.last.eq(packer.row.last),
            beat.status.eq(Mux(packer.row.last, status, 0)),
        ]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        spent = Mux(issue, Mux(last_row, 2, 1), 0)
        m.d.sync += credits.eq(credits - spent + packer.spare + (self.o.valid & self.o.ready))
        return m
