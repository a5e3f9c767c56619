"""The top-k engine clock by clock: loader, row buffers, selector, filter, output FIFO."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from topsieve_sim.arch.config import SelectorKind
from topsieve_sim.golden.topk import PacketStatus
from topsieve_sim.golden.topk_latency import filter_stages, output_fifo_depth
from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.topk_bitonic import BitonicSelect
from topsieve_sim.stepped.topk_quick import QuickSelect
from topsieve_sim.stepped.topk_select import Command, RadixSelect, SteppedSelector

LoadBeat = tuple[tuple[int, ...], int, int, int]
"""(scores per lane, count, last, k); k is read with the last beat."""
SurvivorBeat = tuple[tuple[tuple[int, int], ...], int, int, int]
"""((score, index) per lane, count, last, status); lanes beyond count are zero, status is 0 but on the last beat."""


def stepped_selector(
    kind: SelectorKind, lanes: int, score_bits: int, seed: int = 0xACE1, radix_bits: int = 4
) -> SteppedSelector:
    """The selector of a configuration."""
    if kind is SelectorKind.QUICK:
        return QuickSelect(lanes, score_bits, seed)
    if kind is SelectorKind.RADIX:
        return RadixSelect(lanes, score_bits, radix_bits)
    return BitonicSelect(lanes, score_bits)


class _Packet(NamedTuple):
    n: int
    k: int
    status: PacketStatus
    bank: int


class _Token(NamedTuple):
    survivors: list[tuple[int, int]]
    last: bool
    status: PacketStatus


class TopKEngine(SteppedUnit):
    """Beats of scores in, beats of surviving (score, index) out.

    Parameters
    ----------
    selector : how the threshold is found.
    capacity : longest packet in elements.
    load_lanes : lanes of a load beat, a divisor of the selector's lanes.
    banks : row buffers, 1 or 2.
    """

    def __init__(self, selector: SteppedSelector, capacity: int, load_lanes: int, banks: int = 2) -> None:
        self.selector = selector
        self.lanes = selector.lanes
        self.capacity = capacity
        self.load_lanes = load_lanes
        self.banks: list[list[list[int]]] = [[] for _ in range(banks)]
        self.busy = [False] * banks
        self.load_bank = 0
        self._open_packet()
        self.row_register: tuple[bool, list[int]] | None = None
        self.closing: _Packet | None = None
        self.command: _Packet | None = None
        self.selecting: _Packet | None = None
        self.filtering: _Packet | None = None
        self.filter_row = 0
        self.pipe: deque[_Token | None] = deque([None] * filter_stages(self.lanes))
        self.waiting: list[tuple[int, int]] = []
        self.flush: SurvivorBeat | None = None
        self.fifo: deque[SurvivorBeat] = deque()
        self.credits = output_fifo_depth(self.lanes)

    def _open_packet(self) -> None:
        self.loaded = 0
        self.ragged = False
        self.gathered: list[int] = []
        self.first_row = True

    def offer(self) -> Any | None:
        return self.fifo[0] if self.fifo else None

    def accepts(self) -> bool:
        return not self.busy[self.load_bank]

    def tick(self, taken: LoadBeat | None, sent: bool) -> None:
        starts = self.command if self.selector.idle else None
        result = self.selector.result if self.filtering is None else None
        returned = int(sent)
        if sent:
            self.fifo.popleft()
        returned += self._write_fifo(self.pipe.pop())
        self.pipe.appendleft(self._issue())
        self.selector.tick(
            Command(starts.n, starts.k) if starts else None,
            self.banks[self.selecting.bank] if self.selecting else [],
            self.row_register,
            result is not None,
        )
        if result is not None:
            assert self.selecting is not None
            self.filtering = self.selecting
            self.kth, self.quota = result
            self.filter_row = 0
        if starts is not None:
            self.selecting = starts
            self.command = None
        if self.closing is not None:
            self.command = self.closing
        self.closing = None
        self.row_register = None
        if taken is not None:
            self._load(taken)
        self.credits += returned

    def _load(self, beat: LoadBeat) -> None:
        scores, count, last, k = beat
        if self.first_row and not self.gathered:
            self.banks[self.load_bank] = []
        self.ragged |= count > self.load_lanes or (count != self.load_lanes and not last)
        self.gathered += scores[: min(count, self.load_lanes)]
        self.loaded = min(self.loaded + count, self.capacity + 1)
        if self.gathered and (last or len(self.gathered) >= self.lanes):
            self.row_register = (self.first_row, self.gathered)
            self.banks[self.load_bank].append(self.gathered)
            self.first_row = False
            self.gathered = []
        if last:
            status = PacketStatus.OK
            if self.ragged:
                status = PacketStatus.RAGGED
            elif self.loaded > self.capacity:
                status = PacketStatus.OVER_CAPACITY
            elif k > self.capacity:
                status = PacketStatus.K_OUT_OF_RANGE
            accepted = status is PacketStatus.OK
            self.closing = _Packet(
                self.loaded if accepted else 0, min(k, self.loaded) if accepted else 0, status, self.load_bank
            )
            self.busy[self.load_bank] = True
            self.load_bank = (self.load_bank + 1) % len(self.banks)
            self._open_packet()

    def _issue(self) -> _Token | None:
        packet = self.filtering
        if packet is None:
            return None
        last = (self.filter_row + 1) * self.lanes >= packet.n
        needed = 2 if last else 1
        if self.credits < needed:
            return None
        self.credits -= needed
        survivors = []
        begin = self.filter_row * self.lanes
        row = self.banks[packet.bank][self.filter_row] if packet.n else []
        for lane, score in enumerate(row[: packet.n - begin]):
            if score > self.kth:
                survivors.append((score, begin + lane))
            elif score == self.kth and self.quota > 0:
                self.quota -= 1
                survivors.append((score, begin + lane))
        self.filter_row += 1
        if last:
            self.busy[packet.bank] = False
            self.filtering = None
        return _Token(survivors, last, packet.status)

    def _beat(self, elements: list[tuple[int, int]], last: bool, status: PacketStatus) -> SurvivorBeat:
        empty = [(0, 0)] * (self.lanes - len(elements))
        return tuple(elements + empty), len(elements), int(last), int(status) if last else 0

    def _write_fifo(self, token: _Token | None) -> int:
        """Pack what leaves the filter; returns the credits that come back without a beat."""
        if self.flush is not None:
            self.fifo.append(self.flush)
            self.flush = None
        if token is None:
            return 0
        self.waiting = self.waiting + token.survivors
        full = len(self.waiting) > self.lanes
        if full:
            self.fifo.append(self._beat(self.waiting[: self.lanes], False, token.status))
            self.waiting = self.waiting[self.lanes :]
        if token.last:
            tail = self._beat(self.waiting, True, token.status)
            self.waiting = []
            if full:
                self.flush = tail
                return 0
            self.fifo.append(tail)
            return 1
        return 0 if full else 1
