"""Operand banks: fetched chunks are written where the arrays read whole words, and each bank knows its complete beats."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.beat_count import AwaitedBeat, BeatCount
from topsieve_rtl.attention.core_layouts import BankRow
from topsieve_rtl.attention.words import WordGeometry
from topsieve_rtl.memory.unpack import FetchBeat
from topsieve_rtl.stream import NEVER_READ_WHILE_WRITTEN, Fifo
from topsieve_rtl.topk.networks import registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import (
    ISSUE_ROWS_AXI,
    KeyValuePlane,
    key_value_fetch_shape,
    query_fetch_shape,
)
from topsieve_sim.golden.attention_latency import attention_latencies, beats
from topsieve_sim.golden.plane_fetch import COMMAND_SLOTS, JOB_SLOTS, OUTPUT_SLOTS

# Commands that a fetcher can have taken without having delivered their final beat.
FETCHES_UNDER_WAY = COMMAND_SLOTS + JOB_SLOTS + 1 + OUTPUT_SLOTS


class ChunkPlacer(wiring.Component):
    """Where the chunks of a command go, which come row by row: a word, and a segment of it.

    A chunk also blanks the later chunks of its row in the word, so a word never holds what an earlier head left.

    Parameters
    ----------
    rows, segments : rows of a beat, and chunks of a word; one divides the other.
    depth : words of a bank.
    max_words : most words of a beat.

    Members
    -------
    valid, last, final : In, a chunk; it is the last of its row, of the command.
    words : In, words of a beat.
    offset : Out, the word in its bank.
    enable : Out(segments), segments to write; `fresh` : Out(segments), the one among them that gets the chunk.
    beat : Out(1), the chunk completes a beat of rows.
    """

    def __init__(self, rows: int, segments: int, depth: int, max_words: int) -> None:
        self.rows, self.segments = rows, segments
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "final": In(1),
                "words": In(range(max_words + 1)),
                "offset": Out(range(depth)),
                "enable": Out(segments),
                "fresh": Out(segments),
                "beat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at_once = min(self.rows, self.segments)
        groups, parts = self.rows // at_once, self.segments // at_once
        # One bit is set: the row among those of a word, the chunk among those of a row in a word.
        row, part = Signal(at_once, init=1), Signal(parts, init=1)
        group = Signal(range(groups))
        beat_start, row_start = Signal.like(self.offset), Signal.like(self.offset)
        next_row, next_group = Signal.like(row), Signal.like(group)
        m.d.comb += [
            self.beat.eq(self.valid & self.last & ((row[-1] & (group == groups - 1)) | self.final)),
            next_row.eq(Cat(row[-1], row[:-1])),
            next_group.eq(Mux(group == groups - 1, 0, group + 1)),
        ]
        for segment in range(self.segments):
            place, lane = divmod(segment, at_once)
            m.d.comb += [
                self.enable[segment].eq(self.valid & row[lane] & part[: place + 1].any()),
                self.fresh[segment].eq(part[place]),
            ]
        with m.If(self.valid):
            with m.If(~self.last):
                m.d.sync += part.eq(Cat(part[-1], part[:-1]))
                with m.If(part[-1]):
                    m.d.sync += self.offset.eq(self.offset + groups)
            with m.Else():
                m.d.sync += [part.eq(1), row.eq(next_row), self.offset.eq(row_start)]
                with m.If(row[-1]):
                    following = Mux(group == groups - 1, beat_start + self.words, row_start + 1)
                    m.d.sync += [group.eq(next_group), row_start.eq(following), self.offset.eq(following)]
                    with m.If(group == groups - 1):
                        m.d.sync += beat_start.eq(beat_start + self.words)
            with m.If(self.final):
                m.d.sync += [row.eq(1), group.eq(0), self.offset.eq(0), beat_start.eq(0), row_start.eq(0)]
        return m


class WordBank(wiring.Component):
    """Words of `segments` chunks; chunks are written one by one, words are read whole, a cycle after their address.

    Members
    -------
    address, enable, fresh, chunk : In, the write: enabled segments get the chunk if they are fresh, else zeros.
    read_address : In
    reads : In(1), the word is used; for proofs.
    word : Out, the word addressed in the cycle before.

    Attributes
    ----------
    overflow : a word is used that was written in the cycle of its address; never. For proofs.
    """

    def __init__(self, chunk_bits: int, segments: int, depth: int) -> None:
        self.chunk_bits, self.segments, self.depth = chunk_bits, segments, depth
        self.overflow = Signal()
        super().__init__(
            {
                "address": In(range(depth)),
                "enable": In(segments),
                "fresh": In(segments),
                "chunk": In(chunk_bits),
                "read_address": In(range(depth)),
                "reads": In(1),
                "word": Out(chunk_bits * segments),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.overflow.eq(self.reads & self.enable.any() & (self.read_address == self.address))
        for segment in range(self.segments):
            m.submodules[f"segment_{segment}"] = words = memory.Memory(
                shape=self.chunk_bits, depth=self.depth, init=[], attrs=NEVER_READ_WHILE_WRITTEN
            )
            writer, reader = words.write_port(), words.read_port()
            m.d.comb += [
                writer.addr.eq(self.address),
                writer.en.eq(self.enable[segment]),
                writer.data.eq(Mux(self.fresh[segment], self.chunk, 0)),
                reader.addr.eq(self.read_address),
                self.word.word_select(segment, self.chunk_bits).eq(reader.data),
            ]
        return m


def bank_words(config: AcceleratorConfig, geometry: WordGeometry) -> int:
    """Words of a bank: a row of full capacity at the largest head dimension."""
    return beats(config.capacity, geometry.lanes) * geometry.words


def bank_base(bank: Value, words: int, banks: int) -> Value:
    """First word of a bank."""
    return Mux(bank, words, 0) if banks > 1 else bank * 0


def of_bank(values: Sequence[Value] | data.View, bank: Value) -> Value:
    """The value of one bank."""
    banks = list(values)
    return Mux(bank, banks[1], banks[0]) if len(banks) > 1 else banks[0]


def chunk_of(beat: data.View, bits: int) -> Value:
    """The elements of a fetched beat in `bits` each, zeros beyond the row's end."""
    return Cat(Mux(beat.count > n, lane[:bits], 0) for n, lane in enumerate(beat.lanes))


