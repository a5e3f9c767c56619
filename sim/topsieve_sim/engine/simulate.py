"""`simulate`: a trace on a machine, into a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from topsieve_sim.arch import AcceleratorConfig, MemoryModel
from topsieve_sim.engine.assembly import ATTENTION_KIND, Tokens, assembled
from topsieve_sim.engine.attention import Assumptions, Decisions, attention_costs, decide, memo_of
from topsieve_sim.engine.ledger import Cost, Ledger
from topsieve_sim.engine.program import AttentionWork, Program, prepare
from topsieve_sim.engine.selection import Selections, drawn_selections, quantised_scores, selections
from topsieve_sim.engine.singles import HOST_KINDS, LINEAR_KINDS, at_operation, single_cost
from topsieve_sim.engine.termination import Memo as EndedMemo
from topsieve_sim.engine.termination import Termination, terminate, terminates, termination_costs, without_selection
from topsieve_sim.report import Report, Timing
from topsieve_sim.trace import Op, Trace
from topsieve_sim.trace.groups import SingleOp
from topsieve_sim.trace.ops import TopK, TopKScope

# Descriptors decided and timed at once; bounds the memory of a run.
BATCH = 512

Progress = Callable[[int, int], None]


def simulate(
    trace: Trace | Program, config: AcceleratorConfig, *, seed: int = 0, progress: Progress | None = None
) -> Report:
    """Run `trace` on the machine `config`, one descriptor after the other.

    Parameters
    ----------
    trace : a trace, or what `prepare` made of it (for many machines).
    seed : of the scores that are drawn where the trace has none.
    progress : called with (descriptors done, descriptors in all) now and then.

    Raises
    ------
    InputError
        the trace is malformed, does not fit the machine, or the technology is unknown.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    program = trace if isinstance(trace, Program) else prepare(trace)
    ledger, tokens = Ledger(), Tokens()
    run = _Run(program, config, np.random.default_rng(seed))
    for first in range(0, len(program.work), BATCH):
        batch = program.work[first : first + BATCH]
        for unit, cost, decided in run.costs(batch):
            if isinstance(unit, AttentionWork):
                op: Op = unit.query_key
                kind = ATTENTION_KIND
                tokens.add(unit, decided.lsb_rows if decided else 0, cost.cycles)
            else:
                op, kind = unit.op, unit.op.kind
            ledger.book(op.layer, kind, f"layer {op.layer} sequence {op.sequence} step {op.step} {kind}", cost)
        if progress is not None:
            progress(min(first + BATCH, len(program.work)), len(program.work))
    report = assembled(program, config, seed, ledger, tokens, run.notes())
    timing = Timing(wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)
    return report.model_copy(update={"timing": timing})


def _all_cycles(chosen: Selections) -> int:
    return int(chosen.cycles.sum() + chosen.flush[-1])


def cascade_selections(
    batch: Sequence[AttentionWork | SingleOp], trace: Trace, config: AcceleratorConfig, generator: np.random.Generator
) -> tuple[dict[int, int], bool]:
    """Selection cycles of each `TopK` of the batch by its index, all repeats and the flush after the last; whether any
    of their scores were drawn."""
    formats = config.formats
    found: dict[int, int] = {}
    drawn: dict[int, dict[int, TopK]] = {}
    guessed = False
    for unit in batch:
        if not isinstance(unit, SingleOp) or not isinstance(unit.op, TopK) or unit.op.n > config.capacity:
            continue
        op = unit.op
        bits = formats.head_importance_bits if op.scope is TopKScope.HEAD else formats.token_importance_bits
        scores = trace.operands.get((unit.index, "scores"))
        if scores is None:
            guessed |= 0 < op.k < op.n
            drawn.setdefault(bits, {})[unit.index] = op
        else:
            integers = quantised_scores(scores, bits).reshape(-1)
            sizes, kept = np.full(op.repeats, op.n), np.full(op.repeats, op.k)
            found[unit.index] = _all_cycles(selections(config, sizes, kept, integers, bits))
    for bits, ops in drawn.items():
        lengths = [np.full(op.repeats, op.n) for op in ops.values()]
        chosen = drawn_selections(config, lengths, [op.k for op in ops.values()], bits, generator)
        found |= zip(ops, map(_all_cycles, chosen), strict=True)
    return found, guessed


