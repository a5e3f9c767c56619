"""Program order of the fetches: keys, LSB planes, values and survivors' values, and who has which bank."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.banks import of_bank
from topsieve_rtl.attention.core_layouts import AttentionJob, BankRow, HeadWrite
from topsieve_rtl.attention.fall_through import FallThrough
from topsieve_rtl.memory.rows import FetchCommand
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import KeyValuePlane, key_value_fetch_shape
from topsieve_sim.golden.attention_latency import attention_latencies


class Fetch(data.StructLayout):
    """What a finished or dropped row asks for.

    With `lsb` the LSB plane of the head in `bank`; else with `loads` the next head into `bank`; then values, if any.
    `slot` is the head of the row.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "lsb": 1,
                "loads": 1,
                "bank": range(attention_latencies(config).banks),
                "slot": range(config.importance.heads),
            }
        )


class _Step(enum.Enum, shape=2):
    KEY_MSB = 0
    KEY_LSB = 1
    VALUE = 2


class FetchOrder(wiring.Component):
    """Offers the commands of fetcher 0 in the order of `docs/attention-unit.md`, section "Units".

    Members
    -------
    start : In(1), a job begins with the next cycle; `job`, `whole_keys`, `gathers` and `head_rows` hold from then on.
    whole_keys : In(1), both key planes are fetched at once; gathers : In(1), only survivors' values are.
    head_rows : In, rows of a key-value head.
    head_write : In(HeadWrite)
    dropped : In(BankRow), a row wants its head's LSB plane.
    keys_done : In(BankRow), a row needs its head's keys no more.
    values_read : In(BankRow), a row's last value word is read in this cycle.
    survivors : In(1), a row's survivors are known from the next cycle on.
    command : Out(stream.Signature(FetchCommand))
    asked_plane, asked_bank, of_survivors : Out, where the offered command goes, and whose rows it fetches.
    new_head : Out(BankRow), the first key command of a head is taken.
    values_done : Out(BankRow), the values of a bank are read for the last time.
    idle : Out(1), every head has been asked for and nothing waits.

    Attributes
    ----------
    overflow : the queue inside is written while full; never. For proofs.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.shape = key_value_fetch_shape(config)
        self.banks = banks = attention_latencies(config).banks
        self.overflow = Signal()
        bank_row = BankRow(config)
        super().__init__(
            {
                "start": In(1),
                "job": In(AttentionJob(config)),
                "whole_keys": In(1),
                "gathers": In(1),
                "head_rows": In(range(config.importance.heads * config.capacity + 1)),
                "head_write": In(HeadWrite(config)),
                "dropped": In(bank_row),
                "keys_done": In(bank_row),
                "values_read": In(bank_row),
                "survivors": In(1),
                "command": Out(stream.Signature(FetchCommand(self.shape))),
                "asked_plane": Out(KeyValuePlane),
                "asked_bank": Out(range(banks)),
                "of_survivors": Out(1),
                "new_head": Out(bank_row),
                "values_done": Out(bank_row),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, banks = self.job, self.banks
        # A head has at most one entry at a time, and besides the loaded heads one may have gone on to its values.
        m.submodules.queue = queue = FallThrough(Fetch(self.config), banks + 1)
        is_first, first_bank = Signal(), Signal(range(banks))
        loaded = Signal(range(self.config.importance.heads + 1))
        entry, has_entry = Signal(Fetch(self.config)), Signal()
        m.d.comb += [
            self.overflow.eq(queue.overflow),
            has_entry.eq(is_first | queue.o.valid),
            entry.eq(queue.o.payload),
        ]
        with m.If(is_first):
            m.d.comb += [entry.lsb.eq(0), entry.loads.eq(1), entry.bank.eq(first_bank)]

        # The step of the entry: the first one is read from the entry itself.
        begun, later_step, step, following = Signal(), Signal(_Step), Signal(_Step), Signal(_Step)
        begins = Mux(entry.lsb, _Step.KEY_LSB, Mux(entry.loads, _Step.KEY_MSB, _Step.VALUE))
        taken, ends, has_values = Signal(), Signal(), Signal()
        wants_values = Mux(self.gathers, ~is_first, 1) & ~entry.lsb
        m.d.comb += [
            has_values.eq(wants_values),
            step.eq(Mux(begun, later_step, begins)),
            following.eq(Mux((step == _Step.KEY_MSB) & self.whole_keys, _Step.KEY_LSB, _Step.VALUE)),
            taken.eq(self.command.valid & self.command.ready),
            ends.eq(taken & (following == _Step.VALUE) & ((step == _Step.VALUE) | ~has_values)),
            queue.o.ready.eq(ends & ~is_first),
            self.idle.eq(~has_entry & (loaded == job.heads)),
        ]
        with m.If(taken):
            m.d.sync += [begun.eq(~ends), later_step.eq(following)]
        with m.If(ends):
            m.d.sync += loaded.eq(loaded + entry.loads)
            with m.If(is_first):
                m.d.sync += [
                    first_bank.eq(first_bank + 1),
                    is_first.eq((first_bank != banks - 1) & (loaded + 1 != job.heads)),
                ]
        with m.If(self.start):
            m.d.sync += [is_first.eq(1), first_bank.eq(0), loaded.eq(0)]

        slots = self._bank_state(m, queue, taken, step, entry, loaded)
        value_ready, value_bank = self._value_state(m, taken, step, entry)
        slot = Mux(entry.lsb, of_bank(slots, entry.bank), Mux(self.gathers & (step == _Step.VALUE), entry.slot, loaded))
        m.d.comb += self.command.valid.eq(has_entry & ((step != _Step.VALUE) | value_ready))
        self._command(m, step, slot)
        m.d.comb += [
            self.asked_bank.eq(Mux(self.gathers & (step == _Step.VALUE), value_bank, entry.bank)),
            self.of_survivors.eq(self.gathers & (step == _Step.VALUE)),
            self.new_head.valid.eq(taken & (step == _Step.KEY_MSB)),
            self.new_head.bank.eq(entry.bank),
        ]
        return m

    def _bank_state(
        self, m: Module, queue: FallThrough, taken: Value, step: Value, entry: data.View, loaded: Value
    ) -> list[Signal]:
        """Rows that still need the keys of each bank; their end and the first dropped row enter the queue."""
        job, banks = self.job, self.banks
        # Heads that have a bank or an entry that will give them one.
        given = Signal(range(self.config.importance.heads + 1))
        slots = [Signal(range(self.config.importance.heads), name=f"slot_{bank}") for bank in range(banks)]
        left = [Signal.like(self.head_rows, name=f"left_{bank}") for bank in range(banks)]
        lsb_asked, last_left, single_row = Signal(banks), Signal(banks), Signal()
        more, ends_head = Signal(), Signal()
        done, dropped = self.keys_done, self.dropped
        m.d.sync += more.eq(Mux(ends_head & more, given + 1 < job.heads, given < job.heads))
        m.d.comb += [
            single_row.eq(self.head_rows == 1),
            ends_head.eq(done.valid & of_bank(last_left, done.bank)),
            queue.strobe.eq(
                (ends_head & (more | self.gathers)) | (dropped.valid & ~lsb_asked.bit_select(dropped.bank, 1))
            ),
            queue.payload.lsb.eq(dropped.valid),
            queue.payload.loads.eq(more & ~dropped.valid),
            queue.payload.bank.eq(Mux(dropped.valid, dropped.bank, done.bank)),
            queue.payload.slot.eq(of_bank(slots, done.bank)),
        ]
        with m.If(ends_head & more):
            m.d.sync += given.eq(given + 1)
        for bank in range(banks):
            with m.If(taken & (step == _Step.KEY_MSB) & (entry.bank == bank)):
                m.d.sync += [
                    slots[bank].eq(loaded),
                    left[bank].eq(self.head_rows),
                    last_left[bank].eq(single_row),
                    lsb_asked[bank].eq(0),
                ]
            with m.Else():
                with m.If(done.valid & (done.bank == bank)):
                    m.d.sync += [left[bank].eq(left[bank] - 1), last_left[bank].eq(left[bank] == 2)]
                with m.If(dropped.valid & (dropped.bank == bank)):
                    m.d.sync += lsb_asked[bank].eq(1)
        with m.If(self.start):
            m.d.sync += given.eq(min(banks, self.config.importance.heads))
        return slots

    def _value_state(self, m: Module, taken: Value, step: Value, entry: data.View) -> tuple[Value, Value]:
        """Whether the next values have their bank, and, of survivors' values, which."""
        banks = self.banks
        left = [Signal.like(self.head_rows, name=f"unread_{bank}") for bank in range(banks)]
        none_left, last_left, single_row = Signal(banks, init=-1), Signal(banks), Signal()
        credits, known = Signal(range(banks + 1)), Signal(range(attention_latencies(self.config).survivor_banks + 1))
        bank, read = Signal(range(banks)), self.values_read
        takes = taken & (step == _Step.VALUE)
        m.d.comb += [
            single_row.eq(self.head_rows == 1),
            self.values_done.valid.eq(read.valid & (self.gathers | of_bank(last_left, read.bank))),
            self.values_done.bank.eq(read.bank),
        ]
        for place in range(banks):
            with m.If(takes & (entry.bank == place)):
                m.d.sync += [
                    left[place].eq(self.head_rows),
                    none_left[place].eq(0),
                    last_left[place].eq(single_row),
                ]
            with m.Elif(read.valid & (read.bank == place)):
                m.d.sync += [
                    left[place].eq(left[place] - 1),
                    none_left[place].eq(left[place] == 1),
                    last_left[place].eq(left[place] == 2),
                ]
        with m.If(takes):
            m.d.sync += bank.eq(Mux(bank == banks - 1, 0, bank + 1))
        m.d.sync += [
            credits.eq(credits + read.valid - takes),
            known.eq(known + self.survivors - (takes & self.gathers)),
        ]
        with m.If(self.start):
            m.d.sync += [none_left.eq(-1), credits.eq(banks), bank.eq(0)]
        return Mux(self.gathers, (known != 0) & (credits != 0), of_bank(none_left, entry.bank)), bank

    def _command(self, m: Module, step: Value, slot: Value) -> None:
        """The command of a step, from the head table."""
        job, command, bits = self.job, self.command.payload, self.shape.address_bits
        planes = ("key_msb", "key_lsb", "value")
        m.submodules.heads = heads = memory.Memory(
            shape=len(planes) * bits, depth=self.config.importance.heads, init=[]
        )
        writer, reader = heads.write_port(), heads.read_port(domain="comb")
        m.d.comb += [
            writer.en.eq(self.head_write.valid),
            writer.addr.eq(self.head_write.slot),
            writer.data.eq(Cat(self.head_write[plane] for plane in planes)),
            reader.addr.eq(slot),
            command.rows.eq(Mux(self.of_survivors, job.kept_values, job.keys)),
            command.elements.eq(job.head_dim),
            command.gather.eq(job.live_tokens | self.of_survivors),
            command.plane.eq(self.asked_plane),
        ]
        with m.Switch(step):
            for case, plane, number in zip(_Step, planes, KeyValuePlane, strict=False):
                with m.Case(case):
                    m.d.comb += [
                        self.asked_plane.eq(number),
                        command.base.eq(reader.data.word_select(number, bits)),
                        command.stride.eq(job[f"{plane}_row_bytes"]),
                    ]
