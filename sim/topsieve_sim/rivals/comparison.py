"""`compare`: the accelerator and its rivals on one trace, with the speed of each beside its error.

All machines get the accelerator's multipliers, memory bandwidth, clock and number formats; no operand moves wider than
the datapath. Attention alone is compared, selections included.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from topsieve_sim.arch import AcceleratorConfig, MemoryModel
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine import AttentionWork, Program, prepare, simulate
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import machine_attention, quantise_operands
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.rivals.energy import accelerator_energy_pj, actions, rival_energy_pj
from topsieve_sim.rivals.heads import (
    Floats,
    Head,
    OperandSource,
    RealOperands,
    drawn_operands,
    exact_attention,
    narrowed,
    row_keys,
    trace_operands,
    work_heads,
)
from topsieve_sim.rivals.machine import Basis, HeadCost, Rival
from topsieve_sim.rivals.pipeline import dealt_cycles
from topsieve_sim.rivals.registry import Entrant
from topsieve_sim.rivals.roofline import Roofline, load_platform
from topsieve_sim.trace import AttentionGroup, Trace

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One machine.

    cycles : of the accelerator's clock; None for a platform with a clock of its own.
    multiply_accumulates : that the machine executed for both products, in whole operands.
    utilisation : those over the multipliers' cycles. effective_gops : dense operations over the latency.
    energy_pj : dynamic, DRAM included; None where nothing defensible is known.
    output_error : relative norm of the attention outputs' difference to float64; None without operands.
    """

    machine: str
    title: str
    basis: str
    cycles: int | None
    latency_us: float
    dram_bytes: int
    multiply_accumulates: int | None
    utilisation: float | None
    effective_gops: float
    energy_pj: float | None
    output_error: float | None


@dataclass(frozen=True)
class Comparison:
    """Rows, the accelerator first, and what was assumed."""

    model: str
    method: str
    accelerator: str
    accelerator_digest: str
    dense_flops: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """JSON text, equal to the byte for equal inputs."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass
class _Total:
    cycles: int = 0
    dram_bits: int = 0
    macs: int = 0
    counts: Counter[tuple[Component, Action]] = field(default_factory=Counter)
    extra_pj: list[float] = field(default_factory=list)
    wrong: float = 0.0
    right: float = 0.0

    def add(self, other: _Total) -> None:
        self.cycles += other.cycles
        self.dram_bits += other.dram_bits
        self.macs += other.macs
        self.counts.update(other.counts)
        self.extra_pj += other.extra_pj
        self.wrong += other.wrong
        self.right += other.right

    @property
    def output_error(self) -> float | None:
        return math.sqrt(self.wrong / self.right) if self.right else None


def compare(
    trace: Trace,
    config: AcceleratorConfig,
    entrants: Sequence[Entrant],
    *,
    dense: Trace | None = None,
    drawn: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Run `trace` on the accelerator and on every entrant.

    Parameters
    ----------
    dense : what the rivals run instead, and what throughput is counted in: the same model without the cascade that only
        the accelerator has.
    drawn : draw standard normal operands where a trace has none; a rival that needs data otherwise refuses such a trace.
    seed : of everything drawn.
    progress : called before each machine with (done, in all, machine).

    Raises
    ------
    InputError
        a rival needs operands that the trace does not hold, or a workload does not fit the machine.
    """
    memory = config.memory.model_copy(update={"model": MemoryModel.IDEAL})
    config = config.model_copy(update={"fully_connected": False, "memory": memory})
    own = prepare(narrowed(trace, config.formats))
    theirs = own if dense is None else prepare(narrowed(dense, config.formats))
    _check_operands(theirs.trace, entrants, drawn)
    flops = sum(4 * group.query_key.macs for group in theirs.trace.attention_groups())
    rows = []
    for done, entrant in enumerate((None, *entrants)):
        if progress is not None:
            progress(done, len(entrants) + 1, entrant.label if entrant else config.name)
        if entrant is None:
            rows.append(_accelerator_row(own, config, flops, _source(own.trace, drawn, seed), seed))
        elif isinstance(entrant, Roofline):
            rows.append(_roofline_row(theirs, entrant, flops))
        else:
            rows.append(rival_row(theirs, config, entrant, flops, _source(theirs.trace, drawn, seed)))
    return Comparison(
        own.trace.model,
        own.trace.method,
        config.name,
        config.digest,
        flops,
        tuple(rows),
        _notes(own, theirs, trace, config, entrants, drawn),
    )


