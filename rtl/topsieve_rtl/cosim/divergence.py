"""Where two logs of the same run part, and what happened before on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from topsieve_rtl.cosim.cases import Channel
from topsieve_sim.stepped import StreamLog

_EVENTS_BEFORE = 10


@dataclass(frozen=True)
class Event:
    """A beat on a channel. `beat` is None where the log does not record payloads (inputs)."""

    cycle: int
    channel: str
    sequence: int
    beat: Any

    def __str__(self) -> str:
        shown = "" if self.beat is None else f" {self.beat!r}"
        return f"cycle {self.cycle}: {self.channel}[{self.sequence}]{shown}"


@dataclass(frozen=True)
class Divergence:
    """The first event that differs between `left` and `right`; None on a side where no event is left."""

    left: Event | None
    right: Event | None
    before_left: tuple[Event, ...]
    before_right: tuple[Event, ...]
    names: tuple[str, str]

    @property
    def channel(self) -> str:
        """Channel of the earlier of the two events."""
        return min((event for event in (self.left, self.right) if event), key=lambda event: event.cycle).channel

    def __str__(self) -> str:
        lines = [f"first divergence on channel {self.channel}"]
        for name, event, before in zip(
            self.names, (self.left, self.right), (self.before_left, self.before_right), strict=True
        ):
            lines.append(f"{name}: {event or 'no further event'}")
            lines += [f"    before: {earlier}" for earlier in before]
        return "\n".join(lines)


Log = StreamLog | Mapping[str, Channel]


def first_divergence(left: Log, right: Log, names: tuple[str, str] = ("model", "RTL")) -> Divergence | None:
    """Compare two logs of a run event by event in the order of time; None if they are equal.

    A `StreamLog` counts as the channels `i` (cycles only) and `o`. Events of one cycle are ordered by channel name.
    """
    left_events = sorted(_events(left), key=_order)
    right_events = sorted(_events(right), key=_order)
    for place in range(max(len(left_events), len(right_events))):
        ours = left_events[place] if place < len(left_events) else None
        theirs = right_events[place] if place < len(right_events) else None
        if ours != theirs:
            start = max(0, place - _EVENTS_BEFORE)
            return Divergence(ours, theirs, tuple(left_events[start:place]), tuple(right_events[start:place]), names)
    return None


def _order(event: Event) -> tuple[int, str, int]:
    return event.cycle, event.channel, event.sequence


def _events(log: Log) -> Iterator[Event]:
    if isinstance(log, StreamLog):
        log = {
            "i": Channel(log.input_cycles, [None] * len(log.input_cycles)),
            "o": Channel(log.output_cycles, log.outputs),
        }
    for name, channel in log.items():
        for sequence, (cycle, beat) in enumerate(zip(channel.cycles, channel.beats, strict=True)):
            yield Event(int(cycle), name, sequence, beat)
