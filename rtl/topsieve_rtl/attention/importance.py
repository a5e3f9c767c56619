"""Importance accumulators: saturating sums in a memory, read out and cleared on command."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.hdl import ShapeLike
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import adder_tree, saturate_unsigned
from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import (
    IMPORTANCE_UPDATE,
    ImportanceLatencies,
    beats,
    head_importance_latencies,
    token_importance_latencies,
)


class ImportanceBeat(data.StructLayout):
    """An addition of `operands` to `word`; with `read` a readout of words 0 to `word`, with `clear` leaving zeros."""

    def __init__(self, operand: ShapeLike, operands: int, words: int) -> None:
        super().__init__({"operands": data.ArrayLayout(operand, operands), "word": range(words), "read": 1, "clear": 1})


class ImportanceWord(data.StructLayout):
    """The accumulators of a word; `last` ends the readout."""

    def __init__(self, bits: int, lanes: int) -> None:
        super().__init__({"lanes": data.ArrayLayout(bits, lanes), "last": 1})


class ImportanceAccumulators(wiring.Component):
    """Base of the accumulators; equal to `topsieve_sim.stepped.importance` to the cycle.

    A word is read, added to and written back in a pipeline with forwarding, so additions to one word may follow each
    other in consecutive cycles. A readout waits until the additions before it have landed. Reset clears all words.
    A subclass gives `_amounts`.

    Parameters
    ----------
    operand, operands : shape and number of an addition's operands.
    words, lanes, bits : accumulators: words, lanes a word, bits each.
    latencies : `add` - 3 of its cycles are those of `_amounts`.

    Members
    -------
    i : In(stream.Signature(ImportanceBeat))
    o : Out(stream.Signature(ImportanceWord))

    Attributes
    ----------
    overflow : the output FIFO is written while full, or an addition meets a readout; never. For proofs.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    def __init__(
        self, operand: ShapeLike, operands: int, words: int, lanes: int, bits: int, latencies: ImportanceLatencies
    ) -> None:
        if words < 1 or lanes < 1 or bits < 1:
            raise ValueError(f"words, lanes and bits must be at least 1, got {words}, {lanes} and {bits}")
        self.words = words
        self.lanes = lanes
        self.bits = bits
        self.latencies = latencies
        self.overflow = Signal()
        super().__init__(
            {
                "i": In(stream.Signature(ImportanceBeat(operand, operands, words))),
                "o": Out(stream.Signature(ImportanceWord(bits, lanes))),
            }
        )

    @abstractmethod
    def _amounts(self, m: Module, operands: Sequence[Value]) -> list[Value]:
        """What is added to each lane, `latencies.add` - 3 cycles after `operands`."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat, depth = self.i.payload, self.latencies.readout_depth
        m.submodules.fifo = fifo = Fifo(self.o.payload.shape(), depth)
        wiring.connect(m, fifo.o, wiring.flipped(self.o))

        # Readout: the address of a word a cycle, once the additions before have landed.
        is_reading, clears = Signal(), Signal()
        address, last_word = Signal(range(self.words)), Signal(range(self.words))
        draining, credits_used = Signal(range(self.latencies.add)), Signal(range(depth + 1))
        take, emit, last = Signal(), Signal(), Signal()
        left = self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(~is_reading),
            take.eq(self.i.valid & self.i.ready),
            emit.eq(is_reading & (draining == 0) & (credits_used != depth)),
            last.eq(address == last_word),
        ]
        m.d.sync += credits_used.eq(credits_used + emit - left)
        with m.If(take & beat.read):
            m.d.sync += [
                is_reading.eq(1),
                clears.eq(beat.clear),
                address.eq(0),
                last_word.eq(beat.word),
                draining.eq(self.latencies.add - 1),
            ]
        with m.Elif(draining != 0):
            m.d.sync += draining.eq(draining - 1)
        with m.If(emit):
            m.d.sync += [address.eq(address + 1), is_reading.eq(~last)]

        # Additions.
        front = self.latencies.add - IMPORTANCE_UPDATE
        adds = delayed(m, take & ~beat.read, front, "adds")
        add_word = delayed(m, beat.word, front, "add_word")
        amounts = [
            registered(m, amount, f"amount_{lane}") for lane, amount in enumerate(self._amounts(m, list(beat.operands)))
        ]
        word = Signal(range(self.words))
        m.d.comb += word.eq(Mux(emit, address, add_word))
        current = self._update(m, word, adds, emit & clears, amounts)
        m.d.comb += [
            self.overflow.eq((fifo.i.valid & ~fifo.i.ready) | (adds & emit)),
            fifo.i.valid.eq(registered(m, emit, "emitted")),
            fifo.i.payload.last.eq(registered(m, last, "emitted_last")),
        ]
        m.d.comb += [fifo.i.payload.lanes[lane].eq(value) for lane, value in enumerate(current)]
        return m

    def _update(self, m: Module, word: Signal, adds: Value, clears: Value, amounts: Sequence[Value]) -> list[Value]:
        """Read `word`, then write it back with `amounts` added or cleared; returns its lanes a cycle later."""
        width = self.bits * self.lanes
        m.submodules.accumulators = words = memory.Memory(shape=width, depth=self.words, init=[])
        reader, writer = words.read_port(), words.write_port()
        holds = Signal(self.words)
        adding, clearing = registered(m, adds, "adding"), registered(m, clears, "clearing")
        place = registered(m, word, "place")
        writes, written_place, written = Signal(), Signal.like(word), Signal(width)
        wrote, past_place, past = Signal(), Signal.like(word), Signal(width)

        # A word that is on its way to the memory is taken from the way; the memory is not read where it is written.
        current = Signal(width)
        m.d.comb += [
            reader.addr.eq(word),
            reader.en.eq(~(writes & (written_place == word))),
            writer.addr.eq(written_place),
            writer.data.eq(written),
            writer.en.eq(writes),
        ]
        with m.If(writes & (written_place == place)):
            m.d.comb += current.eq(written)
        with m.Elif(wrote & (past_place == place)):
            m.d.comb += current.eq(past)
        with m.Elif(holds.bit_select(place, 1)):
            m.d.comb += current.eq(reader.data)
        lanes = [current.word_select(lane, self.bits) for lane in range(self.lanes)]
        for lane, (value, amount) in enumerate(zip(lanes, amounts, strict=True)):
            total = saturate_unsigned(m, value + amount, self.bits)
            m.d.sync += written.word_select(lane, self.bits).eq(Mux(clearing, 0, total))
        m.d.sync += [
            writes.eq(adding | clearing),
            written_place.eq(place),
            wrote.eq(writes),
            past_place.eq(written_place),
            past.eq(written),
        ]
        with m.If(writes):
            m.d.sync += holds.bit_select(written_place, 1).eq(1)
        return lanes


class TokenImportance(ImportanceAccumulators):
    """Column sums of probabilities: a beat of probabilities is added to the word of its place in the row.

    An operand is as wide as an accumulator, so that the sums of tokens that stay can be added back elsewhere.

    Parameters
    ----------
    config : lanes, capacity, probability and accumulator bits.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        lanes, formats = config.softmax.lanes, config.formats
        super().__init__(
            max(formats.probability_bits, formats.token_importance_bits),
            lanes,
            beats(config.capacity, lanes),
            lanes,
            formats.token_importance_bits,
            token_importance_latencies(),
        )

    def _amounts(self, m: Module, operands: Sequence[Value]) -> list[Value]:
        return list(operands)


class HeadImportance(ImportanceAccumulators):
    """Absolute sums of output rows: a row's elements are added to the accumulator of its head.

    Parameters
    ----------
    config : heads, largest head dimension, output and accumulator bits.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        formats = config.formats
        super().__init__(
            signed(formats.output_bits),
            config.max_head_dim,
            config.importance.heads,
            1,
            formats.head_importance_bits,
            head_importance_latencies(config),
        )

    def _amounts(self, m: Module, operands: Sequence[Value]) -> list[Value]:
        magnitudes = [registered(m, abs(value), f"magnitude_{n}") for n, value in enumerate(operands)]
        return [adder_tree(m, magnitudes, "magnitudes")]
