"""`simulate`: a trace on a machine, into a report."""

from __future__ import annotations

import math
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from topsieve_sim import __version__
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import (
    Action,
    Component,
    action_energies_pj,
    area_um2,
    energy_pj,
    memory_bits,
    total_pj,
)
from topsieve_sim.engine.attention import Assumptions, Decisions, Memo, attention_costs, decide
from topsieve_sim.engine.ledger import Cost, Ledger
from topsieve_sim.engine.program import AttentionWork, Program, prepare
from topsieve_sim.engine.selection import Selections, drawn_selections, quantised_scores, selections
from topsieve_sim.engine.singles import HOST_KINDS, at_operation, single_cost
from topsieve_sim.report import (
    LayerRow,
    OperationRow,
    Report,
    Timing,
    TokenRow,
    Traffic,
    Unit,
    UnitRow,
)
from topsieve_sim.trace import Trace
from topsieve_sim.trace.groups import SingleOp
from topsieve_sim.trace.ops import TopK, TopKScope

ATTENTION_KIND = "attention"
# Descriptors decided and timed at once; bounds the memory that probabilities take.
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
    ledger = Ledger()
    tokens: list[TokenRow] = []
    lsb_rows: Counter[int] = Counter()
    query_rows: Counter[int] = Counter()
    generator = np.random.default_rng(seed)
    run = _Run(program, config, generator)
    for first in range(0, len(program.work), BATCH):
        batch = program.work[first : first + BATCH]
        for unit, cost, decided in run.costs(batch):
            if isinstance(unit, AttentionWork):
                op = unit.query_key
                again = decided.lsb_rows if decided else 0
                lsb_rows[op.layer] += again
                query_rows[op.layer] += unit.heads * op.queries
                ledger.book(op.layer, ATTENTION_KIND, _name(op.layer, op.sequence, op.step, ATTENTION_KIND), cost)
                tokens.append(
                    TokenRow(
                        sequence=op.sequence,
                        step=op.step,
                        layer=op.layer,
                        heads=unit.heads,
                        queries=op.queries,
                        keys=op.keys,
                        kept_values=unit.kept,
                        lsb_rows=again,
                        cycles=cost.cycles,
                    )
                )
            else:
                single = unit.op
                name = _name(single.layer, single.sequence, single.step, single.kind)
                ledger.book(single.layer, single.kind, name, cost)
        if progress is not None:
            progress(min(first + BATCH, len(program.work)), len(program.work))
    report = _report(program, config, seed, ledger, tokens, query_rows, lsb_rows, run.notes())
    timing = Timing(wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)
    return report.model_copy(update={"timing": timing})


def _name(layer: int, sequence: int, step: int, kind: str) -> str:
    return f"layer {layer} sequence {sequence} step {step} {kind}"


def _all_cycles(chosen: Selections) -> int:
    return int(chosen.cycles.sum() + chosen.flush[-1])


