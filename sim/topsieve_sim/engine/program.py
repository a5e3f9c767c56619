"""A trace made ready for simulation: what the accelerator's descriptors are, independent of the machine.

Preparing costs more than simulating a trace without operands, so a sweep over machines prepares once:
`program = prepare(trace)` and `simulate(program, config)` for each `config`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from topsieve_sim.trace import Op, Trace
from topsieve_sim.trace.groups import AttentionGroup, SingleOp, units
from topsieve_sim.trace.ops import QueryKey


@dataclass(frozen=True)
class AttentionWork:
    """One descriptor of the attention unit: `groups` of equal shape in a row of heads, run without a drain between them.

    A trace may hold one group a layer or one group a head; neighbours of one layer, sequence and step with equal shapes
    become one descriptor, as the sequencer's descriptors hold a layer.
    """

    groups: tuple[AttentionGroup, ...]

    @cached_property
    def query_key(self) -> QueryKey:
        """The opening operation of the first group; its shape is that of all."""
        return self.groups[0].query_key

    @cached_property
    def shape(self) -> tuple[object, ...]:
        """Equal for descriptors that differ in nothing but their place in the trace and their data."""
        return (len(self.groups), *_shape(self.groups[0])[3:])

    @cached_property
    def heads(self) -> int:
        """Query heads of all groups."""
        return len(self.groups) * self.query_key.heads

    @cached_property
    def kv_heads(self) -> int:
        """Key-value heads of all groups: each is loaded once."""
        return len(self.groups) * self.query_key.kv_heads

    @cached_property
    def rows_per_kv_head(self) -> int:
        """Query rows that share one key-value head."""
        op = self.query_key
        return op.queries * (op.heads // op.kv_heads)

    @cached_property
    def kept(self) -> int:
        """Value rows each query row keeps."""
        return self.groups[0].probability_value.kept


@dataclass(frozen=True)
class OpTotals:
    """Operations of one kind in one layer, their multiply-accumulates and FLOPs."""

    count: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Program:
    """A prepared trace: `work` in program order, and `totals` by (layer, kind).

    `decided` remembers what its data decided on recent machines, `digests` the digests of operands, see
    `engine.attention.memo_of`; they change no result.
    """

    trace: Trace
    work: tuple[AttentionWork | SingleOp, ...]
    totals: dict[tuple[int, str], OpTotals]
    dense_attention_flops: int
    decided: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)
    digests: dict[Hashable, bytes] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def tokens(self) -> dict[tuple[int, int], int]:
        """Tokens in memory by (sequence, step): the most keys of any layer."""
        found: dict[tuple[int, int], int] = {}
        for unit in self.work:
            if isinstance(unit, AttentionWork):
                op = unit.query_key
                found[op.sequence, op.step] = max(found.get((op.sequence, op.step), 0), op.keys)
        return found


def prepare(trace: Trace) -> Program:
    """Group the operations of `trace` into descriptors.

    Raises
    ------
    InputError
        an attention group is not well formed.
    """
    work: list[AttentionWork | SingleOp] = []
    run: list[AttentionGroup] = []
    shape: tuple[object, ...] = ()
    for unit in units(trace.ops):
        if isinstance(unit, AttentionGroup) and run and shape == _shape(unit) and _follows(run[-1], unit):
            run.append(unit)
            continue
        if run:
            work.append(AttentionWork(tuple(run)))
            run = []
        if isinstance(unit, AttentionGroup):
            run = [unit]
            shape = _shape(unit)
        else:
            work.append(unit)
    if run:
        work.append(AttentionWork(tuple(run)))
    return Program(trace, tuple(work), _totals(trace.ops), _dense_attention_flops(work))


def _follows(before: AttentionGroup, after: AttentionGroup) -> bool:
    return after.query_key.first_head == before.query_key.first_head + before.query_key.heads


def _shape(group: AttentionGroup) -> tuple[object, ...]:
    """What groups of one descriptor share; the rows that need LSBs are the groups' own."""
    op, closing = group.query_key, group.probability_value
    return (
        op.layer, op.sequence, op.step, op.heads, op.kv_heads, op.queries, op.keys, op.head_dim, op.query_bits,
        op.key_msb_bits, op.key_lsb_bits, op.threshold, op.lsb_rows < 0, op.causal, closing.kept, closing.value_bits,
        group.column_sum is None, group.row_pick and group.row_pick.rows, group.head_sum is None,
    )  # fmt: skip


def _totals(ops: tuple[Op, ...]) -> dict[tuple[int, str], OpTotals]:
    counts: Counter[tuple[int, str]] = Counter()
    macs: Counter[tuple[int, str]] = Counter()
    flops: Counter[tuple[int, str]] = Counter()
    for op in ops:
        key = (op.layer, op.kind)
        counts[key] += 1
        macs[key] += op.macs
        flops[key] += op.flops
    return {key: OpTotals(counts[key], macs[key], flops[key]) for key in counts}


def _dense_attention_flops(work: list[AttentionWork | SingleOp]) -> int:
    """FLOPs of QK and PV if each layer of a sequence and step had the widest layer's queries, keys and heads.

    The trace of a pruned run does not hold the dense one; its first layers do, as far as the method leaves them alone.
    """
    by_run: defaultdict[tuple[int, int], defaultdict[int, list[AttentionWork]]] = defaultdict(lambda: defaultdict(list))
    for unit in work:
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