def rival_total(program: Program, config: AcceleratorConfig, rival: Rival, source: OperandSource) -> _Total:
    """One rival on a prepared trace, descriptor after descriptor."""
    work = [unit for unit in program.work if isinstance(unit, AttentionWork)]
    layers: defaultdict[int, list[AttentionWork]] = defaultdict(list)
    for unit in work:
        layers[unit.query_key.layer].append(unit)
    total = _Total()
    known: dict[Hashable, _Total] = {}  # equal descriptors are run once
    for units in layers.values():
        operands = [[source(group) for group in unit.groups] for unit in units]
        learned = rival.learned(
            head for unit, numbers in zip(units, operands, strict=True) for head in work_heads(unit, config, numbers)
        )
        for unit, numbers in zip(units, operands, strict=True):
            name = (learned, unit.shape, *(None if real is None else real.digest for real in numbers))
            if name not in known:
                known[name] = _descriptor(unit, work_heads(unit, config, numbers), config, rival, learned)
            total.add(known[name])
    return total


def _descriptor(
    unit: AttentionWork, heads: list[Head], config: AcceleratorConfig, rival: Rival, learned: float
) -> _Total:
    if unit.query_key.keys > config.capacity:
        raise InputError(
            "a row is too long for the machine",
            field="keys",
            value=unit.query_key.keys,
            allowed=f"1 to {config.capacity}",
        )
    total = _Total()
    costs: list[HeadCost] = []
    loads = []
    for head in heads:
        cost = rival.cost(head, config, learned)
        costs.append(cost)
        read = sum(cost.fetch_bits.values()) + head.rows * head.head_dim * head.query_bits
        written = head.rows * head.head_dim * config.formats.output_bits
        loads.append(-(-read // (8 * config.memory.bytes_per_cycle)) + cost.wait_cycles)
        total.dram_bits += read + written
        total.macs += cost.score_macs + cost.value_macs
        total.counts.update(actions(head, cost, read, written))
        total.extra_pj += cost.extra_pj.values()
        if head.operands is not None and cost.output is not None:
            total.wrong += float(((cost.output - head.operands.exact) ** 2).sum())
            total.right += float((head.operands.exact**2).sum())
    total.cycles = config.memory.latency_cycles + dealt_cycles(
        np.array(loads, np.int64),
        np.array([cost.before_cycles for cost in costs], np.int64),
        np.repeat(np.arange(len(costs)), [cost.job_cycles.size for cost in costs]),
        np.concatenate([cost.job_cycles for cost in costs]),
        np.array([cost.tail_cycles for cost in costs], np.int64),
        rival.units(unit.query_key.head_dim, config),
    )
    return total


def rival_row(program: Program, config: AcceleratorConfig, rival: Rival, flops: int, source: OperandSource) -> Row:
    """The row of one rival on a prepared trace; `flops` is what throughput is counted in."""
    total = rival_total(program, config, rival, source)
    latency_us = config.microseconds(total.cycles)
    return Row(
        rival.label,
        rival.title,
        rival.basis.value,
        total.cycles,
        latency_us,
        -(-total.dram_bits // 8),
        total.macs,
        _utilisation(total.macs, total.cycles, config),
        flops / latency_us * 1e-3,
        rival_energy_pj(total.counts, total.extra_pj, config),
        total.output_error,
    )


def _roofline_row(program: Program, entrant: Roofline, flops: int) -> Row:
    work = [unit for unit in program.work if isinstance(unit, AttentionWork)]
    latency_us = math.fsum(entrant.microseconds(unit) for unit in work)
    return Row(
        entrant.label,
        load_platform(entrant.platform).title,
        entrant.basis.value,
        None,
        latency_us,
        sum(entrant.moved_bytes(unit) for unit in work),
        flops // 2,
        None,
        flops / latency_us * 1e-3,
        None,
        None,
    )


def _accelerator_row(program: Program, config: AcceleratorConfig, flops: int, source: OperandSource, seed: int) -> Row:
    report = simulate(program, config, seed=seed)
    groups = list(program.trace.attention_groups())
    macs = sum(group.query_key.macs + group.probability_value.macs for group in groups)
    error = _Total()
    known: dict[Hashable, tuple[float, float]] = {}
    for group in groups:
        operands = source(group)
        if operands is not None:
            name = (group.query_key.threshold, group.query_key.causal, group.probability_value.kept, operands.digest)
            if name not in known:
                seen = row_keys(group.query_key)
                exact = exact_attention(operands, seen)
                difference = accelerator_output(group, operands, config) - exact
                known[name] = (float((difference**2).sum()), float((exact**2).sum()))
            error.wrong += known[name][0]
            error.right += known[name][1]
    return Row(
        config.name,
        "this accelerator",
        Basis.CYCLE_EXACT.value,
        report.cycles,
        report.latency_us,
        report.dram_bytes_total,
        macs,
        _utilisation(macs, report.cycles, config),
        flops / report.latency_us * 1e-3,
        accelerator_energy_pj(report),
        error.output_error,
    )


def accelerator_output(group: AttentionGroup, operands: RealOperands, config: AcceleratorConfig) -> Floats:
    """What the golden model of the accelerator computes for a group: float64 [heads, queries, d] in real units."""
    op = group.query_key
    integers = quantise_operands(operands.query, operands.key, operands.value, config.formats, operands.bias)
    progressive = config.progressive.enabled and op.key_lsb_bits > 0
    valid = np.arange(op.keys) < row_keys(op)[:, None] if op.causal else None
    result = machine_attention(
        integers,
        config,
        integer_threshold(op.threshold, config.formats) if progressive else 0,
        group.probability_value.kept,
        valid,
    )
    scale = np.repeat(integers.value_scale, op.heads // op.kv_heads)
    return np.asarray(result.output * scale[:, None, None], np.float64)


def _utilisation(macs: int, cycles: int, config: AcceleratorConfig) -> float:
    return macs / (cycles * (config.dot_product.multipliers + config.weighted_sum.multipliers))


def _source(trace: Trace, drawn: bool, seed: int) -> OperandSource:
    return drawn_operands(seed) if drawn and not trace.has_attention_operands else trace_operands(trace)


def runnable(entrants: Sequence[Entrant], trace: Trace, drawn: bool) -> tuple[Entrant, ...]:
    """The entrants whose cost can be known on `trace`: all, or those that do not depend on data."""
    if trace.has_attention_operands or drawn:
        return tuple(entrants)
    return tuple(entrant for entrant in entrants if isinstance(entrant, Roofline) or not entrant.needs_operands)


def _check_operands(trace: Trace, entrants: Sequence[Entrant], drawn: bool) -> None:
    known = runnable(entrants, trace, drawn)
    for entrant in entrants:
        if entrant not in known:
            raise InputError(
                "the cost of this rival depends on data, and the trace holds no operands",
                source=f"rival {entrant.label}",
                allowed="a trace with operands, drawn operands (--drawn), or a rival without approximation",
            )


def _notes(
    own: Program,
    theirs: Program,
    trace: Trace,
    config: AcceleratorConfig,
    entrants: Sequence[Entrant],
    drawn: bool,
) -> tuple[str, ...]:
    multipliers = config.dot_product.multipliers + config.weighted_sum.multipliers
    notes = [
        f"every machine: {multipliers} multipliers, {config.memory.bytes_per_cycle} bytes a cycle, {config.clock_mhz:g} MHz, "
        "an ideal memory; rooflines have their data sheet's",
        "energy is dynamic: no leakage in any row; same table of primitives for all",
    ]
    if own.trace is not trace:
        notes.append("operands wider than the datapath move at the datapath's width, on every machine")
    if theirs is not own:
        notes.append(f"rivals run {theirs.trace.model} ({theirs.trace.method}), which has no cascade")
        notes.append("the accelerator's error is that of its own trace: what the cascade dropped is not in it")
    for program in {id(own): own, id(theirs): theirs}.values():
        if not program.trace.has_attention_operands:
            text = "operands are drawn, independent and standard normal: errors and kept shares are those of noise"
            notes.append(f"{program.trace.model}: {text if drawn else 'no operands, so no errors'}")
    for entrant in entrants:
        notes += entrant.notes() if isinstance(entrant, Rival) else ()
    return tuple(dict.fromkeys(notes))