class _Run:
    """The costs of one program on one machine, batch by batch, and what had to be assumed."""

    def __init__(self, program: Program, config: AcceleratorConfig, generator: np.random.Generator) -> None:
        self.program = program
        self.config = config
        self.generator = generator
        self.memo: Memo = {}
        self.assumed = Assumptions()
        self.drawn_cascade = False
        self.on_host: set[str] = set()
        self.on_arrays = False
        self.stated: set[str] = set()

    def costs(
        self, batch: tuple[AttentionWork | SingleOp, ...]
    ) -> list[tuple[AttentionWork | SingleOp, Cost, Decisions | None]]:
        """The batch's descriptors in program order; host work is left out."""
        work = [unit for unit in batch if isinstance(unit, AttentionWork)]
        trace = self.program.trace
        decisions = [decide(unit, trace, self.config, self.memo, self.assumed) for unit in work]
        times = iter(zip(attention_costs(work, decisions, self.config, self.generator), decisions, strict=True))
        cascade = self._cascade(batch)
        result: list[tuple[AttentionWork | SingleOp, Cost, Decisions | None]] = []
        for unit in batch:
            if isinstance(unit, AttentionWork):
                cost, decided = next(times)
                self._check_width(unit)
                result.append((unit, cost, decided))
            elif unit.op.kind in HOST_KINDS and not self.config.fully_connected:
                self.on_host.add(unit.op.kind)
            else:
                self.on_arrays |= unit.op.kind in HOST_KINDS
                if not isinstance(unit.op, TopK):
                    self.stated.add(unit.op.kind)
                with at_operation(unit.index, unit.op):
                    cost = single_cost(unit.op, self.config, cascade.get(unit.index, 0))
                result.append((unit, cost, None))
        return result

    def _cascade(self, batch: tuple[AttentionWork | SingleOp, ...]) -> dict[int, int]:
        """Selection cycles of each `TopK` of the batch by its index: all repeats, and the flush after the last."""
        formats = self.config.formats
        found: dict[int, int] = {}
        drawn: dict[int, dict[int, TopK]] = {}
        for unit in batch:
            if not isinstance(unit, SingleOp) or not isinstance(unit.op, TopK) or unit.op.n > self.config.capacity:
                continue
            op = unit.op
            bits = formats.head_importance_bits if op.scope is TopKScope.HEAD else formats.token_importance_bits
            scores = self.program.trace.operands.get((unit.index, "scores"))
            if scores is None:
                self.drawn_cascade |= 0 < op.k < op.n
                drawn.setdefault(bits, {})[unit.index] = op
            else:
                integers = quantised_scores(scores, bits).reshape(-1)
                sizes, kept = np.full(op.repeats, op.n), np.full(op.repeats, op.k)
                found[unit.index] = _all_cycles(selections(self.config, sizes, kept, integers, bits))
        for bits, ops in drawn.items():
            lengths = [np.full(op.repeats, op.n) for op in ops.values()]
            chosen = drawn_selections(self.config, lengths, [op.k for op in ops.values()], bits, self.generator)
            found |= zip(ops, map(_all_cycles, chosen), strict=True)
        return found

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
        notes = [
            f"memory model {memory.model}: {memory.latency_cycles} cycles latency, "
            f"{memory.bytes_per_cycle} bytes per cycle, no conflicts; DRAM energy at the average per bit",
            "descriptors run one after the other, each from an empty machine; the host adds no cycles between them",
        ]
        if self.stated:
            names = ", ".join(sorted(self.stated))
            notes.append(f"closed forms of stated throughputs, not beat-exact: {names}")
        if self.assumed.drawn_values:
            notes.append("local value selection: scores drawn uniformly at random, the trace holds none")
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


def _report(
    program: Program,
    config: AcceleratorConfig,
    seed: int,
    ledger: Ledger,
    tokens: list[TokenRow],
    query_rows: Counter[int],
    lsb_rows: Counter[int],
    notes: tuple[str, ...],
) -> Report:
    energies = action_energies_pj(config)
    actions = {layer: _layer_actions(ledger, layer, config) for layer in sorted({layer for layer, _ in program.totals})}
    total: Counter[tuple[Component, Action]] = Counter()
    for counts in actions.values():
        total.update(counts)
    energy = energy_pj(total, energies)
    area = area_um2(config)
    totals = program.totals.values()
    trace = program.trace
    return Report(
        accelerator=config,
        accelerator_digest=config.digest,
        model=trace.model,
        method=trace.method,
        seed=seed,
        versions=versions(),
        cycles=ledger.cycles,
        latency_us=config.microseconds(ledger.cycles),
        macs=sum(total.macs for total in totals),
        flops=sum(total.flops for total in totals),
        attention_flops=sum(
            total.flops for (_, kind), total in program.totals.items() if kind in ("query_key", "probability_value")
        ),
        attention_flops_dense=dense_attention_flops(program),
        query_rows=sum(query_rows.values()),
        lsb_rows=sum(lsb_rows.values()),
        dram_bytes={kind: ledger.traffic[kind] for kind in Traffic},
        dram_bytes_total=sum(ledger.traffic.values()),
        energy_pj={part.value: {act.value: pj for act, pj in acts.items()} for part, acts in energy.items()},
        energy_total_pj=total_pj(energy),
        area_um2={part.value: value for part, value in area.items()},
        area_total_um2=math.fsum(area.values()),
        operations=_operation_rows(program, config, ledger),
        layers=_layer_rows(program, ledger, actions, energies, query_rows, lsb_rows),
        tokens=tuple(tokens),
        units=_unit_rows(ledger),
        timeline=ledger.timeline(),
        notes=notes,
    )


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {
        "topsieve": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba"),
    }


