"""The row writer: output rows and report records to memory, as AXI4 write bursts."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.accelerator.cascade import RECORD_BITS, ReportRecord
from topsieve_rtl.attention.core_layouts import RowNumber, TokenWrite
from topsieve_rtl.attention.layouts import OutputRow
from topsieve_rtl.memory.axi import WriteAddress, WriteData, WriteResponse, connect_write_port, write_port_members
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import REPORT_RECORD_BYTES, ROW_STRIDE_BITS
from topsieve_sim.golden.plane_fetch import BOUNDARY_BYTES
from topsieve_sim.golden.row_write import RowWriteShape


class WriterJob(data.StructLayout):
    """Where the rows of one layer go, after the descriptor's checks; the fields are the descriptor's.

    Row `query` of the query head in `slot` goes to `output + head x head_bytes + token x row_bytes`: head is the slot's with
    `live_heads`, else `slot`; token is the live list's with `live_queries`, else `query`. Record n goes to `report + 8 n`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        address = config.memory.axi.address_bits
        super().__init__(
            {
                "output": address,
                "row_bytes": ROW_STRIDE_BITS,
                "head_bytes": address,
                "report": address,
                "head_dim": range(config.max_head_dim + 1),
                "live_queries": 1,
                "live_heads": 1,
            }
        )


class LiveHeadWrite(data.StructLayout):
    """Which query head a slot is."""

    def __init__(self, config: AcceleratorConfig) -> None:
        heads = range(config.importance.heads)
        super().__init__({"valid": 1, "slot": heads, "head": heads})


class _State(enum.Enum, shape=2):
    IDLE = 0
    ADDRESS = 1
    WORDS = 2


