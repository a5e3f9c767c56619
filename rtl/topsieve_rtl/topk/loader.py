"""The loader: gathers load beats to rows, writes them into a free buffer, checks the packet."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.topk.filter import STATUS_BITS
from topsieve_rtl.topk.networks import lanes_below
from topsieve_sim.golden.topk import PacketStatus


class LoadBeat(data.StructLayout):
    """`count` scores; on a packet's `last` beat, `k` is how many to keep. One more than the capacity can be said."""

    def __init__(self, score_bits: int, capacity: int, lanes: int) -> None:
        super().__init__(
            {
                "lanes": data.ArrayLayout(score_bits, lanes),
                "count": range(lanes + 1),
                "last": 1,
                "k": range(capacity + 2),
            }
        )


class LoadedPacket(data.StructLayout):
    """A packet in a buffer; n and k are 0 if it was refused."""

    def __init__(self, capacity: int) -> None:
        super().__init__({"n": range(capacity + 1), "k": range(capacity + 1), "status": STATUS_BITS, "bank": 1})


class Loader(wiring.Component):
    """Takes a beat per cycle while its buffer is free; the packet is announced two cycles after its last beat.

    Members
    -------
    i : In(stream.Signature(LoadBeat))
    packet : Out(stream.Signature(LoadedPacket)), taken before another can be complete.
    row_valid, row_first, row_write : Out(1), a gathered row is on `row`; it opens a packet; it fits the buffer.
    row : Out(ArrayLayout(score_bits, lanes))
    row_live : Out(lanes), its valid lanes.
    row_bank, row_address : Out, where it goes.
    free : In(banks), the buffer may be loaded from the next cycle on.
    """

    def __init__(self, lanes: int, score_bits: int, capacity: int, load_lanes: int, banks: int) -> None:
        self.lanes = lanes
        self.score_bits = score_bits
        self.capacity = capacity
        self.load_lanes = load_lanes
        self.banks = banks
        self.rows = -(-capacity // lanes)
        super().__init__(
            {
                "i": In(stream.Signature(LoadBeat(score_bits, capacity, load_lanes))),
                "packet": Out(stream.Signature(LoadedPacket(capacity))),
                "row_valid": Out(1),
                "row_first": Out(1),
                "row_write": Out(1),
                "row": Out(data.ArrayLayout(score_bits, lanes)),
                "row_live": Out(lanes),
                "row_bank": Out(1),
                "row_address": Out(range(self.rows)),
                "free": In(banks),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        pieces = self.lanes // self.load_lanes
        bank, busy = Signal(), Signal(self.banks)
        take = Signal()
        m.d.comb += [self.i.ready.eq(~(Mux(bank, busy[-1], busy[0]))), take.eq(self.i.valid & self.i.ready)]

        # Row register.
        piece = Signal(range(pieces))
        gathered, row_total = Signal(range(self.lanes + 1)), Signal(range(self.lanes + 1))
        closes, first_row = Signal(), Signal(init=1)
        place = Signal(range(self.rows + 1))
        m.d.comb += [
            row_total.eq(gathered + beat.count),
            closes.eq(beat.last | (piece == pieces - 1)),
        ]
        filled = take & closes & (row_total != 0)
        m.d.sync += self.row_valid.eq(filled)
        with m.If(take):
            for n in range(pieces):
                with m.If(piece == n):
                    for lane in range(self.load_lanes):
                        m.d.sync += self.row[n * self.load_lanes + lane].eq(beat.lanes[lane])
            m.d.sync += [
                piece.eq(Mux(closes, 0, piece + 1)),
                gathered.eq(Mux(closes, 0, row_total)),
                self.row_live.eq(lanes_below(row_total, self.lanes)),
                self.row_first.eq(first_row),
                self.row_bank.eq(bank),
                self.row_write.eq(filled & (place != self.rows)),
                first_row.eq(beat.last | (first_row & ~filled)),
                place.eq(Mux(beat.last, 0, Mux(filled & (place != self.rows), place + 1, place))),
            ]
        with m.Else():
            m.d.sync += self.row_write.eq(0)

        # The packet so far.
        limit = self.capacity + 1
        loaded = Signal(range(limit + 1))
        ragged = Signal()
        total = Signal(range(limit + 1))
        sum_now = loaded + beat.count
        is_ragged = Signal()
        m.d.comb += [
            total.eq(Mux(sum_now > self.capacity, limit, sum_now)),
            is_ragged.eq(ragged | (beat.count > self.load_lanes) | (~beat.last & (beat.count != self.load_lanes))),
        ]
        closing = Signal()
        closing_total, closing_k = Signal(range(limit + 1)), Signal(range(self.capacity + 2))
        closing_ragged, closing_bank = Signal(), Signal()
        m.d.sync += closing.eq(take & beat.last)
        with m.If(take):
            m.d.sync += [
                loaded.eq(Mux(beat.last, 0, total)),
                ragged.eq(~beat.last & is_ragged),
                closing_total.eq(total),
                closing_k.eq(beat.k),
                closing_ragged.eq(is_ragged),
                closing_bank.eq(bank),
            ]
            # A packet that is too long keeps the last address, and does not write.
            with m.If(place != self.rows):
                m.d.sync += self.row_address.eq(place)
            if self.banks > 1:
                with m.If(beat.last):
                    m.d.sync += bank.eq(~bank)
        for n in range(self.banks):
            with m.If(take & beat.last & (bank == n)):
                m.d.sync += busy[n].eq(1)
            with m.Elif(self.free[n]):
                m.d.sync += busy[n].eq(0)

        # Its verdict, a cycle later.
        status = Signal(STATUS_BITS)
        with m.If(closing_ragged):
            m.d.comb += status.eq(PacketStatus.RAGGED)
        with m.Elif(closing_total > self.capacity):
            m.d.comb += status.eq(PacketStatus.OVER_CAPACITY)
        with m.Elif(closing_k > self.capacity):
            m.d.comb += status.eq(PacketStatus.K_OUT_OF_RANGE)
        accepted = status == PacketStatus.OK
        with m.If(closing):
            m.d.sync += [
                self.packet.valid.eq(1),
                self.packet.payload.n.eq(Mux(accepted, closing_total, 0)),
                self.packet.payload.k.eq(Mux(accepted, closing_k, 0)),
                self.packet.payload.status.eq(status),
                self.packet.payload.bank.eq(closing_bank),
            ]
        with m.Elif(self.packet.valid & self.packet.ready):
            m.d.sync += self.packet.valid.eq(0)
        return m
