"""The clock-by-clock reference: slow, obvious, and the definition of a cycle for every unit.

Time base. Cycle 0 is the first rising edge with reset low. A beat crosses an interface in the cycle in which `valid`
and `ready` are both high.

Rule of the house, here and in the RTL: `valid`, `payload` and `ready` of every stream port are functions of
registered state alone. There is no combinational path between ports, so `offer` and `accepts` read the state and
`tick` replaces it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class SteppedUnit(ABC):
    """A unit with one input and one output stream."""

    @abstractmethod
    def offer(self) -> Any | None:
        """The output beat offered in this cycle (`valid` high), or None."""

    @abstractmethod
    def accepts(self) -> bool:
        """Whether an input beat would be taken in this cycle (`ready` high)."""

    @abstractmethod
    def tick(self, taken: Any | None, sent: bool) -> None:
        """The clock edge: `taken` is the beat that crossed the input, `sent` whether the offered beat left."""


@dataclass
class StreamLog:
    """What crossed the two interfaces of a unit: cycles and payloads, beat by beat."""

    input_cycles: list[int] = field(default_factory=list)
    output_cycles: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def run_stepped(
    unit: SteppedUnit,
    beats: Sequence[Any],
    arrival_cycles: Sequence[int],
    ready_pattern: Sequence[bool],
    expected_outputs: int,
    limit_cycles: int = 1_000_000,
) -> StreamLog:
    """Drive `unit` with a stalling source and a stalling sink until `expected_outputs` beats have left.

    The source offers beat i from cycle `arrival_cycles[i]` on (never before beat i-1 was taken) and holds it. The sink
    is ready in cycle c where `ready_pattern[c]` is true; beyond the pattern's end it is always ready.

    Raises
    ------
    RuntimeError
        `limit_cycles` passed without the expected outputs.
    """
    log = StreamLog()
    following = 0
    for cycle in range(limit_cycles):
        if len(log.outputs) >= expected_outputs and following >= len(beats):
            return log
        offered = unit.offer()
        sink_ready = ready_pattern[cycle] if cycle < len(ready_pattern) else True
        sent = offered is not None and sink_ready
        source_valid = following < len(beats) and cycle >= arrival_cycles[following]
        takes = source_valid and unit.accepts()
        taken = beats[following] if takes else None
        if sent:
            log.output_cycles.append(cycle)
            log.outputs.append(offered)
        if takes:
            log.input_cycles.append(cycle)
            following += 1
        unit.tick(taken, sent)
    raise RuntimeError(f"no end within {limit_cycles} cycles: {len(log.outputs)} of {expected_outputs} beats left")
