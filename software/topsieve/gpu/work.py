"""From a trace to the kernel calls of a GPU: the same operations that the accelerator's cycles and energy are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topsieve.gpu.ops import Attention, GatherRows, GpuOp, MatchAndMerge, Select, op_from, other
from topsieve_kernels.bench.shapes import Shape
from topsieve_sim.engine import AttentionWork, Program, prepare
from topsieve_sim.engine.singles import HOST_KINDS
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.groups import SingleOp
from topsieve_sim.trace.ops import ArgmaxRow, Gather, Merge, Norm, Similarity, TopK


@dataclass(frozen=True)
class Counted:
    """A kernel call and how often it runs."""

    op: GpuOp
    count: int


def gpu_work(trace: Trace | Program, *, linear: bool = False) -> tuple[Counted, ...]:
    """The kernel calls that do on a GPU what the accelerator does for `trace`, equal ones counted.

    One call for each descriptor of the accelerator (a layer of a sequence and step): batch one, as there.

    Parameters
    ----------
    linear : with linear maps and compaction, as a fully connected accelerator runs them; else they are the host's, of both.
    """
    program = trace if isinstance(trace, Program) else prepare(trace)
    counts: Counter[GpuOp] = Counter()
    singles: list[Op] = []
    for unit in program.work:
        if isinstance(unit, SingleOp):
            if linear or unit.op.kind not in HOST_KINDS:
                singles.append(unit.op)
            continue
        counts.update(_single_calls(singles, linear))
        singles = []
        counts[_attention(unit)] += 1
    counts.update(_single_calls(singles, linear))
    return tuple(Counted(op, count) for op, count in counts.items())


def _attention(work: AttentionWork) -> Attention:
    group, op = work.groups[0], work.query_key
    return Attention(
        heads=work.heads,
        key_heads=work.kv_heads,
        rows=op.queries,
        keys=op.keys,
        head_dim=op.head_dim,
        # A single query is the last one: no mask is left.
        causal=op.causal and op.queries > 1,
        column_sums=group.column_sum is not None,
        head_sums=group.head_sum is not None,
        picked_rows=0 if group.row_pick is None else group.row_pick.rows,
    )


def _single_calls(ops: Sequence[Op], linear: bool) -> Iterator[GpuOp]:
    place = 0
    while place < len(ops):
        fused = None if linear else _match_and_merge(ops[place : place + 5])
        if fused is None:
            yield from _call(ops[place])
        else:
            yield fused
        place += 1 if fused is None else 5


def _match_and_merge(ops: Sequence[Op]) -> MatchAndMerge | None:
    """The five operations of bipartite merging as the kernel that does them; None where `ops` are others."""
    match ops:
        case (
            Norm(rows=tokens, width=width),
            Similarity(rows_a=even, rows_b=odd, width=same_width),
            ArgmaxRow(rows=matched, cols=among),
            TopK(k=removed, scope=TopKScope.EDGE, repeats=1),
            Merge(sources=sources, targets=targets, width=channels),
        ):
            halves = (even, odd) == (matched, among) == ((tokens + 1) // 2, tokens // 2)
            if halves and width == same_width and removed == sources:
                return MatchAndMerge(tokens, width, channels, removed, targets)
    return None


def _call(op: Op) -> Iterator[GpuOp]:
    if isinstance(op, TopK):
        yield Select(op.repeats, op.n, op.k)
    elif isinstance(op, Gather):
        yield GatherRows(op.rows, op.width)
    else:
        yield other(op)


def to_plain(work: Sequence[Counted]) -> list[dict[str, Any]]:
    """As data that JSON holds."""
    return [{"kind": one.op.kind, "dimensions": one.op.dimensions, "count": one.count} for one in work]


def from_plain(rows: Sequence[Mapping[str, Any]]) -> tuple[Counted, ...]:
    """What `to_plain` was given."""
    return tuple(Counted(op_from(row["kind"], row["dimensions"]), row["count"]) for row in rows)


def shapes_to_measure(work: Sequence[Counted]) -> tuple[Shape, ...]:
    """Each shape of the benchmark that a measured time of `work` needs, once."""
    return tuple(dict.fromkeys(shape for one in work for shape in one.op.shapes()))