def dense_attention_flops(program: Program) -> int:
    """FLOPs of QK and PV if each layer of a sequence and step had the widest layer's queries, keys and heads.

    The trace of a pruned run does not hold the dense one; its first layers do, as far as the method leaves them alone.
    """
    by_run: defaultdict[tuple[int, int], defaultdict[int, list[AttentionWork]]] = defaultdict(lambda: defaultdict(list))
    for unit in program.work:
        if isinstance(unit, AttentionWork):
            op = unit.query_key
            by_run[op.sequence, op.step][op.layer].append(unit)
    total = 0
    for layers in by_run.values():
        every = [unit for units in layers.values() for unit in units]
        heads = max(sum(unit.heads for unit in units) for units in layers.values())
        queries = max(unit.query_key.queries for unit in every)
        keys = max(unit.query_key.keys for unit in every)
        head_dim = max(unit.query_key.head_dim for unit in every)
        total += len(layers) * heads * queries * keys * head_dim * 4
    return total


def _operation_rows(program: Program, config: AcceleratorConfig, ledger: Ledger) -> tuple[OperationRow, ...]:
    """One row a kind; the cycles of a whole attention group stand in its `query_key` row."""
    kinds: dict[str, list[int]] = {}
    for (_, kind), total in sorted(program.totals.items()):
        row = kinds.setdefault(kind, [0, 0, 0])
        for place, value in enumerate((total.count, total.macs, total.flops)):
            row[place] += value
    return tuple(
        OperationRow(
            kind=kind,
            where="host" if kind in HOST_KINDS and not config.fully_connected else "accelerator",
            count=count,
            macs=macs,
            flops=flops,
            cycles=ledger.kind_cycles[ATTENTION_KIND if kind == "query_key" else kind],
        )
        for kind, (count, macs, flops) in kinds.items()
    )


def _layer_rows(
    program: Program,
    ledger: Ledger,
    actions: dict[int, Counter[tuple[Component, Action]]],
    energies: dict[tuple[Component, Action], float],
    query_rows: Counter[int],
    lsb_rows: Counter[int],
) -> tuple[LayerRow, ...]:
    rows = []
    for layer, counts in actions.items():
        totals = [total for (place, _), total in program.totals.items() if place == layer]
        rows.append(
            LayerRow(
                layer=layer,
                operations=sum(total.count for total in totals),
                cycles=ledger.layer_cycles[layer],
                macs=sum(total.macs for total in totals),
                flops=sum(total.flops for total in totals),
                dram_bytes=ledger.layer_bytes[layer],
                energy_pj=total_pj(energy_pj(counts, energies)),
                query_rows=query_rows[layer],
                lsb_rows=lsb_rows[layer],
            )
        )
    return tuple(rows)


def _layer_actions(ledger: Ledger, layer: int, config: AcceleratorConfig) -> Counter[tuple[Component, Action]]:
    """Actions of a layer; every memory of the machine leaks in every one of its cycles."""
    actions = ledger.layer_actions(layer)
    for component in memory_bits(config):
        actions[component, Action.LEAK_CYCLE] = ledger.layer_cycles[layer]
    return actions


def _unit_rows(ledger: Ledger) -> tuple[UnitRow, ...]:
    return tuple(
        UnitRow(unit=unit, busy_cycles=ledger.unit_cycles[unit][0], stall_cycles=ledger.stalls(unit)) for unit in Unit
    )