class FetchTarget(data.StructLayout):
    """Where a command's beats go. `turn` tells the head that asked from the one that has the bank now."""

    def __init__(self, config: AcceleratorConfig) -> None:
        banks = attention_latencies(config).banks
        super().__init__({"plane": KeyValuePlane, "bank": range(banks), "turn": 1})


class OperandBanks(wiring.Component):
    """Banks of both key planes and of values.

    Members
    -------
    fetched : In(stream.Signature(FetchBeat)), always ready; beats that nobody asked for are passed over.
    asked : In, a command in the cycle of its handshake: `plane` and `bank`.
    clear : In(1), forget all beats.
    product_words, weighted_words : In, words of a beat.
    key_address, with_lsb : In, the key word to read, and whether its LSB plane counts.
    keys : Out, the word addressed in the cycle before.
    value_address : In; values : Out, likewise.
    reads_keys, reads_values : In(1), the words are used; for proofs.
    value_done : In(BankRow), the values of a bank are read for the last time.
    awaited_keys, awaited_values : In(AwaitedBeat), of whichever bank is read next.
    has_msb, has_lsb, has_values : Out(banks), whether the awaited beat is complete in each bank.
    idle : Out(1), every command's final beat has come.

    Attributes
    ----------
    overflow : more commands are under way than a fetcher can hold, or a word is used that is being written; never. For
        proofs.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        formats, lanes = config.formats, config.softmax.lanes
        self.banks = banks = attention_latencies(config).banks
        self.product = WordGeometry(config.dot_product, lanes, config.max_head_dim)
        self.weighted = WordGeometry(config.weighted_sum, lanes, config.max_head_dim)
        self.shape = key_value_fetch_shape(config)
        self.overflow = Signal()
        most = self.most_beats = beats(config.capacity, lanes)
        super().__init__(
            {
                "fetched": In(stream.Signature(FetchBeat(self.shape))),
                "asked": In(data.StructLayout({"valid": 1, "plane": KeyValuePlane, "bank": range(banks)})),
                "clear": In(1),
                "product_words": In(range(self.product.words + 1)),
                "weighted_words": In(range(self.weighted.words + 1)),
                "key_address": In(range(banks * bank_words(config, self.product))),
                "with_lsb": In(1),
                "reads_keys": In(1),
                "reads_values": In(1),
                "keys": Out(data.ArrayLayout(signed(formats.key_bits), config.dot_product.multipliers)),
                "value_address": In(range(banks * bank_words(config, self.weighted))),
                "values": Out(data.ArrayLayout(signed(formats.value_bits), config.weighted_sum.multipliers)),
                "value_done": In(BankRow(config)),
                "awaited_keys": In(AwaitedBeat(most)),
                "awaited_values": In(AwaitedBeat(most)),
                "has_msb": Out(banks),
                "has_lsb": Out(banks),
                "has_values": Out(banks),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = self.banks
        m.submodules.targets = targets = Fifo(FetchTarget(self.config), FETCHES_UNDER_WAY)
        # Toggles when a bank gets another head: LSBs that were asked for but not awaited do not count for the next.
        turns = Signal(banks)
        asked, beat, target = self.asked, self.fetched.payload, targets.o.payload
        takes = Signal()
        opens = asked.valid & (asked.plane == KeyValuePlane.KEY_MSB)
        m.d.comb += [
            targets.i.valid.eq(asked.valid),
            targets.i.payload.plane.eq(asked.plane),
            targets.i.payload.bank.eq(asked.bank),
            targets.i.payload.turn.eq(turns.bit_select(asked.bank, 1)),
            self.fetched.ready.eq(1),
            takes.eq(self.fetched.valid & targets.o.valid),
            targets.o.ready.eq(takes & beat.final),
            self.idle.eq(~targets.o.valid),
        ]
        for bank in range(banks):
            with m.If(opens & (asked.bank == bank)):
                m.d.sync += turns[bank].eq(~turns[bank])

        is_plane = {plane: takes & (target.plane == plane) for plane in KeyValuePlane}
        self._words: list[WordBank] = []
        key_done = self._store_keys(m, takes, target)
        value_done = self._store_values(m, takes, target)
        m.d.comb += self.overflow.eq(
            Cat(targets.i.valid & ~targets.i.ready, *(words.overflow for words in self._words)).any()
        )
        for bank in range(banks):
            here = target.bank == bank
            # The head before has no row left and the new one none yet: its beats may be forgotten a cycle late.
            given = registered(m, self.clear | (opens & (asked.bank == bank)), f"given_{bank}")
            read = self.clear | (self.value_done.valid & (self.value_done.bank == bank))
            current = target.turn == turns[bank]
            for name, done, restarts, awaited, has in (
                ("msb", key_done & is_plane[KeyValuePlane.KEY_MSB], given, self.awaited_keys, self.has_msb),
                ("lsb", key_done & is_plane[KeyValuePlane.KEY_LSB] & current, given, self.awaited_keys, self.has_lsb),
                ("value", value_done & is_plane[KeyValuePlane.VALUE], read, self.awaited_values, self.has_values),
            ):
                m.submodules[f"{name}_beats_{bank}"] = count = BeatCount(self.most_beats)
                m.d.comb += [
                    count.completes.eq(done & here),
                    count.restarts.eq(restarts),
                    count.awaited.eq(awaited),
                    has[bank].eq(count.has_beat),
                ]
        return m

    def _place(self, m: Module, name: str, geometry: WordGeometry, words: Value, valid: Value) -> ChunkPlacer:
        """The placer of one array's banks."""
        beat = self.fetched.payload
        depth = bank_words(self.config, geometry)
        placer = ChunkPlacer(geometry.lanes, geometry.segments, depth, geometry.words)
        m.submodules[name] = placer
        m.d.comb += [
            placer.valid.eq(valid),
            placer.last.eq(beat.last),
            placer.final.eq(beat.final),
            placer.words.eq(words),
        ]
        return placer

    def _bank(
        self, m: Module, name: str, geometry: WordGeometry, bits: int, placer: ChunkPlacer, writes: Value, bank: Value
    ) -> WordBank:
        """The words of one plane, in all banks."""
        depth = bank_words(self.config, geometry)
        words = WordBank(bits * geometry.array.lane_split, geometry.segments, self.banks * depth)
        m.submodules[name] = words
        self._words.append(words)
        m.d.comb += [
            words.address.eq(placer.offset + bank_base(bank, depth, self.banks)),
            words.enable.eq(Mux(writes, placer.enable, 0)),
            words.fresh.eq(placer.fresh),
            words.chunk.eq(chunk_of(self.fetched.payload, bits)),
        ]
        return words

    def _store_keys(self, m: Module, takes: Value, target: data.View) -> Value:
        """Both key planes, as one key; returns whether a beat of rows is complete."""
        formats, geometry = self.config.formats, self.product
        planes = [(KeyValuePlane.KEY_MSB, formats.key_msb_bits)]
        if formats.key_lsb_bits:
            planes.append((KeyValuePlane.KEY_LSB, formats.key_lsb_bits))
        mine = [target.plane == plane for plane, _ in planes]
        placer = self._place(m, "key_placer", geometry, self.product_words, takes & Cat(mine).any())
        words = []
        for is_plane, (plane, bits) in zip(mine, planes, strict=True):
            bank = self._bank(m, plane.name.lower(), geometry, bits, placer, is_plane, target.bank)
            used = self.reads_keys & (self.with_lsb | (plane != KeyValuePlane.KEY_LSB))
            m.d.comb += [bank.read_address.eq(self.key_address), bank.reads.eq(used)]
            words.append((bank.word, bits))
        with_lsb = registered(m, self.with_lsb, "lsb_read")
        for n, key in enumerate(self.keys):
            parts = [word.word_select(n, bits) for word, bits in words]
            low = [Mux(with_lsb, part, 0) for part in parts[1:]]
            m.d.comb += key.eq(Cat(*low, parts[0]))
        return placer.beat

    def _store_values(self, m: Module, takes: Value, target: data.View) -> Value:
        """The values; returns whether a beat of rows is complete."""
        bits, geometry = self.config.formats.value_bits, self.weighted
        mine = target.plane == KeyValuePlane.VALUE
        placer = self._place(m, "value_placer", geometry, self.weighted_words, takes & mine)
        bank = self._bank(m, "value", geometry, bits, placer, mine, target.bank)
        m.d.comb += [
            bank.read_address.eq(self.value_address),
            bank.reads.eq(self.reads_values),
            self.values.as_value().eq(bank.word),
        ]
        return placer.beat


