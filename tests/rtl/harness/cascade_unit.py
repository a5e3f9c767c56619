# amaranth: UnusedElaboratable=no
"""The cascade unit with its taps and its changes of the live list as streams, and what the models say of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth import Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.accelerator.cascade import CascadeCommand, CascadeOperation, CascadeUnit, ReportRecord
from topsieve_rtl.cosim import Case, Channel, Sink, Source
from topsieve_rtl.stream import Fifo
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import CASCADE_COMMAND
from topsieve_sim.golden.importance import add_head_importance, add_token_importance
from topsieve_sim.golden.topk import top_k
from topsieve_sim.timing.cascade import prune_heads_times, prune_tokens_times, record_times, reset_tokens_cycles


class CascadeBench(wiring.Component):
    """Taps as streams that never wait; `written` shows each change of the live list a cycle later."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.unit = CascadeUnit(config)
        formats, tokens = config.formats, range(config.capacity)
        row = data.ArrayLayout(signed(formats.output_bits), config.max_head_dim)
        beat = data.ArrayLayout(formats.probability_bits, config.softmax.lanes)
        self.change = data.StructLayout({"position": tokens, "token": tokens})
        super().__init__(
            {
                "command": In(stream.Signature(CascadeCommand())),
                "probability": In(
                    stream.Signature(data.StructLayout({"lanes": beat, "word": self.unit.probability_word.shape()}))
                ),
                "output": In(
                    stream.Signature(data.StructLayout({"elements": row, "head": self.unit.output_head.shape()}))
                ),
                "record": Out(stream.Signature(ReportRecord())),
                "written": Out(stream.Signature(self.change)),
                "repeated": In(32),
                "live_tokens": Out(self.unit.live_tokens.shape()),
                "live_heads": Out(self.unit.live_heads.shape()),
                "alive": Out(self.unit.alive.shape()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        m.submodules.changes = changes = Fifo(self.change, 64)
        wiring.connect(m, wiring.flipped(self.command), unit.command)
        wiring.connect(m, unit.record, wiring.flipped(self.record))
        wiring.connect(m, changes.o, wiring.flipped(self.written))
        m.d.comb += [
            unit.repeated.eq(self.repeated),
            unit.probability_valid.eq(self.probability.valid),
            unit.probabilities.eq(self.probability.payload.lanes),
            unit.probability_word.eq(self.probability.payload.word),
            self.probability.ready.eq(1),
            unit.output_valid.eq(self.output.valid),
            unit.output_elements.eq(self.output.payload.elements),
            unit.output_head.eq(self.output.payload.head),
            self.output.ready.eq(1),
            changes.i.valid.eq(unit.token_write.valid),
            changes.i.payload.position.eq(unit.token_write.position),
            changes.i.payload.token.eq(unit.token_write.token),
            self.live_tokens.eq(unit.live_tokens),
            self.live_heads.eq(unit.live_heads),
            self.alive.eq(unit.alive),
        ]
        return m


@dataclass
class Session:
    """Commands and taps one after the other, with the state that the models reach and when."""

    config: AcceleratorConfig
    repeated: int = 0
    record_ready: list[bool] = field(default_factory=list)
    cycle: int = 0
    live: list[int] = field(default_factory=list)
    channels: dict[str, Channel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("command", "probability", "output", "record", "written"):
            self.channels[name] = Channel([], [])
        self.tokens = np.zeros(self.config.capacity, np.int64)
        self.heads = np.zeros(self.config.importance.heads, np.int64)
        self.alive = np.zeros(self.config.importance.heads, np.bool_)

    def _log(self, name: str, cycle: int, beat: Any) -> None:
        self.channels[name].cycles.append(int(cycle))
        self.channels[name].beats.append(beat)

    def command(self, operation: CascadeOperation, count: int = 0) -> None:
        """Take a command in the first possible cycle."""
        self._log("command", self.cycle, (int(operation.value), count))
        start = self.cycle
        cost = CASCADE_COMMAND
        if operation is CascadeOperation.CLEAR:
            self.tokens[:] = 0
            self.heads[:] = 0
        elif operation is CascadeOperation.RESET_HEADS:
            self.alive[:] = np.arange(self.alive.size) < count
        elif operation is CascadeOperation.RESET_TOKENS:
            self.live = list(range(count))
            cost = reset_tokens_cycles(count)
            for token in range(count):
                self._log("written", start + 1 + token + 2, (token, token))
        elif operation is CascadeOperation.PRUNE_TOKENS:
            cost = self._prune_tokens(start, count)
        elif operation is CascadeOperation.PRUNE_HEADS:
            cost = prune_heads_times(self.config, self.heads, self.alive, count).cycles
            if count < self.alive.sum():
                places = np.flatnonzero(self.alive)
                self.alive[:] = False
                self.alive[places[top_k(self.heads[places], count)]] = True
        else:
            cost = self._report(start)
        self.cycle = start + cost

    def _prune_tokens(self, start: int, keep: int) -> int:
        importance = self.tokens[: len(self.live)]
        cost = prune_tokens_times(self.config, importance, keep).cycles
        if keep < len(self.live):
            kept = top_k(importance, keep)
            scores = importance[kept].copy()
            lanes = self.config.softmax.lanes
            self.tokens[: -(-len(self.live) // lanes) * lanes] = 0
            self.tokens[:keep] = scores
            self.live = [self.live[place] for place in kept]
            # The list's changes end the cycle before the next command; their cycles before are the engine's.
            self.channels["written"].beats += list(enumerate(self.live))
            self.channels["written"].cycles += [None] * (keep - 1) + [start + cost]
        return cost

    def _report(self, start: int) -> int:
        times = record_times(self.config, len(self.live), self.alive)
        words = [len(self.live) | int(self.alive.sum()) << 16 | self.repeated << 32]
        words += [token | int(self.tokens[place]) << 16 for place, token in enumerate(self.live)]
        words += [int(head) | int(self.heads[head]) << 8 for head in np.flatnonzero(self.alive)]
        before = start
        for number, word in enumerate(words):
            cycle = max(start + int(times.earliest[number]), before + int(times.gap[number]))
            while cycle < len(self.record_ready) and not self.record_ready[cycle]:
                cycle += 1
            self._log("record", cycle, (word, int(number == len(words) - 1)))
            before = cycle
        return before + 1 - start

    def add(self, generator: np.random.Generator, times: int) -> None:
        """Taps in consecutive cycles."""
        formats, lanes = self.config.formats, self.config.softmax.lanes
        words = -(-self.config.capacity // lanes)
        for _ in range(times):
            if generator.random() < 0.8:
                word = int(generator.integers(words))
                top = 1 << formats.probability_bits
                beat = generator.integers(0, top if generator.random() < 0.5 else 3, lanes)
                beat[np.arange(lanes) + word * lanes >= self.config.capacity] = 0
                self._log("probability", self.cycle, (beat.tolist(), word))
                padded = np.zeros(words * lanes, np.int64)
                padded[word * lanes : (word + 1) * lanes] = beat
                self.tokens = add_token_importance(self.tokens, padded[None, : self.config.capacity], formats)
            if generator.random() < 0.5:
                head = int(generator.integers(self.config.importance.heads))
                limit = 1 << (formats.output_bits - 1)
                row = generator.integers(-limit, limit, self.config.max_head_dim)
                self._log("output", self.cycle, (row.tolist(), head))
                self.heads[head] = add_head_importance(self.heads[head : head + 1], row[None, None], formats)[0]
            self.cycle += 1

    def case(self) -> Case:
        """The stimulus; commands are offered in the cycles in which they must be taken."""
        sources = {
            name: Source(self.channels[name].beats, self.channels[name].cycles)
            for name in ("command", "probability", "output")
        }
        sinks = {
            "record": Sink(len(self.channels["record"].beats), self.record_ready),
            "written": Sink(len(self.channels["written"].beats)),
        }
        return Case(sources, sinks, {"repeated": self.repeated}, drain_cycles=40)
