"""Commands and indices to runs of contiguous bytes."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Fifo
from topsieve_sim.golden.plane_fetch import COMMAND_SLOTS, INDEX_SLOTS, JOB_SLOTS, PlaneFetchShape


class FetchCommand(data.StructLayout):
    """The fields of `topsieve_sim.golden.plane_fetch.FetchCommand`."""

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__(
            {
                "base": shape.address_bits,
                "stride": shape.stride_bits,
                "rows": range(shape.max_rows + 1),
                "elements": range(shape.max_elements + 1),
                "plane": range(len(shape.element_bits)),
                "gather": 1,
            }
        )


class UnpackJob(data.StructLayout):
    """What the unpacker needs of a command."""

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__(
            {
                "rows": range(shape.max_rows + 1),
                "elements": range(shape.max_elements + 1),
                "plane": range(len(shape.element_bits)),
            }
        )


class Run(data.StructLayout):
    """Contiguous bytes; `last` ends the command."""

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__(
            {
                "address": shape.address_bits,
                "bytes": range(max(shape.merge_bytes, shape.max_row_bytes) + 1),
                "last": 1,
            }
        )


class RowWalker(wiring.Component):
    """Takes commands, computes the address of each row and joins rows that touch.

    Members
    -------
    command : In(stream.Signature(FetchCommand))
    index : In(stream.Signature(range(max_rows))), live tokens of the commands that gather.
    job : Out(stream.Signature(UnpackJob)), at the latest when a row of the command leaves.
    run : Out(stream.Signature(Run)); `valid` rises only when no further row can join, which may depend on the next row.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "command": In(stream.Signature(FetchCommand(shape))),
                "index": In(stream.Signature(range(shape.max_rows))),
                "job": Out(stream.Signature(UnpackJob(shape))),
                "run": Out(stream.Signature(Run(shape))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        m.submodules.commands = commands = Fifo(FetchCommand(shape), COMMAND_SLOTS)
        m.submodules.indices = indices = Fifo(range(shape.max_rows), INDEX_SLOTS)
        m.submodules.jobs = jobs = Fifo(UnpackJob(shape), JOB_SLOTS)
        wiring.connect(m, wiring.flipped(self.command), commands.i)
        wiring.connect(m, wiring.flipped(self.index), indices.i)
        wiring.connect(m, jobs.o, wiring.flipped(self.job))

        # The command under way.
        active, gather = Signal(), Signal()
        base, stride = Signal(shape.address_bits), Signal(shape.stride_bits)
        place, rows_left = Signal(range(shape.max_rows)), Signal(range(shape.max_rows + 1))
        size = Signal(range(shape.max_row_bytes + 1))
        head = commands.o.payload
        loads = Signal()
        m.d.comb += [
            loads.eq(~active & commands.o.valid & jobs.i.ready),
            commands.o.ready.eq(loads),
            jobs.i.valid.eq(loads),
            jobs.i.payload.rows.eq(head.rows),
            jobs.i.payload.elements.eq(head.elements),
            jobs.i.payload.plane.eq(head.plane),
        ]

        # Registers of the two address stages.
        product_valid, placed_valid = Signal(), Signal()
        product = Signal(shape.address_bits)
        product_base, product_size, product_last = Signal.like(base), Signal.like(size), Signal()
        placed, placed_size, placed_last = Signal(shape.address_bits), Signal.like(size), Signal()
        steps, places, takes = Signal(), Signal(), Signal()
        m.d.comb += [
            places.eq(product_valid & (~placed_valid | takes)),
            steps.eq(active & (~product_valid | places) & (~gather | indices.o.valid)),
            indices.o.ready.eq(steps & gather),
        ]
        with m.If(loads):
            m.d.sync += [
                active.eq(head.rows != 0),
                gather.eq(head.gather),
                base.eq(head.base),
                stride.eq(head.stride),
                place.eq(0),
                rows_left.eq(head.rows),
            ]
            with m.Switch(head.plane):
                for plane, bits in enumerate(shape.element_bits):
                    with m.Case(plane):
                        m.d.sync += size.eq((head.elements * bits + 7) >> 3)
        with m.If(steps):
            m.d.sync += [
                active.eq(rows_left != 1),
                place.eq(place + 1),
                rows_left.eq(rows_left - 1),
                product_valid.eq(1),
                product.eq(Mux(gather, indices.o.payload, place) * stride),
                product_base.eq(base),
                product_size.eq(size),
                product_last.eq(rows_left == 1),
            ]
        with m.Elif(places):
            m.d.sync += product_valid.eq(0)
        with m.If(places):
            m.d.sync += [
                placed_valid.eq(1),
                placed.eq(product + product_base),
                placed_size.eq(product_size),
                placed_last.eq(product_last),
            ]
        with m.Elif(takes):
            m.d.sync += placed_valid.eq(0)

        end, touches = self._join(m, placed_valid, placed, placed_size, placed_last, takes)
        # Whether the next row begins where the run ends, compared while the row's address is made.
        following = Signal.like(placed)
        m.d.comb += following.eq(product + product_base)
        with m.If(places):
            joined = takes & (placed_size != 0)
            m.d.sync += touches.eq(Mux(joined, (placed + placed_size)[: len(placed)] == following, end == following))
        return m

    def _join(
        self, m: Module, row_valid: Signal, row: Signal, row_size: Signal, row_last: Signal, takes: Signal
    ) -> tuple[Signal, Signal]:
        """Rows to runs; returns where the run ends, and the register that is to say whether the row begins there."""
        merge_bytes = self.shape.merge_bytes
        run = self.run.payload
        exists, closed, end = Signal(), Signal(), Signal(self.shape.address_bits)
        live, touches, joins, leaves = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            live.eq(row_valid & (row_size != 0)),
            joins.eq(exists & ~closed & touches & (run.bytes + row_size <= merge_bytes)),
            self.run.valid.eq(exists & (closed | (live & ~joins))),
            leaves.eq(self.run.valid & self.run.ready),
            takes.eq(row_valid & (~live | joins | ~exists | leaves)),
        ]
        total = Signal.like(run.bytes)
        m.d.comb += total.eq(Mux(joins, run.bytes, 0) + row_size)
        with m.If(takes & live):
            m.d.sync += [
                exists.eq(1),
                run.bytes.eq(total),
                run.last.eq(row_last),
                end.eq(row + row_size),
                closed.eq(row_last | (total + row_size > merge_bytes)),
            ]
            with m.If(~joins):
                m.d.sync += run.address.eq(row)
        with m.Elif(leaves):
            m.d.sync += exists.eq(0)
        return end, touches