def query_slots() -> int:
    """Slots for queries: more than rows that wait, so a slot comes round only when its last word has been read."""
    return 1 << ISSUE_ROWS_AXI.bit_length()


class QuerySlots(wiring.Component):
    """Queries of the rows that wait for the dot-product array, in a ring of slots filled in the order of the commands.

    Members
    -------
    fetched : In(stream.Signature(FetchBeat)), always ready.
    arrived : Out(1), a query is complete with this cycle's beat.
    slot, word : In, what to read; query : Out, the chunks addressed in the cycle before.
    reads : In(1), they are used; for proofs.

    Attributes
    ----------
    overflow : chunks are used that are being written; never. For proofs.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.geometry = geometry = WordGeometry(config.dot_product, config.softmax.lanes, config.max_head_dim)
        self.slots = query_slots()
        # Query words: the chunks of one row that a key word holds.
        self.words = geometry.words // geometry.words_per_chunk
        self.overflow = Signal()
        width = geometry.chunks_per_word * geometry.array.lane_split
        super().__init__(
            {
                "fetched": In(stream.Signature(FetchBeat(query_fetch_shape(config)))),
                "arrived": Out(1),
                "slot": In(range(self.slots)),
                "word": In(range(self.words)),
                "reads": In(1),
                "query": Out(data.ArrayLayout(signed(config.formats.query_bits), width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        geometry, beat = self.geometry, self.fetched.payload
        bits = self.config.formats.query_bits
        segments = geometry.chunks_per_word
        m.submodules.placer = placer = ChunkPlacer(1, segments, self.words, 1)
        stride = 1 << (self.words - 1).bit_length()
        m.submodules.words = words = WordBank(bits * geometry.array.lane_split, segments, self.slots * stride)
        filled = Signal(range(self.slots))
        m.d.comb += [
            self.fetched.ready.eq(1),
            placer.valid.eq(self.fetched.valid),
            placer.last.eq(beat.last),
            placer.final.eq(beat.final),
            placer.words.eq(1),
            self.arrived.eq(self.fetched.valid & beat.final),
            words.address.eq(placer.offset + filled * stride),
            words.enable.eq(placer.enable),
            words.fresh.eq(placer.fresh),
            words.chunk.eq(chunk_of(beat, bits)),
            words.read_address.eq(self.word + self.slot * stride),
            words.reads.eq(self.reads),
            self.overflow.eq(words.overflow),
            self.query.as_value().eq(words.word),
        ]
        with m.If(self.arrived):
            m.d.sync += filled.eq(filled + 1)
        return m
