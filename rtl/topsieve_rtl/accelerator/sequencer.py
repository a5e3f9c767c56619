"""The sequencer: descriptors from memory, checked, and the phases that each of them asks for."""

from __future__ import annotations

from collections.abc import Iterator

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.accelerator.cascade import CascadeCommand, CascadeOperation
from topsieve_rtl.accelerator.writer import LiveHeadWrite, WriterJob
from topsieve_rtl.attention.core_layouts import AttentionJob, FactorWrite, HeadWrite
from topsieve_rtl.memory.rows import FetchCommand
from topsieve_rtl.memory.unpack import FetchBeat
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.config import ArrayConfig
from topsieve_sim.golden.accelerator import RunError
from topsieve_sim.golden.accelerator_latency import (
    DESCRIPTOR_BYTES,
    FACTOR_BYTES,
    KeyValuePlane,
    key_value_fetch_shape,
)
from topsieve_sim.golden.descriptor import FIELDS, DescriptorField, Flag

ERROR_BITS = 8

# Commands to the cascade unit, in their order: before the attention and after it.
_BEFORE = (
    (Flag.CLEAR_IMPORTANCE, CascadeOperation.CLEAR),
    (Flag.RESET_TOKENS, CascadeOperation.RESET_TOKENS),
    (Flag.RESET_HEADS, CascadeOperation.RESET_HEADS),
)
_AFTER = (
    (Flag.PRUNE_TOKENS, CascadeOperation.PRUNE_TOKENS),
    (Flag.PRUNE_HEADS, CascadeOperation.PRUNE_HEADS),
    (Flag.REPORT, CascadeOperation.REPORT),
)


class State(enum.Enum, shape=4):
    """The phases; `docs/accelerator.md`, "Order of the phases"."""

    IDLE = 0
    FETCH = 1
    SUMS = 2
    CONDITIONS = 3
    RESET = 4
    FACTORS = 5
    SET_UP = 6
    ATTENTION = 7
    RUN = 8
    WAIT = 9
    PRUNE = 10


