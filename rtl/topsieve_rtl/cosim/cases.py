"""What a run is given and what it returns, in the values of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topsieve_rtl.cosim.design import Design, PlainPort
from topsieve_rtl.cosim.player import RawCase, RawLog
from topsieve_sim.stepped import StreamLog


@dataclass(frozen=True)
class Source:
    """Beats and the cycle from which each is offered."""

    beats: Sequence[Any]
    arrival_cycles: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.beats) != len(self.arrival_cycles):
            raise ValueError(f"{len(self.beats)} beats with {len(self.arrival_cycles)} arrival cycles")


@dataclass(frozen=True)
class Sink:
    """The beats that must leave, as a number, and the cycles in which they may."""

    expected: int
    ready_pattern: Sequence[bool] = ()


@dataclass(frozen=True)
class Case:
    """One run of a design from reset.

    `sources` and `sinks` name every stream port of the design; `constants` every plain input. After the expected beats
    the run goes on for `drain_cycles`, so that a beat too many is seen.
    """

    sources: Mapping[str, Source]
    sinks: Mapping[str, Sink]
    constants: Mapping[str, int] = field(default_factory=dict)
    limit_cycles: int = 1_000_000
    drain_cycles: int = 8

    def __post_init__(self) -> None:
        if self.drain_cycles < 1 or self.limit_cycles < 1:
            raise ValueError("limit_cycles and drain_cycles must be at least 1")

    @classmethod
    def through(
        cls,
        beats: Sequence[Any],
        arrival_cycles: Sequence[int],
        ready_pattern: Sequence[bool],
        expected_outputs: int,
        *,
        constants: Mapping[str, int] | None = None,
        limit_cycles: int = 1_000_000,
    ) -> Case:
        """The case of a unit with the ports `i` and `o`; the arguments are those of `run_stepped`."""
        return cls(
            {"i": Source(beats, arrival_cycles)},
            {"o": Sink(expected_outputs, ready_pattern)},
            constants or {},
            limit_cycles,
        )

    def raw(self, design: Design) -> RawCase:
        """The bits for `design`.

        Raises
        ------
        ValueError
            ports that do not match, or a beat that does not fit its port.
        """
        for kind, given, ports in (
            ("sources", self.sources, design.sources),
            ("sinks", self.sinks, design.sinks),
            ("constants", self.constants, design.constants),
        ):
            wanted = {port.name for port in ports}
            if set(given) != wanted:
                raise ValueError(f"{kind} {sorted(given)} do not match the ports {sorted(wanted)} of {design.name}")
        return RawCase(
            payloads=[[port.encode(beat) for beat in self.sources[port.name].beats] for port in design.sources],
            arrivals=[[int(cycle) for cycle in self.sources[port.name].arrival_cycles] for port in design.sources],
            ready=[[int(bool(flag)) for flag in self.sinks[port.name].ready_pattern] for port in design.sinks],
            expected=[int(self.sinks[port.name].expected) for port in design.sinks],
            constants=[int(self.constants[port.name]) & ((1 << port.bits) - 1) for port in design.constants],
            limit_cycles=self.limit_cycles,
            drain_cycles=self.drain_cycles,
        )


@dataclass
class Channel:
    """What crossed one stream port."""

    cycles: list[int]
    beats: list[Any]


@dataclass
class RunLog:
    """What crossed every stream port of a design in one run.

    `cycles` is the first cycle in which nothing more was expected (the limit if `finished` is false); `status` holds
    the plain outputs in that cycle.
    """

    channels: dict[str, Channel]
    status: dict[str, int]
    cycles: int
    finished: bool

    def stream_log(self, source: str = "i", sink: str = "o") -> StreamLog:
        """The log of one input and one output in the form of the stepped models."""
        return StreamLog(self.channels[source].cycles, self.channels[sink].cycles, self.channels[sink].beats)


def decoded(design: Design, case: Case, log: RawLog) -> RunLog:
    """A raw log in the values of the models."""
    channels = {}
    for port, cycles in zip(design.sources, log.input_cycles, strict=True):
        channels[port.name] = Channel(list(cycles), list(case.sources[port.name].beats[: len(cycles)]))
    for port, cycles, outputs in zip(design.sinks, log.output_cycles, log.outputs, strict=True):
        channels[port.name] = Channel(list(cycles), [design.decode(port, bits) for bits in outputs])
    status = {port.name: _signed(port, bits) for port, bits in zip(design.status, log.status, strict=False)}
    return RunLog(channels, status, log.cycles, log.finished)


def _signed(port: PlainPort, bits: int) -> int:
    return bits - (1 << port.bits) if port.signed and port.bits and bits >> port.bits - 1 else bits
