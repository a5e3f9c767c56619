"""Bus words to the stream of wanted bytes, and that to beats of elements."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.memory.axi import ReadData
from topsieve_rtl.memory.bursts import ExpectedBurst, byte_bits
from topsieve_rtl.memory.rows import UnpackJob
from topsieve_rtl.stream import Fifo
from topsieve_sim.golden.plane_fetch import JOB_SLOTS, OUTPUT_SLOTS, FetchStatus, PlaneFetchShape


class FetchBeat(data.StructLayout):
    """`count` elements of a row, zero-extended to the widest plane.

    `first` and `last` frame a row, `final` ends the command; then `status` is the worst response, else 0.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__(
            {
                "lanes": data.ArrayLayout(max(shape.element_bits), shape.lanes),
                "count": range(shape.lanes + 1),
                "first": 1,
                "last": 1,
                "final": 1,
                "status": FetchStatus.DECODE_ERROR.bit_length(),
            }
        )


class Piece(data.StructLayout):
    """The wanted bytes of a bus word, from bit 0 on, and zeros; `closes` marks the command's last word."""

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__({"data": shape.data_bits, "bytes": range(shape.data_bytes + 1), "closes": 1})


class WordAligner(wiring.Component):
    """Buffers the words of the bus and leaves of each the wanted bytes.

    Members
    -------
    expected : In(stream.Signature(ExpectedBurst)), before the burst's words; always ready.
    word : In(stream.Signature(ReadData)), always ready: a burst is asked for only when it fits the buffer.
    piece : Out(stream.Signature(Piece))
    status : Out(stream.Signature(2)), one for each command that has bytes, at the latest with its last piece.
    word_freed, burst_answered : Out(1)

    Attributes
    ----------
    buffered : words in the buffer; for proofs.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        self.buffered = Signal(range(shape.buffer_words + 1))
        super().__init__(
            {
                "expected": In(stream.Signature(ExpectedBurst(shape))),
                "word": In(stream.Signature(ReadData(shape.data_bits))),
                "piece": Out(stream.Signature(Piece(shape))),
                "status": Out(stream.Signature(2)),
                "word_freed": Out(1),
                "burst_answered": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        low = byte_bits(shape)
        m.submodules.bursts = bursts = Fifo(ExpectedBurst(shape), shape.max_outstanding)
        buffered = data.StructLayout(
            {"data": shape.data_bits, "response": 2, "skip": low, "bytes": range(shape.data_bytes + 1), "closes": 1}
        )
        m.submodules.words = words = Fifo(buffered, shape.buffer_words)
        # One for each command whose words have come and whose final beat has not left.
        m.submodules.statuses = statuses = Fifo(2, JOB_SLOTS + 1)
        wiring.connect(m, wiring.flipped(self.expected), bursts.i)
        wiring.connect(m, statuses.o, wiring.flipped(self.status))

        # The bus side.
        arriving = self.word.payload
        within = Signal()
        taken = Signal()
        skip, spare = Signal(low), Signal(low)
        m.d.comb += [
            self.word.ready.eq(1),
            taken.eq(self.word.valid),
            self.burst_answered.eq(taken & arriving.last),
            bursts.o.ready.eq(self.burst_answered),
            skip.eq(Mux(within, 0, bursts.o.payload.skip)),
            spare.eq(Mux(arriving.last, bursts.o.payload.spare, 0)),
            words.i.valid.eq(taken),
            words.i.payload.data.eq(arriving.data),
            words.i.payload.response.eq(arriving.response),
            words.i.payload.skip.eq(skip),
            words.i.payload.bytes.eq(shape.data_bytes - skip - spare),
            words.i.payload.closes.eq(arriving.last & bursts.o.payload.last),
            self.buffered.eq(words.level),
        ]
        with m.If(taken):
            m.d.sync += within.eq(~arriving.last)

        # The unpacker's side.
        word, piece = words.o.payload, self.piece.payload
        aligns = Signal()
        m.d.comb += [
            words.o.ready.eq(~self.piece.valid | self.piece.ready),
            aligns.eq(words.o.valid & words.o.ready),
            self.word_freed.eq(aligns),
        ]
        kept = Signal(shape.data_bits)
        with m.Switch(word.bytes):
            for count in range(1, shape.data_bytes + 1):
                with m.Case(count):
                    m.d.comb += kept.eq((word.data >> (word.skip << 3))[: 8 * count])
        with m.If(aligns):
            m.d.sync += [
                self.piece.valid.eq(1),
                piece.data.eq(kept),
                piece.bytes.eq(word.bytes),
                piece.closes.eq(word.closes),
            ]
        with m.Elif(self.piece.ready):
            m.d.sync += self.piece.valid.eq(0)

        worst, status = Signal(2), Signal(2)
        failed = word.response >= FetchStatus.SLAVE_ERROR
        m.d.comb += [
            status.eq(Mux(failed & (word.response > worst), word.response, worst)),
            statuses.i.valid.eq(aligns & word.closes),
            statuses.i.payload.eq(status),
        ]
        with m.If(aligns):
            m.d.sync += worst.eq(Mux(word.closes, 0, status))
        return m


class Unpacker(wiring.Component):
    """Cuts the stream of wanted bytes into rows and beats.

    Members
    -------
    job : In(stream.Signature(UnpackJob))
    piece : In(stream.Signature(Piece))
    status : In(stream.Signature(2))
    o : Out(stream.Signature(FetchBeat))
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "job": In(stream.Signature(UnpackJob(shape))),
                "piece": In(stream.Signature(Piece(shape))),
                "status": In(stream.Signature(2)),
                "o": Out(stream.Signature(FetchBeat(shape))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, lanes = self.shape, self.shape.lanes
        granule = shape.granule_bits
        shift = granule.bit_length() - 1
        m.submodules.outputs = outputs = Fifo(FetchBeat(shape), OUTPUT_SLOTS)
        wiring.connect(m, outputs.o, wiring.flipped(self.o))

        # The row under way. `need` counts granules and, like `count` and `is_last`, belongs to the next beat.
        working, has_rows, first = Signal(), Signal(), Signal()
        rows = Signal(range(shape.max_rows + 1))
        elements, left = Signal(range(shape.max_elements + 1)), Signal(range(shape.max_elements + 1))
        plane = Signal(range(len(shape.element_bits)))
        buffer_granules = shape.unpack_bits // granule
        need, fill = Signal(range(buffer_granules + 1)), Signal(range(buffer_granules + 1))
        count, is_last = Signal(range(lanes + 1)), Signal()

        offers, emits, final = Signal(), Signal(), Signal()
        # `fill` - `need`; its sign bit says that there is not enough.
        less = Signal(signed(len(fill) + 1))
        starts = Signal()
        m.d.comb += [
            starts.eq(~working & self.job.valid),
            self.job.ready.eq(~working),
            final.eq(is_last & (~has_rows | (rows == 1))),
            less.eq(fill - need),
            offers.eq(working & ~less[-1]),
            emits.eq(offers & outputs.i.ready),
        ]

        # The next beat: of the next row, of this one, or of a new command's first row.
        next_left, next_elements = Signal.like(left), Signal.like(elements)
        next_plane, next_has_rows = Signal.like(plane), Signal()
        job = self.job.payload
        with m.If(working):
            m.d.comb += [
                next_elements.eq(elements),
                next_left.eq(Mux(is_last, elements, left - lanes)),
                next_plane.eq(plane),
                next_has_rows.eq(has_rows),
            ]
        with m.Else():
            m.d.comb += [
                next_elements.eq(job.elements),
                next_left.eq(job.elements),
                next_plane.eq(job.plane),
                next_has_rows.eq(job.rows != 0),
            ]
        with m.If(starts | emits):
            m.d.sync += [left.eq(next_left), is_last.eq(~next_has_rows | (next_left <= lanes))]
            m.d.sync += [first.eq(Mux(working, is_last, 1))]
            with m.If(~next_has_rows):
                m.d.sync += [count.eq(0), need.eq(0)]
            with m.Elif(next_left > lanes):
                m.d.sync += count.eq(lanes)
                with m.Switch(next_plane):
                    for n, bits in enumerate(shape.element_bits):
                        with m.Case(n):
                            m.d.sync += need.eq(lanes * bits // granule)
            with m.Else():
                m.d.sync += count.eq(next_left)
                padding = Signal(3)
                with m.Switch(next_plane):
                    for n, bits in enumerate(shape.element_bits):
                        with m.Case(n):
                            m.d.comb += padding.eq(-(next_elements[:3] * (bits % 8)))
                            m.d.sync += need.eq((next_left[: len(count)] * bits + padding) >> shift)
        with m.If(starts):
            m.d.sync += [
                working.eq(1),
                rows.eq(job.rows),
                elements.eq(job.elements),
                plane.eq(job.plane),
                has_rows.eq(job.rows != 0),
            ]
        with m.Elif(emits):
            m.d.sync += [working.eq(~final), rows.eq(rows - is_last)]

        # The buffer of granules. Both cases of whether a beat leaves are computed side by side: what is decided last only
        # selects.
        value = Signal(buffer_granules * granule)
        remaining = Signal.like(fill)
        arriving, limit = Signal(range(8 * shape.data_bytes // granule + 1)), Signal.like(fill)
        appends = Signal()
        m.d.comb += [
            arriving.eq(self.piece.payload.bytes << (3 - shift)),
            limit.eq(buffer_granules - arriving),
            remaining.eq(Mux(emits, less, fill)),
            self.piece.ready.eq(Mux(emits, less <= limit, fill <= limit)),
            appends.eq(self.piece.valid & self.piece.ready),
        ]
        shifted = Signal.like(value)
        m.d.comb += shifted.eq(value >> (need << shift))
        m.d.sync += [
            fill.eq(remaining + Mux(appends, arriving, 0)),
            value.eq(Mux(emits, shifted, value) | Mux(appends, self.piece.payload.data << (remaining << shift), 0)),
        ]

        beat = outputs.i.payload
        takes_status = Signal()
        m.d.comb += [
            outputs.i.valid.eq(offers),
            beat.count.eq(count),
            beat.first.eq(first),
            beat.last.eq(is_last),
            beat.final.eq(final),
            takes_status.eq(final & has_rows & (elements != 0)),
            beat.status.eq(Mux(takes_status, self.status.payload, 0)),
            self.status.ready.eq(emits & takes_status),
        ]

        with m.Switch(plane):
            for n, bits in enumerate(shape.element_bits):
                with m.Case(n):
                    m.d.comb += [beat.lanes[lane].eq(value[lane * bits : (lane + 1) * bits]) for lane in range(lanes)]
        return m
