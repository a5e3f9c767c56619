"""The cascade unit: importance of tokens and heads over the layers, and who stays alive."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.core_layouts import TokenWrite
from topsieve_rtl.attention.importance import HeadImportance, TokenImportance
from topsieve_rtl.topk import TopKEngine, make_selector
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import cascade_score_bits

COUNT_BITS = 17
RECORD_BITS = 64


class CascadeOperation(enum.Enum, shape=3):
    """What a command asks for."""

    CLEAR = 0
    RESET_TOKENS = 1
    RESET_HEADS = 2
    PRUNE_TOKENS = 3
    PRUNE_HEADS = 4
    REPORT = 5


class CascadeCommand(data.StructLayout):
    """`count`: tokens or heads that are alive after a reset, or that stay."""

    def __init__(self) -> None:
        super().__init__({"operation": CascadeOperation, "count": COUNT_BITS})


class ReportRecord(data.StructLayout):
    """A record of the report; `last` ends it."""

    def __init__(self) -> None:
        super().__init__({"data": RECORD_BITS, "last": 1})


class _State(enum.Enum, shape=3):
    IDLE = 0
    RESET = 1
    PRUNE_TOKENS = 2
    PRUNE_HEADS = 3
    FINISH = 4
    REPORT_HEADER = 5
    REPORT_TOKENS = 6
    REPORT_HEADS = 7


class CascadeUnit(wiring.Component):
    """Accumulates importance from the taps of the attention core and prunes on command; `docs/accelerator.md`.

    `topsieve_sim.timing.cascade` gives the cycles of every command. Taps are added while the unit is idle, which the
    phases of the machine see to.

    Parameters
    ----------
    config : the machine.

    Members
    -------
    command : In(stream.Signature(CascadeCommand)), taken while idle.
    record : Out(stream.Signature(ReportRecord))
    repeated : In(32), rows computed twice, for the report.
    probability_valid, probabilities, probability_word : a beat of probabilities and its place in the row.
    output_valid, output_elements, output_head : an output row and its query head.
    token_write : Out(TokenWrite), each change of the live list, a cycle after it is decided.
    accumulates : Out(1), the accumulators were busy in the cycle before; prunes : Out(1), the engine is. For counters.
    live_tokens, live_heads : Out, how many are alive.
    alive : Out(heads), a bit a query head.

    Attributes
    ----------
    tokens, heads, engine : the accumulators and the second top-k engine.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        formats, heads = config.formats, config.importance.heads
        self.config = config
        self.tokens = TokenImportance(config)
        self.heads = HeadImportance(config)
        topk = config.topk
        selector = make_selector(
            topk.selector,
            topk.parallelism,
            cascade_score_bits(config),
            max(config.capacity, heads),
            topk.seed,
            topk.radix_bits,
        )
        # Packets never overlap, so one row buffer is enough.
        self.engine = TopKEngine(selector, min(config.softmax.lanes, topk.parallelism), banks=1)
        super().__init__(
            {
                "command": In(stream.Signature(CascadeCommand())),
                "record": Out(stream.Signature(ReportRecord())),
                "repeated": In(32),
                "probability_valid": In(1),
                "probabilities": In(data.ArrayLayout(formats.probability_bits, config.softmax.lanes)),
                "probability_word": In(range(self.tokens.words)),
                "output_valid": In(1),
                "output_elements": In(data.ArrayLayout(signed(formats.output_bits), config.max_head_dim)),
                "output_head": In(range(heads)),
                "token_write": Out(TokenWrite(config)),
                "accumulates": Out(1),
                "prunes": Out(1),
                "live_tokens": Out(range(config.capacity + 1)),
                "live_heads": Out(range(heads + 1)),
                "alive": Out(heads),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tokens, heads, engine = self.tokens, self.heads, self.engine
        state, command = Signal(_State), self.command.payload
        taken, clears, reads = Signal(), Signal(), Signal()
        wanted = Signal(COUNT_BITS)
        m.d.comb += [
            self.command.ready.eq(state == _State.IDLE),
            taken.eq(self.command.valid & self.command.ready),
            clears.eq(taken & (command.operation == CascadeOperation.CLEAR)),
        ]
        # A word of survivors' scores, complete or the last.
        row = data.ArrayLayout(self.config.formats.token_importance_bits, self.config.softmax.lanes)
        self._back, self._back_valid, self._back_word = Signal(row), Signal(), Signal(range(tokens.words))
        # Reset forgets all words at once.
        m.submodules.tokens = ResetInserter(clears)(tokens)
        m.submodules.heads = ResetInserter(clears)(heads)
        m.submodules.engine = engine
        self._live_list(m, state)

        # The last live head: a readout of the heads ends with it.
        last_head = Signal(range(self.config.importance.heads))
        m.d.sync += reads.eq(0)
        with m.If(taken):
            m.d.sync += wanted.eq(command.count)
            with m.Switch(command.operation):
                with m.Case(CascadeOperation.RESET_TOKENS):
                    m.d.sync += [state.eq(_State.RESET), self._place.eq(0), self.live_tokens.eq(command.count)]
                with m.Case(CascadeOperation.RESET_HEADS):
                    m.d.sync += [
                        self.alive.eq(Cat(command.count > head for head in range(len(self.alive)))),
                        self.live_heads.eq(command.count),
                        last_head.eq(command.count - 1),
                    ]
                with m.Case(CascadeOperation.PRUNE_TOKENS), m.If(command.count < self.live_tokens):
                    m.d.sync += [state.eq(_State.PRUNE_TOKENS), reads.eq(1)]
                with m.Case(CascadeOperation.PRUNE_HEADS), m.If(command.count < self.live_heads):
                    m.d.sync += [state.eq(_State.PRUNE_HEADS), reads.eq(1)]
                with m.Case(CascadeOperation.REPORT):
                    m.d.sync += [state.eq(_State.REPORT_HEADER), reads.eq(1)]
        with m.If(state == _State.FINISH):
            m.d.sync += state.eq(_State.IDLE)

        added = self.probability_valid | self._back_valid
        left = (tokens.o.valid & tokens.o.ready) | (heads.o.valid & heads.o.ready)
        m.d.sync += self.accumulates.eq(added | left)
        m.d.comb += self.prunes.eq(
            (state == _State.PRUNE_TOKENS) | (state == _State.PRUNE_HEADS) | (state == _State.FINISH)
        )
        self._accumulate(m, state, reads, last_head)
        self._load(m, state, reads, wanted)
        self._serialise(m, state, wanted, last_head)
        self._report(m, state, reads)
        return m

    def _live_list(self, m: Module, state: Signal) -> None:
        """The tokens by position; `_place` walks over it in a reset and in a report."""
        m.submodules.live = live = memory.Memory(shape=range(self.config.capacity), depth=self.config.capacity, init=[])
        writer, walker = live.write_port(), live.read_port(domain="comb")
        self._place = place = Signal(range(self.config.capacity + 1))
        self._walk, self._walked = walker.addr, walker.data
        m.d.comb += [
            writer.en.eq(self.token_write.valid),
            writer.addr.eq(self.token_write.position),
            writer.data.eq(self.token_write.token),
        ]
        # A survivor's place is not behind it, so a list that changes a cycle late is never read where it changes; the
        # list's readers and its writer stand far apart on a chip.
        self._write = write = Signal.like(self.token_write)
        m.d.sync += self.token_write.eq(write)
        with m.If(state == _State.RESET):
            m.d.comb += [write.valid.eq(1), write.position.eq(place), write.token.eq(place)]
            m.d.sync += place.eq(place + 1)
            with m.If(place + 1 == self.live_tokens):
                m.d.sync += state.eq(_State.IDLE)

    def _accumulate(self, m: Module, state: Signal, reads: Signal, last_head: Signal) -> None:
        """What enters the accumulators: taps, readouts, and the scores of survivors."""
        lanes = self.config.softmax.lanes
        tokens, heads = self.tokens.i, self.heads.i
        reads_tokens, reads_heads = Signal(), Signal()
        reports = state == _State.REPORT_HEADER
        m.d.comb += [
            reads_tokens.eq(reads & ((state == _State.PRUNE_TOKENS) | (reports & (self.live_tokens != 0)))),
            reads_heads.eq(reads & ((state == _State.PRUNE_HEADS) | (reports & (self.live_heads != 0)))),
            tokens.valid.eq(self.probability_valid | self._back_valid | reads_tokens),
            tokens.payload.read.eq(reads_tokens),
            tokens.payload.clear.eq(~reports),
            heads.valid.eq(self.output_valid | reads_heads),
            heads.payload.read.eq(reads_heads),
            heads.payload.word.eq(Mux(reads_heads, last_head, self.output_head)),
            heads.payload.operands.eq(self.output_elements),
        ]
        with m.If(reads_tokens):
            m.d.comb += tokens.payload.word.eq((self.live_tokens - 1) // lanes)
        with m.Elif(self._back_valid):
            m.d.comb += tokens.payload.word.eq(self._back_word)
            m.d.comb += [tokens.payload.operands[n].eq(self._back[n]) for n in range(lanes)]
        with m.Else():
            m.d.comb += tokens.payload.word.eq(self.probability_word)
            m.d.comb += [tokens.payload.operands[n].eq(self.probabilities[n]) for n in range(lanes)]

    def _load(self, m: Module, state: Signal, reads: Signal, wanted: Signal) -> None:
        """Accumulators of the living to the top-k engine."""
        lanes, loads = self.config.softmax.lanes, self.engine.load_lanes
        beat, crosses = self.engine.i.payload, Signal()
        m.d.comb += [crosses.eq(self.engine.i.valid & self.engine.i.ready), beat.k.eq(wanted)]

        # Whether something is left, and whether one beat takes it, stand in registers beside the count.
        left, some_left, last_left = Signal(range(self.config.capacity + 1)), Signal(), Signal()
        part, parts = Signal(range(lanes // loads)), lanes // loads
        word = self.tokens.o
        loading = Signal()
        m.d.comb += loading.eq((state == _State.PRUNE_TOKENS) & some_left)
        with m.If(reads):
            m.d.sync += [
                left.eq(self.live_tokens),
                some_left.eq(self.live_tokens != 0),
                last_left.eq(self.live_tokens <= loads),
                part.eq(0),
            ]
        with m.If(loading):
            m.d.comb += [
                self.engine.i.valid.eq(word.valid),
                beat.count.eq(Mux(last_left, left, loads)),
                beat.last.eq(last_left),
                word.ready.eq(crosses & (beat.last | (part == parts - 1))),
            ]
            chosen = word.payload.lanes.as_value().word_select(part, loads * self.tokens.bits)
            m.d.comb += [lane.eq(chosen.word_select(n, self.tokens.bits)) for n, lane in enumerate(list(beat.lanes))]
            with m.If(crosses):
                m.d.sync += [
                    left.eq(left - loads),
                    some_left.eq(~last_left),
                    last_left.eq(left <= 2 * loads),
                    part.eq(Mux(part == parts - 1, 0, part + 1)),
                ]

        # Heads come one a cycle, the dead ones among them.
        m.submodules.head_list = head_list = memory.Memory(shape=range(len(self.alive)), depth=len(self.alive), init=[])
        writer, self._listed = head_list.write_port(), head_list.read_port(domain="comb")
        head, place = Signal(range(len(self.alive))), Signal(range(len(self.alive) + 1))
        gathered, count = Signal(data.ArrayLayout(self.heads.bits, loads)), Signal(range(loads + 1))
        full, last = Signal(), Signal()
        word = self.heads.o
        takes, lives = Signal(), Signal()
        self._head, self._head_lives = head, lives
        m.d.comb += [
            lives.eq(self.alive.bit_select(head, 1)),
            takes.eq((state == _State.PRUNE_HEADS) & word.valid & word.ready),
        ]
        with m.If(takes & lives):
            m.d.comb += [writer.en.eq(1), writer.addr.eq(place), writer.data.eq(head)]
        with m.If(word.valid & word.ready):
            m.d.sync += head.eq(Mux(word.payload.last, 0, head + 1))
        with m.If(state == _State.PRUNE_HEADS):
            m.d.comb += word.ready.eq(~full | crosses)
            with m.If(full):
                m.d.comb += [
                    self.engine.i.valid.eq(1),
                    beat.count.eq(count),
                    beat.last.eq(last),
                    *(lane.eq(gathered[n]) for n, lane in enumerate(list(beat.lanes))),
                ]
        with m.If(crosses):
            m.d.sync += [full.eq(0), count.eq(0)]
        with m.If(reads):
            m.d.sync += [place.eq(0), count.eq(0)]
        slot = Signal(range(loads + 1))
        m.d.comb += slot.eq(Mux(full, 0, count))
        with m.If(takes & lives):
            for n in range(loads):
                with m.If(slot == n):
                    m.d.sync += gathered[n].eq(word.payload.lanes[0])
            m.d.sync += [
                place.eq(place + 1),
                count.eq(slot + 1),
                full.eq((slot == loads - 1) | (place + 1 == self.live_heads)),
                last.eq(place + 1 == self.live_heads),
            ]

    def _serialise(self, m: Module, state: Signal, wanted: Signal, last_head: Signal) -> None:
        """Survivors one a cycle: into the live list and back into the accumulators, or into the live heads."""
        lanes, survivors = self.config.softmax.lanes, self.engine.o
        held = Signal(survivors.payload.shape()["lanes"].shape)
        left, closes = Signal(range(len(held) + 1)), Signal()
        position, lane = Signal(range(self.config.capacity + 1)), Signal(range(lanes))
        alive, joined = Signal.like(self.alive), Signal.like(self.alive)
        element = held[0]
        m.d.comb += [
            survivors.ready.eq(left <= 1),
            joined.eq(alive | Cat(self._listed.data == head for head in range(len(alive)))),
        ]
        with m.If(left != 0):
            m.d.sync += [left.eq(left - 1), held.as_value().eq(held.as_value() >> len(element.as_value()))]
        with m.If(survivors.valid & survivors.ready):
            m.d.sync += [held.eq(survivors.payload.lanes), left.eq(survivors.payload.count)]
            m.d.sync += closes.eq(survivors.payload.last)
        m.d.sync += self._back_valid.eq(0)
        with m.If(left != 0):
            m.d.sync += position.eq(position + 1)
            with m.If(state == _State.PRUNE_TOKENS):
                m.d.comb += [
                    self._walk.eq(element.index),
                    self._write.valid.eq(1),
                    self._write.position.eq(position),
                    self._write.token.eq(self._walked),
                ]
                with m.If(lane == 0):
                    m.d.sync += self._back.eq(0)
                for n in range(lanes):
                    with m.If(lane == n):
                        m.d.sync += self._back[n].eq(element.score)
                ends = Signal()
                m.d.comb += ends.eq(closes & (left == 1))
                m.d.sync += [
                    lane.eq(Mux((lane == lanes - 1) | ends, 0, lane + 1)),
                    self._back_valid.eq((lane == lanes - 1) | ends),
                ]
            with m.Else():
                m.d.comb += self._listed.addr.eq(element.index)
                m.d.sync += [alive.eq(joined), last_head.eq(self._listed.data)]
            with m.If(closes & (left == 1)):
                m.d.sync += [state.eq(_State.FINISH), position.eq(0), alive.eq(0)]
                with m.If(state == _State.PRUNE_TOKENS):
                    m.d.sync += self.live_tokens.eq(wanted)
                with m.Else():
                    m.d.sync += [self.live_heads.eq(wanted), self.alive.eq(joined)]
        with m.If(self._back_valid):
            m.d.sync += self._back_word.eq(Mux(state == _State.FINISH, 0, self._back_word + 1))

    def _report(self, m: Module, state: Signal, reads: Signal) -> None:
        """The header, then the living tokens, then the living heads."""
        lanes = self.config.softmax.lanes
        record, words, heads = self.record, self.tokens.o, self.heads.o
        place, lane, left = self._place, Signal(range(lanes)), Signal(range(len(self.alive) + 1))
        crosses, ends = Signal(), Signal()
        after_tokens = Mux(self.live_heads != 0, _State.REPORT_HEADS, _State.IDLE)
        m.d.comb += crosses.eq(record.valid & record.ready)
        with m.Switch(state):
            with m.Case(_State.REPORT_HEADER):
                m.d.comb += [
                    record.valid.eq(1),
                    record.payload.last.eq((self.live_tokens == 0) & (self.live_heads == 0)),
                    record.payload.data[:16].eq(self.live_tokens),
                    record.payload.data[16:24].eq(self.live_heads),
                    record.payload.data[32:].eq(self.repeated),
                ]
                m.d.sync += [place.eq(0), lane.eq(0), left.eq(self.live_heads), ends.eq(self.live_tokens == 1)]
                with m.If(crosses):
                    m.d.sync += state.eq(Mux(self.live_tokens != 0, _State.REPORT_TOKENS, after_tokens))
            with m.Case(_State.REPORT_TOKENS):
                m.d.comb += [
                    self._walk.eq(place),
                    record.valid.eq(words.valid),
                    record.payload.last.eq(ends & (self.live_heads == 0)),
                    record.payload.data[:16].eq(self._walked),
                    record.payload.data[16:].eq(words.payload.lanes.as_value().word_select(lane, self.tokens.bits)),
                    words.ready.eq(record.ready & ((lane == lanes - 1) | ends)),
                ]
                with m.If(crosses):
                    m.d.sync += [
                        place.eq(place + 1),
                        lane.eq(Mux(lane == lanes - 1, 0, lane + 1)),
                        ends.eq(place + 2 == self.live_tokens),
                    ]
                    with m.If(ends):
                        m.d.sync += state.eq(after_tokens)
            with m.Case(_State.REPORT_HEADS):
                m.d.comb += [
                    record.valid.eq(heads.valid & self._head_lives),
                    record.payload.last.eq(left == 1),
                    record.payload.data[:8].eq(self._head),
                    record.payload.data[8:].eq(heads.payload.lanes[0]),
                    heads.ready.eq(~self._head_lives | record.ready),
                ]
                with m.If(crosses):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.d.sync += state.eq(_State.IDLE)