class _Run:
    """The costs of one program on one machine, batch by batch, and what had to be assumed."""

    def __init__(self, program: Program, config: AcceleratorConfig, generator: np.random.Generator) -> None:
        self.program = program
        self.config = config
        self.generator = generator
        self.memo = memo_of(program, config)
        self.ended_memo: EndedMemo = {}
        self.assumed = Assumptions()
        self.even_candidates = False
        self.drawn_cascade = False
        self.on_host: set[str] = set()
        self.on_arrays = False
        self.stated: set[str] = set()

    def costs(
        self, batch: tuple[AttentionWork | SingleOp, ...]
    ) -> list[tuple[AttentionWork | SingleOp, Cost, Decisions | Termination | None]]:
        """The batch's descriptors in program order; host work is left out."""
        times = self._attention([unit for unit in batch if isinstance(unit, AttentionWork)])
        cascade, drawn = cascade_selections(batch, self.program.trace, self.config, self.generator)
        self.drawn_cascade |= drawn
        result: list[tuple[AttentionWork | SingleOp, Cost, Decisions | Termination | None]] = []
        for unit in batch:
            if isinstance(unit, AttentionWork):
                cost, decided = next(times)
                self._check_width(unit)
                result.append((unit, cost, decided))
            elif unit.op.kind in HOST_KINDS and not self.config.fully_connected:
                self.on_host.add(unit.op.kind)
            else:
                self.on_arrays |= unit.op.kind in LINEAR_KINDS
                if not isinstance(unit.op, TopK):
                    self.stated.add(unit.op.kind)
                with at_operation(unit.index, unit.op):
                    cost = single_cost(unit.op, self.config, cascade.get(unit.index, 0))
                result.append((unit, cost, None))
        return result

    def _attention(self, work: list[AttentionWork]) -> Iterator[tuple[Cost, Decisions | Termination]]:
        """Cost of each descriptor and what was decided for it."""
        trace, config = self.program.trace, self.config
        early = [terminates(unit, trace, config) for unit in work]
        ended = [unit for unit, ends in zip(work, early, strict=True) if ends]
        whole = [unit for unit, ends in zip(work, early, strict=True) if not ends]
        if config.successor.terminates:
            whole = [without_selection(unit) for unit in whole]
        decisions = [decide(unit, trace, config, self.memo, self.assumed) for unit in whole]
        costs = attention_costs(whole, decisions, config, self.generator, self.program.tokens)
        found = [terminate(unit, trace, config, self.ended_memo) for unit in ended]
        self.even_candidates |= any((unit.groups[0].start, "query") not in trace.operands for unit in ended)
        plain: Iterator[tuple[Cost, Decisions | Termination]] = iter(zip(costs, decisions, strict=True))
        short: Iterator[tuple[Cost, Decisions | Termination]] = iter(
            zip(termination_costs(ended, found, config, self.program.tokens), found, strict=True)
        )
        return (next(short) if ends else next(plain) for ends in early)

    def _check_width(self, unit: AttentionWork) -> None:
        op, formats = unit.query_key, self.config.formats
        self.assumed.wide_operands |= (
            op.query_bits > formats.query_bits
            or op.key_msb_bits + op.key_lsb_bits > formats.key_bits
            or unit.groups[0].probability_value.value_bits > formats.value_bits
        )

    def notes(self) -> tuple[str, ...]:
        """The assumptions behind the numbers, each in a line."""
        memory = self.config.memory
        ideal = (
            f"{memory.latency_cycles} cycles latency, {memory.bytes_per_cycle} bytes per cycle, no conflicts; DRAM energy at "
            "the average per bit"
        )
        answers = f"memory model {memory.model}: {ideal}"
        if memory.model is MemoryModel.AXI:
            answers = (
                f"memory model axi: {memory.latency_cycles} cycles latency behind AXI4 ports of {memory.bytes_per_cycle} bytes, "
                "operands packed at the datapath's widths, survivors' values spread evenly where the trace does not decide; "
                f"DRAM energy at the average per wanted bit. Operations outside attention: {ideal}"
            )
        if memory.model is MemoryModel.DRAM:
            dram = memory.dram
            answers = (
                f"memory model dram: {dram.preset}, {memory.channels} channels, {dram.layout} layout, {dram.ports} ports with "
                f"{dram.port_outstanding} accesses each; bytes are whole accesses; energy at HBM2's cost of an access and an "
                f"activation; live tokens drawn where the trace names none; an idle memory for each descriptor, which flatters short ones. Operations outside attention: {ideal}"
            )
        notes = [
            answers,
            "descriptors run one after the other, each from an empty machine; the host adds no cycles between them",
        ]
        if self.stated:
            names = ", ".join(sorted(self.stated))
            notes.append(f"closed forms of stated throughputs, not beat-exact: {names}")
        if self.assumed.drawn_values:
            notes.append("local value selection: scores drawn uniformly at random, the trace holds none")
        if self.even_candidates:
            notes.append(
                "early termination: a row has as many candidates as the trace keeps values, rows of a head independent of each other; it holds no operands"
            )
        if self.drawn_cascade:
            notes.append("token and head selection: scores drawn uniformly at random where the trace holds none")
        if self.assumed.no_second_pass:
            notes.append("no operands to decide by: no row is recomputed with LSBs")
        if self.assumed.wide_operands:
            notes.append("operands wider than the datapath move at their own width and compute at the datapath's")
        if self.on_host:
            names = ", ".join(sorted(self.on_host))
            notes.append(f"on the host, without cycles, bytes or energy here: {names}")
        if self.on_arrays:
            notes.append(f"linear maps run on the arrays with {self.config.formats.key_msb_bits}-bit weights")
        return (*notes, *self.program.trace.notes)
