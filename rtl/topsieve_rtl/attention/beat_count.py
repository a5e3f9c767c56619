"""Whether the beat that an array reads next is complete, known in a register."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class AwaitedBeat(data.StructLayout):
    """The beat of a bank that an array reads next; `following` takes its place in the next cycle if `starts`."""

    def __init__(self, most: int) -> None:
        super().__init__({"beat": range(most + 1), "following": range(most + 1), "starts": 1})


class BeatCount(wiring.Component):
    """Counts the complete beats of a bank and compares them a cycle ahead with either beat that may be the next.

    Parameters
    ----------
    most : beats of a bank.

    Members
    -------
    completes : In(1), a beat is complete from the next cycle on.
    restarts : In(1), the bank has none from the next cycle on.
    awaited : In(AwaitedBeat)
    has_beat : Out(1), the awaited beat is complete.
    """

    def __init__(self, most: int) -> None:
        super().__init__({"completes": In(1), "restarts": In(1), "awaited": In(AwaitedBeat(most)), "has_beat": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A restart is decided late in its cycle, so the count follows it a cycle later.
        awaited = self.awaited
        count, restarted, present = Signal.like(awaited.beat), Signal(), Signal.like(awaited.beat)
        m.d.comb += present.eq(Mux(restarted, 0, count))
        m.d.sync += [restarted.eq(self.restarts), count.eq(present + self.completes)]

        def will_have(beat: Value) -> Value:
            return (present > beat) | (self.completes & (present == beat))

        same, following = will_have(awaited.beat), will_have(awaited.following)
        m.d.sync += self.has_beat.eq(~self.restarts & Mux(awaited.starts, following, same))
        return m