class RowWriter(wiring.Component):
    """Writes rows one after the other; `docs/accelerator.md`, section "Writer".

    `topsieve_sim.golden.row_write` says which words, `topsieve_sim.timing.row_writer` when. Addresses and distances are
    multiples of the bus word; a record is 8 bytes of a word, or several words.

    Parameters
    ----------
    config : formats, sizes, memory port.

    Members
    -------
    job : In(WriterJob), registers, changed only while idle and two cycles before a row or record at the latest.
    head_write : In(LiveHeadWrite), token_write : In(TokenWrite), strobes.
    row : In(stream.Signature(OutputRow)), its row a `RowNumber`; elements beyond the head dimension are 0.
    reports : In(1), records are taken, not rows; high a cycle before the first record, low between reports.
    record : In(stream.Signature(ReportRecord))
    address, word, response : streams of `WriteAddress`, `WriteData` and `WriteResponse`: AW, W, B; B is always ready.
    idle : Out(1), everything taken is written and answered.
    failed : Out(1), a response was SLVERR or DECERR since `clear`.
    clear : In(1), forget that.

    Attributes
    ----------
    outstanding : bursts that wait for their response; for proofs.

    Raises
    ------
    ValueError
        the configuration's memory is no AXI4 port.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.shape = shape = RowWriteShape.of(config)
        self.outstanding = Signal(range(shape.max_outstanding + 1))
        super().__init__(
            {
                "job": In(WriterJob(config)),
                "head_write": In(LiveHeadWrite(config)),
                "token_write": In(TokenWrite(config)),
                "row": In(stream.Signature(OutputRow(config, RowNumber(config).size))),
                "reports": In(1),
                "record": In(stream.Signature(ReportRecord())),
                "address": Out(stream.Signature(WriteAddress(shape.address_bits))),
                "word": Out(stream.Signature(WriteData(shape.data_bits))),
                "response": In(stream.Signature(WriteResponse())),
                "idle": Out(1),
                "failed": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, shape = self.config, self.shape
        size, low = shape.data_bytes, shape.data_bytes.bit_length() - 1
        row_bits = config.max_head_dim * config.formats.output_bits
        state = Signal(_State)
        job, reports = Signal(WriterJob(config)), Signal()
        m.d.sync += [job.eq(self.job), reports.eq(self.reports)]
        takes_row, takes_record = Signal(), Signal()
        m.d.comb += [
            self.row.ready.eq((state == _State.IDLE) & ~reports),
            self.record.ready.eq((state == _State.IDLE) & reports),
            takes_row.eq(self.row.valid & self.row.ready),
            takes_record.eq(self.record.valid & self.record.ready),
        ]

        # What is left of the row: its data, the lowest word first, its bytes and words.
        words_in = -(-max(row_bits, RECORD_BITS) // shape.data_bits)
        content = Signal(words_in * shape.data_bits)
        row_bytes = Signal(range(max(-(-row_bits // 8), REPORT_RECORD_BYTES) + 1))
        bytes_left, words_left, is_record = Signal.like(row_bytes), Signal(range(words_in + 1)), Signal()
        m.d.sync += row_bytes.eq((job.head_dim * config.formats.output_bits + 7) >> 3)
        # What is offered is loaded whether it is valid or not: a thousand registers need not wait for that.
        with m.If(state == _State.IDLE):
            m.d.sync += is_record.eq(reports)
            with m.If(reports):
                m.d.sync += [
                    # On a wider bus the record stands in every place of its size, and the strobes choose.
                    content.eq(self.record.payload.data.replicate(max(1, shape.data_bits // RECORD_BITS))),
                    bytes_left.eq(REPORT_RECORD_BYTES),
                    words_left.eq(max(1, REPORT_RECORD_BYTES // size)),
                ]
            with m.Else():
                m.d.sync += [
                    content.eq(self.row.payload.elements.as_value()),
                    bytes_left.eq(row_bytes),
                    words_left.eq((row_bytes + (size - 1)) >> low),
                ]
        with m.If(takes_row | takes_record):
            m.d.sync += state.eq(_State.ADDRESS)

        # AW: a burst at a time.
        page_words = BOUNDARY_BYTES // size
        to_boundary, length = Signal(range(page_words + 1)), Signal(range(shape.max_burst_words + 1))
        asks, writes = Signal(), Signal()
        address = self._address(m, job, reports, state == _State.IDLE, takes_record, Mux(asks, length << low, 0))
        longest = Mux(words_left < shape.max_burst_words, words_left, shape.max_burst_words)
        m.d.comb += [
            to_boundary.eq(page_words - (address[low:] & (page_words - 1))),
            length.eq(Mux(to_boundary < longest, to_boundary, longest)),
            self.address.valid.eq((state == _State.ADDRESS) & (self.outstanding != shape.max_outstanding)),
            self.address.payload.address.eq(Cat(Const(0, low), address[low:])),
            self.address.payload.words_minus_one.eq(length - 1),
            asks.eq(self.address.valid & self.address.ready),
        ]

        # W: its words.
        burst_left, ends_burst = Signal.like(length), Signal()
        present = Signal(size)
        m.d.comb += [
            ends_burst.eq(burst_left == 1),
            present.eq(Cat(bytes_left > byte for byte in range(size))),
            self.word.valid.eq(state == _State.WORDS),
            self.word.payload.data.eq(content[: shape.data_bits]),
            self.word.payload.strobes.eq(Mux(is_record, present << address[:low], present) if low else present),
            self.word.payload.last.eq(ends_burst),
            writes.eq(self.word.valid & self.word.ready),
        ]
        with m.If(asks):
            m.d.sync += [state.eq(_State.WORDS), burst_left.eq(length)]
        with m.If(writes):
            m.d.sync += [
                content.eq(content >> shape.data_bits),
                bytes_left.eq(bytes_left - size),
                words_left.eq(words_left - 1),
                burst_left.eq(burst_left - 1),
            ]
            with m.If(ends_burst):
                m.d.sync += state.eq(Mux(words_left == 1, _State.IDLE, _State.ADDRESS))

        # B: counted, the worst remembered.
        answered = self.response.valid
        m.d.comb += [
            self.response.ready.eq(1),
            self.idle.eq((state == _State.IDLE) & (self.outstanding == 0)),
        ]
        m.d.sync += self.outstanding.eq(self.outstanding + asks - answered)
        with m.If(answered & self.response.payload.response[1]):
            m.d.sync += self.failed.eq(1)
        with m.Elif(self.clear):
            m.d.sync += self.failed.eq(0)
        return m

    def _address(
        self, m: Module, job: data.View, reports: Signal, idle: Value, takes_record: Signal, advance: Value
    ) -> Value:
        """Where the next word of the row goes, from the cycle after its handshake on."""
        config, bits = self.config, self.shape.address_bits
        number = data.View(RowNumber(config), self.row.payload.row)
        tokens = memory.Memory(shape=range(config.capacity), depth=config.capacity, init=[])
        heads = memory.Memory(shape=range(config.importance.heads), depth=config.importance.heads, init=[])
        m.submodules.tokens, m.submodules.heads = tokens, heads
        token_writer, token_reader = tokens.write_port(), tokens.read_port(domain="comb")
        head_writer, head_reader = heads.write_port(), heads.read_port(domain="comb")
        m.d.comb += [
            token_writer.en.eq(self.token_write.valid),
            token_writer.addr.eq(self.token_write.position),
            token_writer.data.eq(self.token_write.token),
            token_reader.addr.eq(number.query),
            head_writer.en.eq(self.head_write.valid),
            head_writer.addr.eq(self.head_write.slot),
            head_writer.data.eq(self.head_write.head),
            head_reader.addr.eq(number.head),
        ]
        # Three terms: the products of a row's place, and all that does not depend on it.
        origin, row_offset, head_offset, record = Signal(bits), Signal(bits), Signal(bits), Signal(bits)
        with m.If(~idle):
            m.d.sync += origin.eq(origin + advance)
        with m.Elif(reports):
            m.d.sync += [origin.eq(record), row_offset.eq(0), head_offset.eq(0)]
        with m.Else():
            m.d.sync += [
                origin.eq(job.output),
                row_offset.eq(Mux(job.live_queries, token_reader.data, number.query) * job.row_bytes),
                head_offset.eq(Mux(job.live_heads, head_reader.data, number.head) * job.head_bytes),
            ]
        with m.If(~reports):
            m.d.sync += record.eq(self.job.report)
        with m.Elif(takes_record):
            m.d.sync += record.eq(record + REPORT_RECORD_BYTES)
        return (origin + row_offset + head_offset)[:bits]


class AxiRowWriter(wiring.Component):
    """The row writer with AXI4 wires.

    Members
    -------
    m_axi_aw*, m_axi_w*, m_axi_b* : `topsieve_rtl.memory.write_port_members`.
    the others : as in `RowWriter`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.writer = writer = RowWriter(config)
        shape = writer.shape
        inner = ("address", "word", "response")
        super().__init__(
            {name: member for name, member in writer.signature.members.items() if name not in inner}
            | write_port_members(shape.data_bits, shape.address_bits, shape.id_bits)
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.writer = writer = self.writer
        for name, member in writer.signature.members.items():
            if name in ("row", "record"):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(writer, name))
            elif member.is_port and member.flow is In:
                m.d.comb += getattr(writer, name).eq(getattr(self, name))
            elif member.is_port:
                m.d.comb += getattr(self, name).eq(getattr(writer, name))
        connect_write_port(m, self, writer.address, writer.word, writer.response)
        return m