class Sequencer(wiring.Component):
    """Runs the descriptors of a job; `docs/accelerator.md`, "Order of the phases".

    Members
    -------
    start : In(1); descriptor_address : In; threshold : In, of progressive quantisation.
    busy : Out(1); done, interrupts : Out(1), strobes in the last busy cycle of the job, and of a descriptor that
        interrupts; error : Out(8), its code in the last busy cycle of a job that fails.
    fetches : Out(1), the fetcher of keys and values is the sequencer's.
    command, fetched : its commands and beats.
    read_failed, write_failed : In(1), strobes.
    cascade : Out(stream.Signature(CascadeCommand)); live_tokens, live_heads, alive : In, what the unit holds.
    head_write : Out(HeadWrite), factor_write : Out(FactorWrite), live_head_write : Out(LiveHeadWrite)
    job : Out(stream.Signature(AttentionJob)), core_done : In(1)
    writer_job : Out(WriterJob); reports : Out(1), the writer takes records; writer_idle : In(1)
    flags : Out, of the present descriptor.

    Attributes
    ----------
    state : for proofs.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.state = Signal(State)
        shape, address = key_value_fetch_shape(config), config.memory.axi.address_bits
        heads = config.importance.heads
        self._address_bits = address
        super().__init__(
            {
                "start": In(1),
                "descriptor_address": In(address),
                "threshold": In(config.formats.probability_bits + 1),
                "busy": Out(1),
                "done": Out(1),
                "interrupts": Out(1),
                "error": Out(ERROR_BITS),
                "fetches": Out(1),
                "command": Out(stream.Signature(FetchCommand(shape))),
                "fetched": In(stream.Signature(FetchBeat(shape))),
                "read_failed": In(1),
                "write_failed": In(1),
                "cascade": Out(stream.Signature(CascadeCommand())),
                "live_tokens": In(range(config.capacity + 1)),
                "live_heads": In(range(heads + 1)),
                "alive": In(heads),
                "head_write": Out(HeadWrite(config)),
                "factor_write": Out(FactorWrite(config)),
                "live_head_write": Out(LiveHeadWrite(config)),
                "job": Out(stream.Signature(AttentionJob(config))),
                "core_done": In(1),
                "writer_job": Out(WriterJob(config)),
                "reports": Out(1),
                "writer_idle": In(1),
                "flags": Out(len(Flag)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state = self.state
        self._fields = {field.name: Signal(8 * field.size_bytes, name=field.name) for field in FIELDS}
        self._address = Signal(self._address_bits)
        self._failed = Signal(2)
        self._heads = Signal(range(256 * 256))
        self._keys, self._queries = Signal(17), Signal(17)
        self._ends, self._fails = Signal(), Signal()
        fields = self._fields
        m.d.comb += [
            self.busy.eq(state != State.IDLE),
            self.flags.eq(fields["flags"]),
            self.reports.eq((state == State.PRUNE) & self._flag(Flag.REPORT)),
        ]
        received = self._fetch(m)
        bad = self._check(m)
        before, after = self._command_cascade(m)
        set_up = self._set_up(m)
        self._offer_job(m)

        m.d.sync += self._failed.eq(Mux(self.busy, self._failed | Cat(self.read_failed, self.write_failed), 0))

        with m.Switch(state):
            with m.Case(State.IDLE), m.If(self.start):
                m.d.sync += [state.eq(State.FETCH), self._address.eq(self.descriptor_address)]
            with m.Case(State.FETCH), m.If(received):
                m.d.sync += state.eq(State.SUMS)
            with m.Case(State.SUMS):
                m.d.sync += state.eq(State.CONDITIONS)
            with m.Case(State.CONDITIONS):
                m.d.comb += self._fails.eq(bad | self._failed.any())
                m.d.sync += state.eq(Mux(self._fails, State.IDLE, State.RESET))
            with m.Case(State.RESET), m.If(before):
                m.d.sync += state.eq(State.FACTORS)
            with m.Case(State.FACTORS), m.If(received):
                m.d.sync += state.eq(State.SET_UP)
            with m.Case(State.SET_UP), m.If(set_up):
                m.d.sync += state.eq(State.ATTENTION)
            with m.Case(State.ATTENTION), m.If(self.job.ready):
                m.d.sync += state.eq(State.RUN)
            with m.Case(State.RUN), m.If(self.core_done):
                m.d.sync += state.eq(State.WAIT)
            with m.Case(State.WAIT), m.If(self.writer_idle):
                m.d.sync += state.eq(State.PRUNE)
            with m.Case(State.PRUNE):
                failed = self._failed.any()
                m.d.comb += [self._ends.eq(after & ~failed), self._fails.eq(after & failed)]
                with m.If(after):
                    m.d.sync += [
                        state.eq(Mux(failed | self._flag(Flag.LAST), State.IDLE, State.FETCH)),
                        self._address.eq(self._address + DESCRIPTOR_BYTES),
                    ]
        m.d.comb += [
            self.done.eq(self._ends & self._flag(Flag.LAST)),
            self.interrupts.eq(self._ends & (self._flag(Flag.LAST) | self._flag(Flag.INTERRUPT))),
        ]
        with m.If(self._fails):
            code = Mux(self._failed[0], RunError.READ, Mux(self._failed[1], RunError.WRITE, RunError.BAD_DESCRIPTOR))
            m.d.comb += self.error.eq(code)
        return m

    def _flag(self, flag: Flag) -> Value:
        return self._fields["flags"][flag.bit_length() - 1]

    def _fetch(self, m: Module) -> Value:
        """Descriptors and score factors, each as one row of bytes; a strobe with the final beat."""
        lanes = key_value_fetch_shape(self.config).lanes
        offers, beat = Signal(init=1), Signal(range(max(DESCRIPTOR_BYTES, FACTOR_BYTES * len(self.alive))))
        fetching, factors = self.state == State.FETCH, self.state == State.FACTORS
        command, fetched = self.command.payload, self.fetched.payload
        takes, received = Signal(), Signal()
        m.d.comb += [
            self.fetches.eq(fetching | factors),
            self.command.valid.eq(self.fetches & offers),
            command.base.eq(Mux(fetching, self._address, self._fields["factors"])),
            command.rows.eq(1),
            command.elements.eq(Mux(fetching, DESCRIPTOR_BYTES, self._heads * FACTOR_BYTES)),
            command.plane.eq(KeyValuePlane.BYTES),
            self.fetched.ready.eq(self.fetches),
            takes.eq(self.fetched.valid & self.fetched.ready),
            received.eq(takes & fetched.final),
        ]
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += offers.eq(0)
        with m.If(takes):
            m.d.sync += beat.eq(beat + 1)
        with m.If(received):
            m.d.sync += [offers.eq(1), beat.eq(0)]

        def stored(place: int, byte: Value) -> None:
            with m.If(beat == place // lanes):
                m.d.sync += byte.eq(fetched.lanes[place % lanes])

        with m.If(takes & fetching):
            for field in FIELDS:
                for byte in range(field.size_bytes):
                    stored(field.offset + byte, self._fields[field.name][8 * byte : 8 * byte + 8])
        self._factors = Signal(8 * FACTOR_BYTES * len(self.alive))
        with m.If(takes & factors):
            for byte in range(FACTOR_BYTES * len(self.alive)):
                stored(byte, self._factors[8 * byte : 8 * byte + 8])
        with m.If(self.state == State.SET_UP):
            m.d.sync += self._factors.eq(self._factors >> (8 * FACTOR_BYTES))
        return received

    def _check(self, m: Module) -> Value:
        """Whether the descriptor is bad: `topsieve_sim.golden.descriptor.descriptor_problem`."""
        fields, config = self._fields, self.config
        reset_heads, tokens, heads = Signal.like(self._heads), Signal(17), Signal.like(self._heads)
        all_heads = fields["kv_heads"] * fields["group"]
        tokens_now = Mux(self._flag(Flag.RESET_TOKENS), fields["keys"], self.live_tokens)
        with m.If(self.state == State.SUMS):
            m.d.sync += [
                self._heads.eq(all_heads),
                tokens.eq(tokens_now),
                heads.eq(Mux(self._flag(Flag.RESET_HEADS), all_heads, reset_heads)),
                self._keys.eq(Mux(self._flag(Flag.LIVE_TOKENS), tokens_now, fields["keys"])),
                self._queries.eq(Mux(self._flag(Flag.LIVE_QUERIES), tokens_now, fields["queries"])),
            ]
        bad = Signal()
        with m.If((self.state == State.CONDITIONS) & ~self._fails & self._flag(Flag.RESET_HEADS)):
            m.d.sync += reset_heads.eq(heads)

        def outside(value: Value, largest: int) -> Value:
            return (value == 0) | (value > largest)

        uses_list = self._flag(Flag.LIVE_TOKENS) | self._flag(Flag.LIVE_QUERIES) | self._flag(Flag.PRUNE_TOKENS)
        by_head = self._flag(Flag.LIVE_HEADS) | self._flag(Flag.PRUNE_HEADS)
        below_bus = config.memory.bytes_per_cycle - 1
        placed = fields["output"] | fields["output_row_bytes"] | fields["output_head_bytes"]
        conditions = [
            fields["flags"][len(Flag) :] != 0,
            self._flag(Flag.RESET_TOKENS) & outside(fields["keys"], config.capacity),
            outside(self._keys, config.capacity),
            outside(self._queries, config.capacity),
            uses_list & (tokens == 0),
            outside(self._heads, config.importance.heads),
            outside(fields["head_dim"], config.max_head_dim),
            by_head & (fields["group"] != 1),
            by_head & (fields["kv_heads"] != heads),
            self._flag(Flag.PRUNE_TOKENS) & (fields["keep_tokens"] == 0),
            self._flag(Flag.PRUNE_HEADS) & (fields["keep_heads"] == 0),
            *(fields[field.name][field.used_bits :] != 0 for field in _row_distances()),
            (placed & below_bus) != 0,
            self._flag(Flag.REPORT) & ((fields["report"] & below_bus) != 0),
        ]
        if config.formats.key_lsb_bits == 0:
            conditions.append(self._flag(Flag.PROGRESSIVE))
        m.d.comb += bad.eq(Cat(*conditions).any())
        return bad

    def _command_cascade(self, m: Module) -> tuple[Value, Value]:
        """Commands of the two phases of the cascade unit; strobes in the last cycle of each."""
        command = self.cascade.payload
        pending = Signal(len(_BEFORE))
        first = pending & (~pending + 1)[: len(pending)]
        resets, prunes = self.state == State.RESET, self.state == State.PRUNE
        counts = {
            CascadeOperation.RESET_TOKENS: self._fields["keys"],
            CascadeOperation.RESET_HEADS: self._heads,
            CascadeOperation.PRUNE_TOKENS: self._fields["keep_tokens"],
            CascadeOperation.PRUNE_HEADS: self._fields["keep_heads"],
        }
        for phase, operations in ((resets, _BEFORE), (prunes, _AFTER)):
            with m.If(phase):
                for place, (_, operation) in enumerate(operations):
                    with m.If(first[place]):
                        m.d.comb += [command.operation.eq(operation), command.count.eq(counts.get(operation, 0))]
        m.d.comb += self.cascade.valid.eq((resets | prunes) & (pending != 0))
        with m.If(self.state == State.CONDITIONS):
            m.d.sync += pending.eq(Cat(self._flag(flag) for flag, _ in _BEFORE))
        with m.Elif(self.state == State.WAIT):
            m.d.sync += pending.eq(Cat(self._flag(flag) for flag, _ in _AFTER))
        with m.Elif(self.cascade.valid & self.cascade.ready):
            m.d.sync += pending.eq(pending & ~first)
        finished = (pending == 0) & self.cascade.ready
        return resets & finished, prunes & finished & (~self._flag(Flag.REPORT) | self.writer_idle)

    def _set_up(self, m: Module) -> Value:
        """A query head a cycle: live ones get the next slot. A strobe with the last one."""
        fields = self._fields
        heads = range(len(self.alive))
        head, member = Signal(heads), Signal(heads)
        query_slot, slot = Signal(range(len(heads) + 1)), Signal(range(len(heads) + 1))
        self._slots = slot
        lives, last_member, last = Signal(), Signal(), Signal()
        setting = self.state == State.SET_UP
        write, factor, live_head = self.head_write, self.factor_write, self.live_head_write
        m.d.comb += [
            lives.eq(setting & (~self._flag(Flag.LIVE_HEADS) | self.alive.bit_select(head, 1))),
            last_member.eq(member + 1 == fields["group"]),
            last.eq(setting & (head + 1 == self._heads)),
            write.valid.eq(lives & (member == 0)),
            write.slot.eq(slot),
            *(write[name].eq(fields[name]) for name in ("key_msb", "key_lsb", "value", "query")),
            factor.valid.eq(lives),
            factor.slot.eq(query_slot),
            factor.multiplier.eq(self._factors[:16]),
            factor.shift.eq(self._factors[16:32]),
            live_head.valid.eq(lives),
            live_head.slot.eq(query_slot),
            live_head.head.eq(head),
        ]
        with m.If(setting):
            m.d.sync += [
                head.eq(head + 1),
                member.eq(Mux(last_member, 0, member + 1)),
                query_slot.eq(query_slot + lives),
                slot.eq(slot + (lives & last_member)),
                *_advance(fields, ("query",)),
            ]
            with m.If(last_member):
                m.d.sync += _advance(fields, ("key_msb", "key_lsb", "value"))
        with m.If(self.state == State.FACTORS):
            m.d.sync += [head.eq(0), member.eq(0), query_slot.eq(0), slot.eq(0)]
        return last

    def _offer_job(self, m: Module) -> None:
        """The job of the core and that of the writer."""
        fields, job, config, writer = self._fields, self.job.payload, self.config, self.writer_job
        kept = fields["kept_values"]
        m.d.comb += [
            self.job.valid.eq(self.state == State.ATTENTION),
            job.keys.eq(self._keys),
            job.queries.eq(self._queries),
            job.heads.eq(self._slots),
            job.group.eq(fields["group"]),
            job.head_dim.eq(fields["head_dim"]),
            # More than fit a row are all.
            job.kept_values.eq(Mux(kept > config.capacity, 0, kept)),
            job.causal.eq(self._flag(Flag.CAUSAL)),
            job.progressive.eq(self._flag(Flag.PROGRESSIVE)),
            job.live_tokens.eq(self._flag(Flag.LIVE_TOKENS)),
            job.live_queries.eq(self._flag(Flag.LIVE_QUERIES)),
            job.threshold.eq(self.threshold),
            *(
                job[name].eq(fields[name])
                for name in (
                    "query_row_bytes",
                    "key_msb_row_bytes",
                    "key_lsb_row_bytes",
                    "value_row_bytes",
                    "query_head_bytes",
                )
            ),
            writer.output.eq(fields["output"]),
            writer.row_bytes.eq(fields["output_row_bytes"]),
            writer.head_bytes.eq(fields["output_head_bytes"]),
            writer.report.eq(fields["report"]),
            writer.head_dim.eq(fields["head_dim"]),
            writer.live_queries.eq(self._flag(Flag.LIVE_QUERIES)),
            writer.live_heads.eq(self._flag(Flag.LIVE_HEADS)),
            job.product_words.eq(_interval(config, config.dot_product, fields["head_dim"])),
            job.weighted_words.eq(_interval(config, config.weighted_sum, fields["head_dim"])),
        ]


def _row_distances() -> Iterator[DescriptorField]:
    return (field for field in FIELDS if field.name.endswith("_row_bytes"))


def _advance(fields: dict[str, Signal], names: tuple[str, ...]) -> list[Value]:
    """To the next head."""
    return [fields[name].eq(fields[name] + fields[f"{name}_head_bytes"]) for name in names]


def _interval(config: AcceleratorConfig, array: ArrayConfig, head_dim: Value) -> Value:
    """`array.interval_cycles(lanes, head_dim)`: a step function, so a comparison for each of its steps."""
    lanes = config.softmax.lanes
    cycles: Value | int = array.interval_cycles(lanes, 1)
    for longest in range(1, config.max_head_dim):
        after = array.interval_cycles(lanes, longest + 1)
        if after != array.interval_cycles(lanes, longest):
            cycles = Mux(head_dim > longest, after, cycles)
    return Value.cast(cycles)
