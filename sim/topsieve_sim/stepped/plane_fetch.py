"""The plane fetcher clock by clock, and a memory that answers it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from topsieve_sim.golden.plane_fetch import (
    BOUNDARY_BYTES,
    COMMAND_SLOTS,
    INDEX_SLOTS,
    JOB_SLOTS,
    OUTPUT_SLOTS,
    Burst,
    FetchBeat,
    FetchCommand,
    FetchStatus,
    Memory,
    PlaneFetchShape,
)


@dataclass
class _Row:
    """A row on its way: `address` is the product alone until the base is added."""

    address: int
    base: int
    size: int
    last: bool


@dataclass
class _Run:
    """Contiguous bytes that grow until `closed`."""

    address: int
    size: int
    closed: bool
    last: bool


@dataclass
class _Split:
    """What is left of a run: `skip` bytes of its first word and `spare` of its last are not wanted."""

    address: int
    words: int
    skip: int
    spare: int
    last: bool


@dataclass
class _Expected:
    """A burst whose words are still to come."""

    words: int
    skip: int
    spare: int
    last: bool


class _Piece(NamedTuple):
    value: int
    bits: int
    response: int
    closes: bool


@dataclass
class _Job:
    """Rows of a command that are still to be unpacked; `beat` counts beats of the present row."""

    rows: int
    elements: int
    plane: int
    has_rows: bool
    beat: int = 0


class PlaneFetcher:
    """The unit. In each cycle ask what it offers and accepts, then call `tick` with what crossed.

    Parameters
    ----------
    shape : its parameters.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        self.mask = (1 << shape.address_bits) - 1
        self.commands: deque[FetchCommand] = deque()
        self.indices: deque[int] = deque()
        self.jobs: deque[_Job] = deque()
        self.walking: FetchCommand | None = None
        self.walked = 0
        self.product: _Row | None = None
        self.placed: _Row | None = None
        self.run: _Run | None = None
        self.split: _Split | None = None
        self.address: Burst | None = None
        self.expected: deque[_Expected] = deque()
        self.outstanding = 0
        self.reserved = 0
        self.words: deque[_Piece] = deque()
        self.piece: _Piece | None = None
        self.command_status = 0
        self.statuses: deque[int] = deque()
        self.value, self.fill = 0, 0
        self.job: _Job | None = None
        self.outputs: deque[FetchBeat] = deque()

    def accepts_command(self) -> bool:
        """Command stream ready."""
        return len(self.commands) < COMMAND_SLOTS

    def accepts_index(self) -> bool:
        """Index stream ready."""
        return len(self.indices) < INDEX_SLOTS

    def offer_address(self) -> Burst | None:
        """The burst on AR, or None. R is always ready."""
        return self.address

    def offer(self) -> FetchBeat | None:
        """The output beat, or None."""
        return self.outputs[0] if self.outputs else None

    def tick(
        self,
        command: FetchCommand | None,
        index: int | None,
        address_sent: bool,
        word: tuple[int, int, bool] | None,
        sent: bool,
    ) -> None:
        """The clock edge: what was taken, whether AR and output crossed, and the (data, RRESP, RLAST) that came."""
        shape = self.shape
        # What each register does in this cycle follows from the registers behind it, so the decisions go backwards.
        need = self._need()
        emits = need is not None and self.fill >= need and len(self.outputs) < OUTPUT_SLOTS
        removed = need if emits and need is not None else 0
        appends = self.piece is not None and self.fill - removed + self.piece.bits <= shape.unpack_bits
        aligns = bool(self.words) and (self.piece is None or appends)
        length = self._burst_words() if self.split else 0
        issues = (
            self.split is not None
            and (self.address is None or address_sent)
            and self.reserved + length <= shape.buffer_words
            and self.outstanding < shape.max_outstanding
        )
        split_free = self.split is None or (issues and self.split.words == length)
        joins = self._joins()
        live = self.placed is not None and self.placed.size > 0
        leaves = self.run is not None and split_free and (self.run.closed or (live and not joins))
        takes = self.placed is not None and (not live or joins or self.run is None or leaves)
        places = self.product is not None and (self.placed is None or takes)
        steps = (
            self.walking is not None
            and (self.product is None or places)
            and (not self.walking.gather or bool(self.indices))
        )
        loads = self.walking is None and bool(self.commands) and len(self.jobs) < JOB_SLOTS
        starts_job = self.job is None and bool(self.jobs)

        if sent:
            self.outputs.popleft()
        if emits:
            self._emit(removed)
        if appends and self.piece is not None:
            self.value |= self.piece.value << self.fill
            self.fill += self.piece.bits
            self.piece = None
        if aligns:
            self._align()
        if address_sent:
            self.address = None
        if word is not None:
            self._receive(*word)
        if issues:
            self._issue(length)
        if leaves and self.run is not None:
            self._leave(self.run)
        if takes and self.placed is not None:
            if live:
                self._take(self.placed, joins)
            self.placed = None
        if places and self.product is not None:
            row = self.product
            row.address = (row.address + row.base) & self.mask
            self.placed, self.product = row, None
        if starts_job:
            self.job = self.jobs.popleft()
        if steps and self.walking is not None:
            self._step(self.walking)
        if loads:
            self._load()
        if command is not None:
            self.commands.append(command)
        if index is not None:
            self.indices.append(index)

    def _load(self) -> None:
        command = self.commands.popleft()
        self.jobs.append(_Job(max(command.rows, 1), command.elements, command.plane, command.rows > 0))
        if command.rows:
            self.walking, self.walked = command, 0

    def _step(self, command: FetchCommand) -> None:
        index = self.indices.popleft() if command.gather else self.walked
        self.walked += 1
        last = self.walked == command.rows
        size = self.shape.row_bytes(command.elements, command.plane)
        self.product = _Row(index * command.stride, command.base, size, last)
        if last:
            self.walking = None

    def _joins(self) -> bool:
        run, row = self.run, self.placed
        return (
            run is not None
            and row is not None
            and not run.closed
            and (run.address + run.size) & self.mask == row.address
            and run.size + row.size <= self.shape.merge_bytes
        )

    def _take(self, row: _Row, joins: bool) -> None:
        size = row.size
        if joins and self.run is not None:
            self.run.size += size
        else:
            self.run = _Run(row.address, size, False, False)
        assert self.run is not None
        self.run.last = row.last
        self.run.closed = row.last or self.run.size + size > self.shape.merge_bytes

    def _leave(self, run: _Run) -> None:
        data_bytes = self.shape.data_bytes
        skip = run.address % data_bytes
        words = -(-(skip + run.size) // data_bytes)
        spare = words * data_bytes - skip - run.size
        self.split = _Split(run.address - skip, words, skip, spare, run.last)
        self.run = None

    def _burst_words(self) -> int:
        assert self.split is not None
        to_boundary = BOUNDARY_BYTES - self.split.address % BOUNDARY_BYTES
        return min(self.split.words, self.shape.max_burst_words, to_boundary // self.shape.data_bytes)

    def _issue(self, length: int) -> None:
        split = self.split
        assert split is not None
        ends = split.words == length
        self.address = Burst(split.address, length)
        self.expected.append(_Expected(length, split.skip, split.spare if ends else 0, split.last and ends))
        self.outstanding += 1
        self.reserved += length
        split.address = (split.address + length * self.shape.data_bytes) & self.mask
        split.words -= length
        split.skip = 0
        if ends:
            self.split = None

    def _receive(self, data: int, response: int, last: bool) -> None:
        burst = self.expected[0]
        burst.words -= 1
        size = self.shape.data_bytes - burst.skip - (burst.spare if last else 0)
        value = data >> 8 * burst.skip & ((1 << 8 * size) - 1)
        self.words.append(_Piece(value, 8 * size, response, last and burst.last))
        assert len(self.words) <= self.shape.buffer_words
        burst.skip = 0
        if last:
            assert burst.words == 0
            self.expected.popleft()
            self.outstanding -= 1

    def _align(self) -> None:
        self.piece = self.words.popleft()
        self.reserved -= 1
        if self.piece.response >= FetchStatus.SLAVE_ERROR:
            self.command_status = max(self.command_status, self.piece.response)
        if self.piece.closes:
            self.statuses.append(self.command_status)
            self.command_status = 0

    def _need(self) -> int | None:
        """Bits of the next output beat, padding of a row's last beat included; None without a job."""
        job, shape = self.job, self.shape
        if job is None:
            return None
        if not job.has_rows:
            return 0
        done = job.beat * shape.lanes * shape.element_bits[job.plane]
        whole = 8 * shape.row_bytes(job.elements, job.plane)
        is_last = (job.beat + 1) * shape.lanes >= job.elements
        return whole - done if is_last else shape.lanes * shape.element_bits[job.plane]

    def _emit(self, removed: int) -> None:
        job, shape = self.job, self.shape
        assert job is not None
        bits = shape.element_bits[job.plane]
        count = min(shape.lanes, job.elements - job.beat * shape.lanes) if job.has_rows else 0
        is_last = not job.has_rows or (job.beat + 1) * shape.lanes >= job.elements
        final = is_last and job.rows == 1
        status = self.statuses.popleft() if final and job.has_rows and job.elements else 0
        lanes = tuple(
            self.value >> lane * bits & ((1 << bits) - 1) if lane < count else None for lane in range(shape.lanes)
        )
        self.outputs.append((lanes, count, int(job.beat == 0), int(is_last), int(final), status))
        self.value >>= removed
        self.fill -= removed
        job.beat = 0 if is_last else job.beat + 1
        job.rows -= int(is_last)
        if final:
            self.job = None


@dataclass
class PlaneFetchLog:
    """What crossed every port: cycles, and the payloads of AR and output."""

    command_cycles: list[int] = field(default_factory=list)
    index_cycles: list[int] = field(default_factory=list)
    address_cycles: list[int] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    data_cycles: list[int] = field(default_factory=list)
    words: list[tuple[int, int, bool]] = field(default_factory=list)
    output_cycles: list[int] = field(default_factory=list)
    outputs: list[FetchBeat] = field(default_factory=list)


class Answers:
    """The memory: in order, `delays[b]` and `gaps[w]` as in `topsieve_sim.timing.plane_fetch.MemoryTimes`, 0 beyond their
    ends; `latency_cycles` is added to every delay."""

    def __init__(
        self,
        shape: PlaneFetchShape,
        memory: Memory,
        delays: Sequence[int],
        gaps: Sequence[int],
        latency_cycles: int = 0,
    ) -> None:
        self.shape, self.memory, self.delays, self.gaps = shape, memory, delays, gaps
        self.latency_cycles = latency_cycles
        self.waiting: deque[tuple[int, int, bool]] = deque()  # earliest cycle, address, last of burst
        self.bursts = 0
        self.served = 0
        self.free = 0

    def ask(self, cycle: int, burst: Burst) -> None:
        delay = self.delays[self.bursts] if self.bursts < len(self.delays) else 0
        first = cycle + 1 + self.latency_cycles + delay
        for n in range(burst.words):
            address = burst.address + n * self.shape.data_bytes
            self.waiting.append((first if n == 0 else 0, address, n + 1 == burst.words))
        self.bursts += 1

    def answer(self, cycle: int) -> tuple[int, int, bool] | None:
        if not self.waiting:
            return None
        gap = self.gaps[self.served] if 0 < self.served < len(self.gaps) else 0
        earliest, address, last = self.waiting[0]
        if cycle < max(earliest, self.free + gap):
            return None
        self.waiting.popleft()
        self.served += 1
        self.free = cycle + 1
        return (*self.memory(address), last)


def run_plane_fetch(
    unit: PlaneFetcher,
    commands: Sequence[FetchCommand],
    command_arrivals: Sequence[int],
    indices: Sequence[int],
    index_arrivals: Sequence[int],
    memory: Memory,
    address_ready: Sequence[bool],
    delays: Sequence[int],
    gaps: Sequence[int],
    ready: Sequence[bool],
    expected_beats: int,
    limit_cycles: int = 1_000_000,
) -> PlaneFetchLog:
    """Drive `unit` until all was taken and `expected_beats` have left; patterns and arrivals as in `topsieve_sim.stepped.run_stepped`.

    Raises
    ------
    RuntimeError
        `limit_cycles` passed before.
    """
    log = PlaneFetchLog()
    answers = Answers(unit.shape, memory, delays, gaps)
    for cycle in range(limit_cycles):
        all_taken = len(log.command_cycles) == len(commands) and len(log.index_cycles) == len(indices)
        if all_taken and len(log.outputs) >= expected_beats:
            return log
        command = index = None
        place = len(log.command_cycles)
        if place < len(commands) and cycle >= command_arrivals[place] and unit.accepts_command():
            command = commands[place]
            log.command_cycles.append(cycle)
        place = len(log.index_cycles)
        if place < len(indices) and cycle >= index_arrivals[place] and unit.accepts_index():
            index = indices[place]
            log.index_cycles.append(cycle)
        burst = unit.offer_address()
        if cycle < len(address_ready) and not address_ready[cycle]:
            burst = None
        word = answers.answer(cycle)
        if word is not None:
            log.data_cycles.append(cycle)
            log.words.append(word)
        if burst is not None:
            log.address_cycles.append(cycle)
            log.bursts.append(burst)
            answers.ask(cycle, burst)
        beat = unit.offer()
        if cycle < len(ready) and not ready[cycle]:
            beat = None
        if beat is not None:
            log.output_cycles.append(cycle)
            log.outputs.append(beat)
        unit.tick(command, index, burst is not None, word, beat is not None)
    raise RuntimeError(f"no end within {limit_cycles} cycles: {len(log.outputs)} of {expected_beats} beats left")
