"""The survivor banks: rows of survivors wait in a ring of words and leave packed or back in their lanes."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.expander import expand, expander_columns, lane_of
from topsieve_rtl.attention.layouts import ROW_BITS, ProbabilityBeat, SurvivorPosition
from topsieve_rtl.stream import Beat, Fifo
from topsieve_rtl.topk import Survivors
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, beats


class WholeRow(data.StructLayout):
    """A row as it was before selection: its number, its last beat, and the elements of that."""

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        lanes = config.softmax.lanes
        super().__init__(
            {"row": row_bits, "last_beat": range(beats(config.capacity, lanes)), "count": range(lanes + 1)}
        )


class SurvivorBanks(wiring.Component):
    """Takes survivors as the top-k engine gives them, never stalls it, and gives back beats and positions.

    A row is readable SURVIVOR_READ cycles after its last beat. Probabilities and positions are memories of their own. A word holds
    what the wider of the engine and a beat holds. For rows that keep their lanes a beat never needs more than two words, as
    both are at least a beat wide: the one that is held, and the one behind it.

    Parameters
    ----------
    config : lanes, parallelism, capacity, formats, buffering.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(Survivors)), always ready: rows only come while a bank is reserved for them.
    row : In(stream.Signature(WholeRow)), one for each row; there when its last survivors come.
    gather : In(1), survivors leave packed, with their positions; else beats of whole rows leave, zeros between the survivors.
        A register, changed only while nothing is inside.
    completes : Out(1), the last survivors of a row came in the cycle before.
    survivors : Out, how many it has.
    o : Out(stream.Signature(ProbabilityBeat))
    positions : Out(stream.Signature(SurvivorPosition))
    freed : Out(1), a row has left, its positions have been read.

    Attributes
    ----------
    overflow : a memory is written while full or read while empty; never, because rows reserve a bank. For proofs.
    """

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        cycles = attention_latencies(config)
        self.config = config
        self.banks = cycles.survivor_banks
        self.lanes, self.engine_lanes = cycles.lanes, cycles.topk_lanes
        self.columns = expander_columns(self.lanes)
        self.word_lanes = max(self.engine_lanes, self.columns)
        self.overflow = Signal()
        bits = config.formats.probability_bits
        super().__init__(
            {
                "i": In(stream.Signature(Survivors(bits, config.capacity, self.engine_lanes))),
                "row": In(stream.Signature(WholeRow(config, row_bits))),
                "gather": In(1),
                "completes": Out(1),
                "survivors": Out(range(config.capacity + 1)),
                "o": Out(stream.Signature(ProbabilityBeat(config, row_bits))),
                "positions": Out(stream.Signature(SurvivorPosition(config))),
                "freed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        element = self.i.payload.shape()["lanes"].shape.elem_shape
        words = self.banks * beats(self.config.capacity, max(self.engine_lanes, self.lanes))
        m.submodules.probabilities = probabilities = Fifo(Beat(element["score"].shape, self.word_lanes), words)
        m.submodules.indices = indices = Fifo(Beat(element["index"].shape, self.word_lanes), words)
        m.submodules.output = output = Fifo(self.o.payload.shape(), 2)
        wiring.connect(m, output.o, wiring.flipped(self.o))
        self._write(m, probabilities, indices)

        # Rows whose survivors are all there. A row's first beat is made in the cycle in which that is known.
        rows, emits, takes_word = Signal(range(self.banks + 1)), Signal(), Signal()
        beat = output.i.payload
        m.d.comb += [
            output.i.valid.eq((rows != 0) | self.completes),
            emits.eq(output.i.valid & output.i.ready),
            beat.row.eq(self.row.payload.row),
            self.row.ready.eq(emits & beat.last),
            probabilities.o.ready.eq(emits & takes_word),
        ]
        m.d.sync += rows.eq(rows + self.completes - (emits & beat.last))
        positions_left = Signal()
        with m.If(self.gather):
            self._packed(m, probabilities.o.payload, beat, emits, takes_word)
            self._positions(m, indices, positions_left)
        with m.Else():
            self._expanded(m, probabilities.o.payload, indices.o.payload, beat, emits, takes_word)
            m.d.comb += indices.o.ready.eq(probabilities.o.ready)
        self._free(m, positions_left)
        written = [queue.i.valid & ~queue.i.ready for queue in (probabilities, indices)]
        read = [port.ready & ~port.valid for port in (probabilities.o, indices.o, self.row)]
        m.d.comb += self.overflow.eq(Cat(written, read).any())
        return m

    def _write(self, m: Module, probabilities: Fifo, indices: Fifo) -> None:
        """Beats of the engine into words, words into both memories; counts the survivors of the row."""
        beat, taken = self.i.payload, self.i.valid
        lanes = self.engine_lanes
        opens = Signal(init=1)
        m.d.comb += self.i.ready.eq(1)
        m.d.sync += self.completes.eq(taken & beat.last)
        with m.If(taken):
            m.d.sync += [self.survivors.eq(Mux(opens, 0, self.survivors) + beat.count), opens.eq(beat.last)]

        # The beats of a word that is not full yet wait in registers; the others are zero.
        part = Signal(range(self.word_lanes // lanes))
        full, closes = Signal(), Signal()
        parts_packed, parts_spread = max(self.lanes // lanes, 1), max(self.columns // lanes, 1)
        m.d.comb += [
            full.eq(part == Mux(self.gather, parts_packed, parts_spread) - 1),
            closes.eq(taken & (full | beat.last)),
        ]
        with m.If(taken):
            m.d.sync += part.eq(Mux(closes, 0, part + 1))
        for memory, field in ((probabilities, "score"), (indices, "index")):
            word = memory.i.payload
            arriving = Cat(lane[field] for lane in beat.lanes)
            held = Signal(len(word.lanes.as_value()), name=f"held_{field}")
            parts = len(held) // len(arriving)
            joined = held | Cat(arriving & (part == n).replicate(len(arriving)) for n in range(parts))
            m.d.comb += [
                memory.i.valid.eq(closes),
                word.lanes.as_value().eq(joined),
                word.count.eq(part * lanes + beat.count),
                word.last.eq(beat.last),
            ]
            with m.If(taken):
                m.d.sync += held.eq(Mux(closes, 0, joined))

    def _packed(self, m: Module, word: data.View, beat: data.View, emits: Signal, takes_word: Signal) -> None:
        """A beat is the next `lanes` survivors."""
        turn, left = Signal(range(max(self.word_lanes // self.lanes, 1))), Signal(range(self.word_lanes + 1))
        m.d.comb += [
            left.eq(word.count - turn * self.lanes),
            takes_word.eq(left <= self.lanes),
            beat.lanes.as_value().eq(word.lanes.as_value().word_select(turn, len(beat.lanes.as_value()))),
            beat.count.eq(Mux(takes_word, left, self.lanes)),
            beat.last.eq(takes_word & word.last),
        ]
        with m.If(emits):
            m.d.sync += turn.eq(Mux(takes_word, 0, turn + 1))

    def _expanded(
        self, m: Module, scores: data.View, indices: data.View, beat: data.View, emits: Signal, takes_word: Signal
    ) -> None:
        """A beat is the next `lanes` elements of the row; survivor n of a row stands in column n modulo the columns."""
        row = self.row.payload
        place, holds = Signal.like(row.last_beat), Signal()
        held_scores, held_indices = Signal(scores.shape()), Signal(indices.shape())
        # The held word's last survivor is in this beat or before it, and another word follows.
        used_up = Signal()
        last_held = held_indices.lanes[self.word_lanes - 1]
        m.d.comb += [
            used_up.eq(last_held < (place + 1) * self.lanes),
            takes_word.eq(~holds | (~held_scores.last & used_up)),
            beat.last.eq(place == row.last_beat),
            beat.count.eq(Mux(beat.last, row.count, self.lanes)),
        ]
        with m.If(emits):
            m.d.sync += [place.eq(Mux(beat.last, 0, place + 1)), holds.eq(~beat.last)]
            with m.If(takes_word):
                m.d.sync += [held_scores.eq(scores), held_indices.eq(indices)]

        # The word behind the row's last one belongs to another row.
        words = ((holds, held_scores, held_indices), (~holds | ~held_scores.last, scores, indices))
        columns: list[list[Value]] = [[] for _ in range(self.columns)]
        for valid, values, origins in words:
            for n in range(self.word_lanes):
                here, lane = lane_of(origins.lanes[n], place, self.lanes)
                entry = Cat(values.lanes[n], lane)
                columns[n % self.columns].append(entry & (valid & here).replicate(len(entry)))
        entry = data.StructLayout({"value": len(scores.lanes[0]), "lane": (self.columns - 1).bit_length()})
        entries = [Signal(entry, name=f"column_{n}") for n in range(self.columns)]
        m.d.comb += [wire.as_value().eq(reduce(or_, parts)) for wire, parts in zip(entries, columns, strict=True)]
        lanes = expand(m, [wire.value for wire in entries], [wire.lane for wire in entries])
        m.d.comb += beat.lanes.as_value().eq(Cat(lanes[: self.lanes]))

    def _positions(self, m: Module, indices: Fifo, left: Signal) -> None:
        """The survivors' positions one by one, from the same cycle on as their probabilities."""
        rows, turn, word = Signal(range(self.banks + 1)), Signal(range(self.word_lanes)), indices.o.payload
        crosses, ends = Signal(), Signal()
        port = self.positions
        m.d.sync += rows.eq(rows + self.completes - left)
        m.d.comb += [
            port.valid.eq(rows != 0),
            port.payload.position.eq(word.lanes.as_value().word_select(turn, len(word.lanes[0]))),
            port.payload.last.eq(ends & word.last),
            crosses.eq(port.valid & port.ready),
            ends.eq(turn + 1 == word.count),
            indices.o.ready.eq(crosses & ends),
            left.eq(crosses & port.payload.last),
        ]
        with m.If(crosses):
            m.d.sync += turn.eq(Mux(ends, 0, turn + 1))

    def _free(self, m: Module, positions_left: Signal) -> None:
        """A bank is free when the row's last beat has left and, where they are read, its last position."""
        gone, read = Signal(), Signal()
        rows_gone, rows_read = Signal(range(self.banks + 1)), Signal(range(self.banks + 1))
        m.d.comb += [
            gone.eq(self.o.valid & self.o.ready & self.o.payload.last),
            read.eq(Mux(self.gather, positions_left, gone)),
            self.freed.eq((gone | (rows_gone != 0)) & (read | (rows_read != 0))),
        ]
        m.d.sync += [rows_gone.eq(rows_gone + gone - self.freed), rows_read.eq(rows_read + read - self.freed)]
