"""The attention core: one layer of one sequence, from operands in memory to output rows."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.activity import Progress, cause
from topsieve_rtl.attention.banks import OperandBanks, QuerySlots, bank_base, bank_words, of_bank
from topsieve_rtl.attention.core_layouts import (
    AttentionJob,
    CoreRow,
    FactorWrite,
    HeadWrite,
    ProbabilityTap,
    RowNumber,
    TokenWrite,
)
from topsieve_rtl.attention.dot_product import DotProductArray
from topsieve_rtl.attention.fetch_order import FetchOrder
from topsieve_rtl.attention.indices import FetchIndices
from topsieve_rtl.attention.issue import RowIssue, RowPicker
from topsieve_rtl.attention.layouts import OutputRow
from topsieve_rtl.attention.selection import ValueSelection
from topsieve_rtl.attention.softmax import Softmax
from topsieve_rtl.attention.weighted_sum import WeightedSumArray
from topsieve_rtl.memory.rows import FetchCommand
from topsieve_rtl.memory.unpack import FetchBeat
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.timing.accounting import (
    CAUSES,
    DONE,
    DOT_PRODUCT,
    EXPONENTIAL,
    INPUT,
    MEMORY,
    NORMALISE,
    SOFTMAX_FILL,
    TOPK,
    UNITS,
    WEIGHTED_SUM,
)


class AttentionCore(wiring.Component):
    """Attention of the live heads of a layer; `docs/accelerator.md`, section "Attention core".

    Heads, score factors and the live list are written before the job; they hold until it is done. Bits:
    `topsieve_sim.golden.attention`.

    Members
    -------
    job : In(stream.Signature(AttentionJob)), taken while idle.
    head_write : In(HeadWrite), factor_write : In(FactorWrite), token_write : In(TokenWrite)
    fetch_command, fetch_index, fetched : the fetcher of keys and values; beats that no command of the core asked for are
        passed over.
    query_command, query_index, query_fetched : the fetcher of queries.
    o : Out(stream.Signature(OutputRow)), its row a `RowNumber`. The handshake is the tap for the head importance.
    probability_tap : Out(ProbabilityTap)
    repeated : Out(1), a row was dropped and will be computed again.
    activity : Out, of the cycle before, the cause of each unit of `topsieve_sim.timing.accounting`: done outside of a
        job and in its last cycle. The core does not see the words of the memory, whose unit here waits for input.
    done : Out(1), high in the last cycle of a job; idle : Out(1), high outside of jobs.

    Attributes
    ----------
    product, softmax, weighted, selection, picker, fetch_order : the units inside, for tests and proofs.
    overflow : a queue anywhere inside is written while full or read while empty, or a word is used that is being written;
        never.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        row_bits = CoreRow(config).size
        self.product = DotProductArray(config, row_bits)
        self.softmax = Softmax(config, row_bits)
        self.weighted = WeightedSumArray(config, row_bits)
        self.selection = ValueSelection(config, row_bits)
        self.picker = RowPicker(config)
        self.fetch_order = FetchOrder(config)
        self.overflow = Signal()
        keys, queries = key_value_fetch_shape(config), query_fetch_shape(config)
        index = stream.Signature(range(config.capacity))
        super().__init__(
            {
                "job": In(stream.Signature(AttentionJob(config))),
                "head_write": In(HeadWrite(config)),
                "factor_write": In(FactorWrite(config)),
                "token_write": In(TokenWrite(config)),
                "fetch_command": Out(stream.Signature(FetchCommand(keys))),
                "fetch_index": Out(index),
                "fetched": In(stream.Signature(FetchBeat(keys))),
                "query_command": Out(stream.Signature(FetchCommand(queries))),
                "query_index": Out(index),
                "query_fetched": In(stream.Signature(FetchBeat(queries))),
                "o": Out(stream.Signature(OutputRow(config, RowNumber(config).size))),
                "probability_tap": Out(ProbabilityTap(config)),
                "repeated": Out(1),
                "activity": Out(data.ArrayLayout(range(CAUSES), UNITS), init=[DONE] * UNITS),
                "done": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.product = self.product
        m.submodules.softmax = self.softmax
        m.submodules.weighted = self.weighted
        m.submodules.selection = self.selection
        m.submodules.picker = self.picker
        m.submodules.fetch_order = self.fetch_order
        m.submodules.banks = self._banks = OperandBanks(self.config)
        self._take_job(m)
        self._connect_scores(m)
        self._connect_probabilities(m)
        self._connect_fetches(m)
        self._observe(m)
        return m

    def _take_job(self, m: Module) -> None:
        """The job and what follows from it; beginning and end."""
        has_lsb = self.config.formats.key_lsb_bits > 0
        offered, job = self.job.payload, Signal(AttentionJob(self.config))
        running, start = Signal(), Signal()
        head_rows, selects, gathers = Signal.like(self.fetch_order.head_rows), Signal(), Signal()
        some_kept = (offered.kept_values != 0) & (offered.kept_values < offered.keys)
        m.d.comb += [
            self.idle.eq(~running),
            self.job.ready.eq(~running),
            start.eq(self.job.valid & self.job.ready),
        ]
        with m.If(start):
            m.d.sync += [
                job.eq(offered),
                running.eq(1),
                head_rows.eq(offered.group * offered.queries),
                selects.eq(some_kept),
                gathers.eq(some_kept & (offered.group == 1) & (offered.queries == 1)),
            ]
        with m.Elif(self.done):
            m.d.sync += running.eq(0)
        self._job, self._start, self._selects, self._gathers = job, start, selects, gathers
        # Without LSB planes a first pass is whole and final.
        self._progressive = job.progressive if has_lsb else Const(0)
        self._whole_keys = ~job.progressive if has_lsb else Const(0)

        # New rows that were picked and whose output has not left.
        rows = Signal(len(head_rows) + 1)
        m.d.sync += rows.eq(rows + self.picker.picked_new - (self.o.valid & self.o.ready))
        m.d.comb += [
            self.done.eq(running & self.fetch_order.idle & self._banks.idle & ~self.picker.waits & (rows == 0)),
            self.fetch_order.head_rows.eq(head_rows),
        ]

    def _connect_scores(self, m: Module) -> None:
        """Rows to scores to probabilities."""
        config, product, softmax, picker, banks = self.config, self.product, self.softmax, self.picker, self._banks
        m.submodules.issue = issue = self._issue = RowIssue(config)
        m.submodules.slots = slots = self._slots = QuerySlots(config)
        wiring.connect(m, picker.o, issue.i)
        wiring.connect(m, issue.o, product.i)
        wiring.connect(m, product.o, softmax.i)
        wiring.connect(m, wiring.flipped(self.query_fetched), slots.fetched)
        decided = Signal(CoreRow(config))
        m.d.comb += [
            decided.eq(softmax.decision.row),
            picker.start.eq(self._start),
            picker.job.eq(self._job),
            picker.head_write.eq(self.head_write),
            picker.new_head.eq(self.fetch_order.new_head),
            picker.repeat.eq(softmax.decided & softmax.decision.dropped),
            picker.repeated_row.eq(decided),
            self.repeated.eq(picker.repeat),
            issue.job.eq(self._job),
            issue.factor_write.eq(self.factor_write),
            issue.whole_keys.eq(self._whole_keys),
            issue.query_arrived.eq(slots.arrived),
            issue.has_msb.eq(banks.has_msb),
            issue.has_lsb.eq(banks.has_lsb),
            banks.awaited_keys.eq(issue.awaited),
            issue.read.eq(product.read),
            slots.slot.eq(issue.slot),
            slots.word.eq(product.read.chunk),
            slots.reads.eq(product.read.valid),
            banks.reads_keys.eq(product.read.valid),
            banks.key_address.eq(issue.key_address),
            banks.with_lsb.eq(issue.with_lsb),
            product.words.eq(self._job.product_words),
            product.multiplier.eq(issue.multiplier),
            product.shift.eq(issue.shift),
            product.keys.eq(banks.keys),
            product.query.eq(slots.query),
            softmax.threshold.eq(Mux(self._progressive, self._job.threshold, 0)),
        ]
        order = self.fetch_order
        passed = softmax.decided & ~softmax.decision.dropped
        m.d.comb += [
            order.dropped.valid.eq(picker.repeat),
            order.dropped.bank.eq(decided.bank),
            order.keys_done.valid.eq(Mux(self._progressive, passed, issue.keys_done.valid)),
            order.keys_done.bank.eq(Mux(self._progressive, decided.bank, issue.keys_done.bank)),
        ]

    def _connect_probabilities(self, m: Module) -> None:
        """Probabilities, or what local value selection leaves of them, to output rows."""
        softmax, selection, weighted, banks = self.softmax, self.selection, self.weighted, self._banks
        lanes, tap = softmax.o.payload.lanes, self.probability_tap
        beat, values, number = weighted.i.payload, Signal(), Signal(CoreRow(self.config))
        place = Signal.like(tap.word)
        selects = self._selects
        m.d.comb += [
            selection.kept.eq(self._job.kept_values),
            selection.gather.eq(self._gathers),
            selection.i.valid.eq(softmax.o.valid & selects),
            selection.i.payload.eq(softmax.o.payload),
            beat.eq(Mux(selects, selection.o.payload, softmax.o.payload)),
            weighted.i.valid.eq(Mux(selects, selection.o.valid, softmax.o.valid) & values),
            selection.o.ready.eq(weighted.i.ready & values & selects),
            softmax.o.ready.eq(Mux(selects, selection.i.ready, weighted.i.ready & values)),
            tap.valid.eq(softmax.o.valid & softmax.o.ready),
            tap.lanes.eq(lanes),
            tap.word.eq(place),
            weighted.words.eq(self._job.weighted_words),
            weighted.values.eq(banks.values),
            banks.reads_values.eq(weighted.read.valid),
        ]
        with m.If(tap.valid):
            m.d.sync += place.eq(Mux(softmax.o.payload.last, 0, place + 1))
        m.d.comb += values.eq(self._read_values(m, Value.cast(beat.row)))
        self._values, self._weights = values, Mux(selects, selection.o.valid, softmax.o.valid)
        m.d.comb += [
            number.eq(weighted.o.payload.row),
            self.o.valid.eq(weighted.o.valid),
            self.o.payload.elements.eq(weighted.o.payload.elements),
            self.o.payload.row.eq(number.number),
            weighted.o.ready.eq(self.o.ready),
        ]

    def _read_values(self, m: Module, row: Value) -> Value:
        """Follow the weighted-sum array through the value words; returns whether the next beat's values are there."""
        config, banks, weighted = self.config, self._banks, self.weighted
        count = attention_latencies(config).banks
        named = Signal(CoreRow(config))
        # Survivors' values have banks in the order of the rows.
        turn, bank, held = Signal(range(count)), Signal(range(count)), Signal(range(count))
        next_address = Signal.like(banks.value_address)
        starts, ends, ends_now = Signal(), Signal(), Signal()
        awaited, last = banks.awaited_values, weighted.i.payload.last
        beat = Signal.like(awaited.beat)
        base = bank_base(bank, bank_words(config, weighted.geometry), count)
        read = self.fetch_order.values_read
        m.d.comb += [
            named.eq(row),
            bank.eq(Mux(self._gathers, turn, named.bank)),
            starts.eq(weighted.i.valid & weighted.i.ready),
            banks.value_address.eq(Mux(starts & (beat == 0), base, next_address)),
            awaited.beat.eq(beat),
            awaited.following.eq(Mux(last, 0, beat + 1)),
            awaited.starts.eq(starts),
            ends_now.eq(Mux(starts, last, ends)),
            read.valid.eq(weighted.read.last & ends_now),
            read.bank.eq(Mux(starts, bank, held)),
        ]
        with m.If(starts):
            m.d.sync += [ends.eq(last), held.eq(bank), beat.eq(awaited.following)]
            with m.If(last):
                m.d.sync += turn.eq(Mux(turn == count - 1, 0, turn + 1))
        with m.If(weighted.read.valid):
            m.d.sync += next_address.eq(banks.value_address + 1)
        with m.If(self._start):
            m.d.sync += turn.eq(0)
        return of_bank(banks.has_values, bank)

    def _connect_fetches(self, m: Module) -> None:
        """Commands and their indices; the live list."""
        config, order, banks, picker, job = self.config, self.fetch_order, self._banks, self.picker, self._job
        m.submodules.indices = indices = self._indices = FetchIndices(config)
        m.submodules.live = live = memory.Memory(shape=range(config.capacity), depth=config.capacity, init=[])
        writer = live.write_port()
        tokens, query_tokens = live.read_port(domain="comb"), live.read_port(domain="comb")
        taken = self.fetch_command.valid & self.fetch_command.ready
        m.d.comb += [
            writer.en.eq(self.token_write.valid),
            writer.addr.eq(self.token_write.position),
            writer.data.eq(self.token_write.token),
            order.start.eq(self._start),
            order.job.eq(job),
            order.whole_keys.eq(self._whole_keys),
            order.gathers.eq(self._gathers),
            order.head_write.eq(self.head_write),
            order.survivors.eq(self.selection.finished & self._gathers),
            self.fetch_command.valid.eq(order.command.valid),
            self.fetch_command.payload.eq(order.command.payload),
            order.command.ready.eq(self.fetch_command.ready),
            indices.i.valid.eq(taken & order.command.payload.gather),
            indices.i.payload.rows.eq(order.command.payload.rows),
            indices.i.payload.of_survivors.eq(order.of_survivors),
            indices.mapped.eq(job.live_tokens),
            tokens.addr.eq(indices.position),
            indices.token.eq(tokens.data),
            banks.asked.valid.eq(taken),
            banks.asked.plane.eq(order.asked_plane),
            banks.asked.bank.eq(order.asked_bank),
            banks.clear.eq(self._start),
            banks.product_words.eq(job.product_words),
            banks.weighted_words.eq(job.weighted_words),
            banks.value_done.eq(order.values_done),
        ]
        wiring.connect(m, wiring.flipped(self.fetched), banks.fetched)
        wiring.connect(m, self.selection.positions, indices.survivors)
        wiring.connect(m, indices.o, wiring.flipped(self.fetch_index))
        wiring.connect(m, picker.query_command, wiring.flipped(self.query_command))
        m.d.comb += [
            query_tokens.addr.eq(picker.queries.payload),
            self.query_index.valid.eq(picker.queries.valid),
            self.query_index.payload.eq(Mux(job.live_queries, query_tokens.data, picker.queries.payload)),
            picker.queries.ready.eq(self.query_index.ready),
        ]

    def _observe(self, m: Module) -> None:
        """The cause of each unit's cycle, and what must never happen."""
        product, softmax, weighted = self.product, self.softmax, self.weighted
        products, scores, weights = Signal(Progress()), Signal(Progress()), Signal(Progress())
        m.d.comb += [
            products.eq(Cat(product.read.valid, self._issue.i.valid)),
            scores.eq(Cat(product.o.valid & softmax.i.ready, product.o.valid)),
            weights.eq(Cat(weighted.read.valid, self._weights)),
        ]
        units = (product, softmax, weighted, self.selection, self.picker, self.fetch_order, self._banks, self._slots)
        lost_index = self._indices.i.valid & ~self._indices.i.ready
        m.d.comb += self.overflow.eq(Cat(*(unit.overflow for unit in units), lost_index).any())
        causes = {
            MEMORY: INPUT,
            DOT_PRODUCT: cause(products, self._issue.supplied),
            SOFTMAX_FILL: cause(scores),
            EXPONENTIAL: cause(softmax.exponential_progress),
            NORMALISE: cause(softmax.normalise_progress),
            TOPK: cause(self.selection.progress),
            WEIGHTED_SUM: cause(weights, self._values),
        }
        for unit, code in causes.items():
            m.d.sync += self.activity[unit].eq(Mux(self.idle | self.done, DONE, code))
