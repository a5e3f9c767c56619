"""Row issue: which row is computed next, its query, and its beats to the dot-product array."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.banks import bank_base, bank_words, of_bank, query_slots
from topsieve_rtl.attention.beat_count import AwaitedBeat
from topsieve_rtl.attention.core_layouts import AttentionJob, BankRow, CoreRow, FactorWrite, HeadWrite
from topsieve_rtl.attention.fall_through import FallThrough
from topsieve_rtl.attention.layouts import ProductBeat
from topsieve_rtl.attention.words import WordGeometry, WordRead
from topsieve_rtl.memory.rows import FetchCommand
from topsieve_rtl.stream import Fifo
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import INDEX_COMMANDS, ISSUE_ROWS_AXI, QueryPlane, query_fetch_shape
from topsieve_sim.golden.attention_latency import attention_latencies, beats
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, SCORE_SHIFT_BITS


class IssuedRow(data.StructLayout):
    """A picked row: how many keys it sees, and whether it is a repeated one."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"row": CoreRow(config), "keys": range(config.capacity + 1), "second_pass": 1})


class RowPicker(wiring.Component):
    """Chooses rows, repeated ones before new ones, asks for their queries and queues them.

    A row is picked in the cycle of its query command's handshake. What is offered stays offered, even if a row to repeat
    comes while a new one waits.

    Members
    -------
    start : In(1), a job begins with the next cycle; `job` holds from then on.
    head_write : In(HeadWrite)
    new_head : In(BankRow), the keys of the next head have been asked for.
    repeat, repeated_row : In, a row is dropped and wants a second pass.
    query_command : Out(stream.Signature(FetchCommand))
    queries : Out(stream.Signature(range(capacity))), the queries in the order of their commands, a cycle after them.
    o : Out(stream.Signature(IssuedRow))
    picked_new : Out(1), a new row is picked; `waits` : Out(1), a head has rows that are not picked.

    Attributes
    ----------
    overflow : a queue inside is written while full; never. For proofs.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.shape = query_fetch_shape(config)
        self.overflow = Signal()
        super().__init__(
            {
                "start": In(1),
                "job": In(AttentionJob(config)),
                "head_write": In(HeadWrite(config)),
                "new_head": In(BankRow(config)),
                "repeat": In(1),
                "repeated_row": In(CoreRow(config)),
                "query_command": Out(stream.Signature(FetchCommand(self.shape))),
                "queries": Out(stream.Signature(range(config.capacity))),
                "o": Out(stream.Signature(IssuedRow(config))),
                "picked_new": Out(1),
                "waits": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self.config, self.job
        cycles = attention_latencies(config)
        # First passes between pick and decision; while one of their rows waits here, no new row is picked but one that
        # is offered already.
        undecided = ISSUE_ROWS_AXI + cycles.dot_product_depth + 2 * cycles.row_slots + 1
        m.submodules.again = again = FallThrough(CoreRow(config), undecided)
        m.submodules.heads = heads = Fifo(range(cycles.banks), cycles.banks)
        m.submodules.rows = rows = Fifo(IssuedRow(config), ISSUE_ROWS_AXI)
        m.submodules.queries = queries = Fifo(range(config.capacity), INDEX_COMMANDS)
        row, fresh, fresh_address = Signal(CoreRow(config)), Signal(CoreRow(config)), Signal(self.shape.address_bits)
        picks, second, holds_new = Signal(), Signal(), Signal()
        picked_new = picks & ~second
        self._walk(m, heads, fresh, fresh_address, picked_new)

        addresses = self._query_addresses(m, fresh, fresh_address, picked_new)
        command = self.query_command.payload
        m.d.comb += [
            again.strobe.eq(self.repeat),
            again.payload.eq(self.repeated_row),
            heads.i.valid.eq(self.new_head.valid),
            heads.i.payload.eq(self.new_head.bank),
            second.eq(again.o.valid & ~holds_new),
            self.query_command.valid.eq((again.o.valid | heads.o.valid) & rows.i.ready & queries.i.ready),
            picks.eq(self.query_command.valid & self.query_command.ready),
            row.eq(Mux(second, again.o.payload, fresh)),
            addresses.addr.eq(again.o.payload.number.head),
            command.base.eq(Mux(second, addresses.data, fresh_address)),
            command.stride.eq(job.query_row_bytes),
            command.rows.eq(1),
            command.elements.eq(job.head_dim),
            command.plane.eq(QueryPlane.QUERY),
            command.gather.eq(1),
            again.o.ready.eq(picks & second),
            queries.i.valid.eq(picks),
            queries.i.payload.eq(row.number.query),
            rows.i.valid.eq(picks),
            rows.i.payload.row.eq(row),
            rows.i.payload.keys.eq(self._keys_of(m, row.number.query)),
            rows.i.payload.second_pass.eq(second),
            self.picked_new.eq(picked_new),
            self.waits.eq(heads.o.valid),
            self.overflow.eq(again.overflow | (heads.i.valid & ~heads.i.ready)),
        ]
        m.d.sync += holds_new.eq(self.query_command.valid & ~self.query_command.ready & ~second)
        m.d.comb += [self.queries.valid.eq(queries.o.valid), self.queries.payload.eq(queries.o.payload)]
        m.d.comb += [queries.o.ready.eq(self.queries.ready), rows.o.ready.eq(self.o.ready)]
        m.d.comb += [self.o.valid.eq(rows.o.valid), self.o.payload.eq(rows.o.payload)]
        return m

    def _keys_of(self, m: Module, query: Value) -> Value:
        """Keys that a row sees: all, or, causal, keys - queries + query + 1 and at least one."""
        job = self.job
        ahead = Signal.like(job.keys - job.queries)
        m.d.sync += ahead.eq(job.keys - job.queries)
        seen = ahead + query
        return Mux(job.causal, Mux(seen < 0, 1, seen + 1), job.keys)

    def _walk(self, m: Module, heads: Fifo, fresh: Signal, fresh_address: Signal, picked: Value) -> None:
        """The next new row: queries of a query head, query heads of a key-value head, key-value heads."""
        config, job = self.config, self.job
        m.submodules.bases = bases = memory.Memory(
            shape=self.shape.address_bits, depth=config.importance.heads, init=[]
        )
        writer, reader = bases.write_port(), bases.read_port(domain="comb")
        slot, member = Signal(range(config.importance.heads)), Signal(range(config.importance.heads))
        query, head = Signal(range(config.capacity)), Signal(range(config.importance.heads))
        following = Signal(self.shape.address_bits)
        last_query, last_member = Signal(), Signal()
        m.d.comb += [
            writer.en.eq(self.head_write.valid),
            writer.addr.eq(self.head_write.slot),
            writer.data.eq(self.head_write.query),
            reader.addr.eq(slot),
            fresh_address.eq(Mux(member == 0, reader.data, following)),
            fresh.number.query.eq(query),
            fresh.number.head.eq(head),
            fresh.bank.eq(heads.o.payload),
            last_query.eq(query + 1 == job.queries),
            last_member.eq(member + 1 == job.group),
            heads.o.ready.eq(picked & last_query & last_member),
        ]
        with m.If(picked):
            m.d.sync += query.eq(query + 1)
            with m.If(last_query):
                m.d.sync += [
                    query.eq(0),
                    head.eq(head + 1),
                    member.eq(member + 1),
                    following.eq(fresh_address + job.query_head_bytes),
                ]
                with m.If(last_member):
                    m.d.sync += [member.eq(0), slot.eq(slot + 1)]
        with m.If(self.start):
            m.d.sync += [query.eq(0), head.eq(0), member.eq(0), slot.eq(0)]

    def _query_addresses(self, m: Module, fresh: Signal, fresh_address: Signal, picked: Value) -> memory.ReadPort:
        """Addresses of the query heads that have been picked, for their repeated rows."""
        m.submodules.addresses = addresses = memory.Memory(
            shape=self.shape.address_bits, depth=self.config.importance.heads, init=[]
        )
        writer, reader = addresses.write_port(), addresses.read_port(domain="comb")
        m.d.comb += [writer.en.eq(picked), writer.addr.eq(fresh.number.head), writer.data.eq(fresh_address)]
        return reader


class RowIssue(wiring.Component):
    """Picked rows to the dot-product array, beat by beat, each as soon as its query and its keys are there.

    Members
    -------
    i : In(stream.Signature(IssuedRow)), in the order of their queries.
    job : In(AttentionJob)
    factor_write : In(FactorWrite)
    whole_keys : In(1), first passes read both key planes.
    query_arrived : In(1), a query is complete with this cycle.
    has_msb, has_lsb : In(banks), whether the awaited beat of each key bank is complete; awaited : Out(AwaitedBeat).
    o : Out(stream.Signature(ProductBeat))
    read : In(WordRead), the word that the array reads in this cycle.
    key_address, with_lsb, slot, multiplier, shift : Out, that word's key, whether it is a whole one, its query's slot, and
        its score factor.
    keys_done : Out(BankRow), in the cycle after a row's last key word was read.

    Attributes
    ----------
    supplied : query and keys of the next beat are there; for counters.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        lanes = config.softmax.lanes
        self.geometry = WordGeometry(config.dot_product, lanes, config.max_head_dim)
        self.supplied = Signal()
        banks = attention_latencies(config).banks
        super().__init__(
            {
                "i": In(stream.Signature(IssuedRow(config))),
                "job": In(AttentionJob(config)),
                "factor_write": In(FactorWrite(config)),
                "whole_keys": In(1),
                "query_arrived": In(1),
                "has_msb": In(banks),
                "has_lsb": In(banks),
                "awaited": Out(AwaitedBeat(beats(config.capacity, lanes))),
                "o": Out(stream.Signature(ProductBeat(config, CoreRow(config).size))),
                "read": In(WordRead(self.geometry)),
                "key_address": Out(range(banks * bank_words(config, self.geometry))),
                "with_lsb": Out(1),
                "slot": Out(range(query_slots())),
                "multiplier": Out(SCORE_MULTIPLIER_BITS),
                "shift": Out(SCORE_SHIFT_BITS),
                "keys_done": Out(BankRow(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.softmax.lanes
        issued, product = self.i.payload, self.o.payload
        bank = issued.row.bank

        # Queries that are complete and whose rows are not finished.
        queries = Signal(range(query_slots() + 1))
        first, left = Signal(init=1), Signal(range(self.config.capacity + 1))
        beat = Signal.like(self.awaited.beat)
        keys_left, starts, last, with_lsb = Signal.like(left), Signal(), Signal(), Signal()
        # Whether `left` is the last beat.
        ending = Signal()
        m.d.comb += [
            keys_left.eq(Mux(first, issued.keys, left)),
            last.eq(Mux(first, issued.keys <= lanes, ending)),
            with_lsb.eq(self.whole_keys | issued.second_pass),
            self.supplied.eq((queries != 0) & of_bank(self.has_msb, bank) & (~with_lsb | of_bank(self.has_lsb, bank))),
            self.awaited.beat.eq(beat),
            self.awaited.following.eq(Mux(last, 0, beat + 1)),
            self.awaited.starts.eq(starts),
            self.o.valid.eq(self.i.valid & self.supplied),
            starts.eq(self.o.valid & self.o.ready),
            product.count.eq(Mux(last, keys_left, lanes)),
            product.last.eq(last),
            product.row.eq(issued.row.as_value()),
            product.second_pass.eq(issued.second_pass),
            self.i.ready.eq(starts & last),
        ]
        m.d.sync += queries.eq(queries + self.query_arrived - (starts & last))
        with m.If(starts):
            m.d.sync += [
                first.eq(last),
                left.eq(keys_left - lanes),
                ending.eq(keys_left <= 2 * lanes),
                beat.eq(self.awaited.following),
            ]
        self._read(m, starts, first, last, with_lsb)
        return m

    def _read(self, m: Module, starts: Value, first: Value, last: Value, with_lsb: Value) -> None:
        """Follow the array through the words of a beat; what belongs to the row is held when the row has gone."""
        issued, depth = self.i.payload, bank_words(self.config, self.geometry)
        m.submodules.factors = factors = memory.Memory(
            shape=SCORE_MULTIPLIER_BITS + SCORE_SHIFT_BITS, depth=self.config.importance.heads, init=[]
        )
        writer, reader = factors.write_port(), factors.read_port(domain="comb")
        m.d.comb += [
            writer.en.eq(self.factor_write.valid),
            writer.addr.eq(self.factor_write.slot),
            writer.data.eq(Cat(self.factor_write.multiplier, self.factor_write.shift)),
            reader.addr.eq(issued.row.number.head),
        ]
        slot, next_address = Signal.like(self.slot), Signal.like(self.key_address)
        bank, ends = Signal.like(issued.row.bank), Signal()
        present = Cat(with_lsb, slot, reader.data, issued.row.bank, last)
        held = Signal(len(present))
        outputs = Cat(self.with_lsb, self.slot, self.multiplier, self.shift, bank, ends)
        m.d.comb += [
            outputs.eq(Mux(starts, present, held)),
            self.key_address.eq(
                Mux(
                    starts & first,
                    bank_base(issued.row.bank, depth, attention_latencies(self.config).banks),
                    next_address,
                )
            ),
        ]
        with m.If(starts):
            m.d.sync += held.eq(present)
            with m.If(last):
                m.d.sync += slot.eq(slot + 1)
        with m.If(self.read.valid):
            m.d.sync += next_address.eq(self.key_address + 1)
        m.d.sync += [
            self.keys_done.valid.eq(self.read.last & ends),
            self.keys_done.bank.eq(bank),
        ]
