"""Properties of streams, to be added to a proof design."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Value

Matches = Callable[[Value, Value], Value]


def _stalled(m: Module, port: Any, label: str) -> Value:
    """Whether the port is as it must be: an offered beat that did not cross is offered again, unchanged."""
    offered = Signal(name=f"{label}_offered")
    payload = Signal(len(Value.cast(port.payload)), name=f"{label}_payload")
    m.d.sync += [offered.eq(port.valid & ~port.ready), payload.eq(Cat(port.payload))]
    return ~offered | (port.valid & (Cat(port.payload) == payload))


def assert_stream(m: Module, port: Any, label: str) -> None:
    """Assert that `valid` holds until `ready` and the payload is stable while stalled."""
    m.d.comb += Assert(_stalled(m, port, label))


def assume_stream(m: Module, port: Any, label: str) -> None:
    """Drive an input port by a free source that keeps the stream rules."""
    valid = AnySeq(1)
    payload = AnySeq(len(Value.cast(port.payload)))
    m.d.comb += [port.valid.eq(valid), Cat(port.payload).eq(payload), Assume(_stalled(m, port, label))]


def never_starves(m: Module, waiting: Any, progress: Any, limit_cycles: int, label: str) -> None:
    """Assert that `waiting` never lasts more than `limit_cycles` cycles in a row without `progress`."""
    waited = Signal(range(limit_cycles + 2), name=f"{label}_waited")
    m.d.sync += waited.eq(Mux(waiting & ~progress, Mux(waited > limit_cycles, waited, waited + 1), 0))
    m.d.comb += Assert(waited <= limit_cycles)


class OrderCheck:
    """Assert that a unit with one output beat per input beat loses, invents, reorders and changes nothing.

    The solver picks any one input beat; the check counts the beats ahead of it and asserts, when it leaves, that
    `matches(picked bits, output bits)` holds; by default, that they are equal.

    Attributes
    ----------
    tracking : a picked beat is inside.
    ahead : beats that leave before it.
    picked : its input bits.
    inside : beats inside, at most `capacity`; an output without a beat inside violates an assertion.
    """

    def __init__(self, m: Module, source: Any, sink: Any, capacity: int, matches: Matches | None = None) -> None:
        width = len(Value.cast(source.payload))
        self.tracking = Signal()
        self.ahead = Signal(range(capacity + 1))
        self.picked = Signal(width)
        self.inside = Signal(range(capacity + 1))
        taken, left = Signal(), Signal()
        m.d.comb += [taken.eq(source.valid & source.ready), left.eq(sink.valid & sink.ready)]
        m.d.sync += self.inside.eq(self.inside + taken - left)
        pick = AnySeq(1)
        with m.If(taken & pick & ~self.tracking):
            m.d.sync += [
                self.tracking.eq(1),
                self.ahead.eq(self.inside - left),
                self.picked.eq(Cat(source.payload)),
            ]
        with m.Elif(left & self.tracking):
            m.d.sync += [self.ahead.eq(self.ahead - 1), self.tracking.eq(self.ahead != 0)]
        out = Cat(sink.payload)
        right = out == self.picked if matches is None else matches(self.picked, out)
        with m.If(sink.valid & self.tracking & (self.ahead == 0)):
            m.d.comb += Assert(right)
        with m.If(sink.valid):
            m.d.comb += Assert(self.inside != 0)
        with m.If(self.inside == capacity):
            m.d.comb += Assert(~source.ready)
        with m.If(self.tracking):
            m.d.comb += Assert(self.ahead < self.inside)
