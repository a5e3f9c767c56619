"""A plane fetcher and the memory behind its port, clock by clock, as the attention unit sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from topsieve_sim.golden.plane_fetch import FetchCommand, PlaneFetchShape
from topsieve_sim.stepped.memory import Buffer
from topsieve_sim.stepped.plane_fetch import Answers, PlaneFetcher


@dataclass(frozen=True)
class FetchRequest:
    """`command` into `target`; `indices` are those of a gather."""

    target: Buffer
    command: FetchCommand
    indices: Sequence[int] = ()


@dataclass
class _Bank:
    """A request whose rows still come: `target` has a beat more with every `beat_rows` rows, and with the last."""

    target: Buffer
    rows: int
    come: int = 0


class FetchedMemory:
    """Takes a request when its fetcher takes the command; a bank takes a chunk a cycle.

    Parameters
    ----------
    beat_rows : rows of a bank's beat.
    latency_cycles, delays, gaps : as in `topsieve_sim.timing.memory_port.fetcher_port`.
    """

    def __init__(
        self,
        shape: PlaneFetchShape,
        beat_rows: int,
        latency_cycles: int,
        delays: Sequence[int] = (),
        gaps: Sequence[int] = (),
    ) -> None:
        self.beat_rows = beat_rows
        self.fetcher = PlaneFetcher(shape)
        self.answers = Answers(shape, lambda _: (0, 0), delays, gaps, latency_cycles)
        self.indices: deque[deque[int]] = deque()
        self.banks: deque[_Bank] = deque()
        self.cycle = 0
        self.bytes_asked = 0
        self.cause = "waiting_for_input"

    @property
    def accepts(self) -> bool:
        """Whether a request would be taken in this cycle."""
        return self.fetcher.accepts_command()

    @property
    def drained(self) -> bool:
        """Whether everything that was asked for has come."""
        return not self.banks

    def tick(self, ready: bool, picked: FetchRequest | None) -> None:
        """The clock edge: the memory took an address if it was `ready`; `picked` was taken."""
        unit = self.fetcher
        asks = unit.offer_address() is not None or unit.outstanding > 0
        index = None
        if self.indices and unit.accepts_index():
            index = self.indices[0].popleft()
            if not self.indices[0]:
                self.indices.popleft()
        burst = unit.offer_address() if ready else None
        word = self.answers.answer(self.cycle)
        if burst is not None:
            self.answers.ask(self.cycle, burst)
        beat = unit.offer()
        if beat is not None and beat[3]:
            self._row_came()
        unit.tick(None if picked is None else picked.command, index, burst is not None, word, beat is not None)
        if picked is not None:
            command = picked.command
            if command.gather:
                self.indices.append(deque(picked.indices))
            self.banks.append(_Bank(picked.target, command.rows))
            self.bytes_asked += command.rows * unit.shape.row_bytes(command.elements, command.plane)
        self.cause = "busy" if word is not None else "waiting_for_memory" if asks else "waiting_for_input"
        self.cycle += 1

    def _row_came(self) -> None:
        bank = self.banks[0]
        bank.come += 1
        if bank.come == bank.rows:
            self.banks.popleft()
        if bank.come == bank.rows or bank.come % self.beat_rows == 0:
            bank.target.beats_ready += 1
