"""The clock-by-clock play of a case, at the level of bits; free of Amaranth, so that simulators start fast.

Time base: cycle 0 is the first rising edge with reset low; a beat crosses in the cycle in which `valid` and `ready`
are both high before the edge. The source offers beat i from its arrival cycle on, never before beat i - 1 was taken,
and holds it. A sink is ready where its pattern says so, and always beyond the pattern's end. These are the rules of
`topsieve_sim.stepped.run_stepped`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class RawCase:
    """Stimulus of one run, ports in the design's order."""

    payloads: list[list[int]]
    arrivals: list[list[int]]
    ready: list[list[int]]
    expected: list[int]
    constants: list[int]
    limit_cycles: int
    drain_cycles: int

    def room(self, port: int) -> int:
        """Beats of an output that are recorded: the expected ones and one for each cycle of the drain."""
        return self.expected[port] + self.drain_cycles

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


@dataclass
class RawLog:
    """Response of one run; `cycles` is the first cycle in which nothing more was expected, or the limit."""

    input_cycles: list[list[int]]
    output_cycles: list[list[int]]
    outputs: list[list[int]]
    status: list[int] = field(default_factory=list)
    cycles: int = 0
    finished: bool = False

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


class Player:
    """Drives one case: ask `drive` for the pins of a cycle, then tell `sample` what came back."""

    def __init__(self, case: RawCase) -> None:
        self.case = case
        self.log = RawLog([[] for _ in case.payloads], [[] for _ in case.expected], [[] for _ in case.expected])
        self.cycle = 0
        self.over = False
        self._end = case.limit_cycles

    def drive(self) -> tuple[list[int | None], list[int]]:
        """Per source the offered payload or None, per sink whether it is ready."""
        offered: list[int | None] = []
        for payloads, arrivals, taken in zip(
            self.case.payloads, self.case.arrivals, self.log.input_cycles, strict=True
        ):
            following = len(taken)
            waiting = following < len(payloads) and self.cycle >= arrivals[following]
            offered.append(payloads[following] if waiting else None)
        ready = [pattern[self.cycle] if self.cycle < len(pattern) else 1 for pattern in self.case.ready]
        return offered, ready

    def expects_more(self) -> bool:
        """Whether a beat is still to be taken or to leave."""
        log, case = self.log, self.case
        return any(
            len(taken) < len(beats) for taken, beats in zip(log.input_cycles, case.payloads, strict=True)
        ) or any(len(left) < expected for left, expected in zip(log.output_cycles, case.expected, strict=True))

    def at_end(self) -> bool:
        """True once, in the cycle in which the run is complete: the moment to read the status ports."""
        if self.log.finished or self.expects_more():
            return False
        self.log.finished = True
        self.log.cycles = self.cycle
        self._end = self.cycle + self.case.drain_cycles
        return True

    def sample(self, taken: list[bool], left: list[int | None]) -> None:
        """End of a cycle: which offered beats were taken, and per sink the payload that left or None."""
        for port, crossed in enumerate(taken):
            if crossed:
                self.log.input_cycles[port].append(self.cycle)
        for port, payload in enumerate(left):
            if payload is not None and len(self.log.outputs[port]) < self.case.room(port):
                self.log.output_cycles[port].append(self.cycle)
                self.log.outputs[port].append(payload)
        self.cycle += 1
        if self.cycle >= self._end:
            self.over = True
            if not self.log.finished:
                self.log.cycles = self.cycle
