"""How a multiplier array walks over the operands of a beat: geometry of operand words, word control, operand registers.

A word holds one chunk of `lane_split` elements for each segment of multipliers. Chunks are numbered
`chunk x lanes + lane` and fill the words in this order. As segments and lanes divide each other, a segment serves the
same lanes in every word and no crossbar stands between products and accumulators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from topsieve_sim.arch.config import ArrayConfig


@dataclass(frozen=True)
class WordGeometry:
    """Operand words of an array: `lanes` rows of up to `head_dim` elements on the multipliers of `array`."""

    array: ArrayConfig
    lanes: int
    head_dim: int

    @property
    def segments(self) -> int:
        """Groups of `lane_split` multipliers."""
        return self.array.multipliers // self.array.lane_split

    @property
    def chunks(self) -> int:
        """Chunks of a row."""
        return -(-self.head_dim // self.array.lane_split)

    @property
    def chunks_per_word(self) -> int:
        """Chunks of one row in a word."""
        return max(self.segments // self.lanes, 1)

    @property
    def words_per_chunk(self) -> int:
        """Words that hold a chunk of every lane: the groups of lanes that take turns."""
        return max(self.lanes // self.segments, 1)

    @property
    def rows_per_word(self) -> int:
        """Lanes with a chunk in a word."""
        return min(self.lanes, self.segments)

    @property
    def words(self) -> int:
        """Words of a beat at the largest head dimension."""
        return self.array.interval_cycles(self.lanes, self.head_dim)

    def place(self, word: int, segment: int) -> tuple[int, int]:
        """Chunk and lane of a segment in a word; the chunk may lie beyond the row."""
        chunk, lane = divmod(word * self.segments + segment, self.lanes)
        return chunk, lane

    def word(self, rows: Sequence[Sequence[Value]], number: int) -> Value:
        """Word `number` of a beat of `rows`, one a lane."""
        places = [self.place(number, segment) for segment in range(self.segments)]
        return Cat(Cat(self.elements(rows[lane], chunk)) for chunk, lane in places)

    def elements(self, row: Sequence[Value], chunk: int) -> Iterator[Value]:
        """The elements of a chunk of `row`, zeros beyond its end."""
        width = len(row[0])
        for n in range(chunk * self.array.lane_split, (chunk + 1) * self.array.lane_split):
            yield row[n] if n < self.head_dim else Const(0, width)


class WordRead(data.StructLayout):
    """The operand word that is read in this cycle; the array takes it in the next.

    `last` is the beat's last one; `chunk` is the number of its chunks (the query's word), `fresh` opens a chunk.
    """

    def __init__(self, geometry: WordGeometry) -> None:
        super().__init__(
            {
                "valid": 1,
                "last": 1,
                "chunk": range(-(-geometry.words // geometry.words_per_chunk)),
                "fresh": 1,
            }
        )


class WordControl(NamedTuple):
    """State of the word counter: a beat has words left; the turn of the lanes."""

    busy: Value
    group: Value


def word_control(m: Module, start: Value, words: Value, read: data.View, geometry: WordGeometry) -> WordControl:
    """Drive `read` through the `words` words of a beat, from the cycle of `start` on."""
    groups = geometry.words_per_chunk
    left = Signal(range(geometry.words + 1), name="words_left")
    next_chunk, group = Signal.like(read.chunk, name="next_chunk"), Signal(range(groups), name="group")
    next_group = Signal(range(groups), name="next_group")
    busy = left != 0
    m.d.comb += [
        read.valid.eq(start | busy),
        read.last.eq(Mux(start, words == 1, left == 1)),
        read.chunk.eq(Mux(start, 0, next_chunk)),
        group.eq(Mux(start, 0, next_group)),
        read.fresh.eq(group == 0),
    ]
    m.d.sync += left.eq(Mux(start, words - 1, Mux(busy, left - 1, 0)))
    turn = group == groups - 1
    with m.If(read.valid):
        m.d.sync += [
            next_group.eq(Mux(turn, 0, group + 1)),
            next_chunk.eq(read.chunk + turn),
        ]
    return WordControl(busy, group)


def word_register(
    m: Module, start: Value, step: Value, words: Sequence[Value], name: str, *, rotate: bool = False
) -> Signal:
    """`words[0]` in the cycle after `start`, the next one a cycle after each `step`; zeros, or a rotation, at the end."""
    width = len(words[0])
    register = Signal(width, name=name)
    if len(words) == 1:
        with m.If(start):
            m.d.sync += register.eq(words[0])
        return register
    ring = [*words[1:], words[0] if rotate else Const(0, width)]
    held = Signal(len(ring) * width, name=f"{name}_held")
    with m.If(start):
        m.d.sync += [register.eq(words[0]), held.eq(Cat(ring))]
    with m.Elif(step):
        m.d.sync += [register.eq(held[:width]), held.eq(Cat(held[width:], held[:width] if rotate else Const(0, width)))]
    return register
