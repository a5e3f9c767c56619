"""Attention groups: the runs of operations that work as one pipeline on the hardware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import (
    ColumnSum,
    HeadSum,
    Op,
    ProbabilityValue,
    QueryKey,
    RowPick,
    Softmax,
    TopK,
    TopKScope,
)


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Operations `start` to `stop` (exclusive) of a trace: a `QueryKey`, its `Softmax`, taps, a `ProbabilityValue`.

    `value_topk` is the local value pruning (scope VALUE), None where every value row is kept.
    """

    start: int
    stop: int
    query_key: QueryKey
    softmax: Softmax
    probability_value: ProbabilityValue
    column_sum: ColumnSum | None = None
    row_pick: RowPick | None = None
    head_sum: HeadSum | None = None
    value_topk: TopK | None = None

    @property
    def key_bits(self) -> int:
        """DRAM bits of K, read once a key head: the MSB plane, and the LSB plane of heads with a row that needs it.

        `lsb_rows` = -1 (the data decides) counts no LSB plane; with fewer such rows than key heads, one plane a row.
        """
        op = self.query_key
        plane_elements = op.keys * op.head_dim
        lsb_planes = min(max(op.lsb_rows, 0), op.kv_heads)
        return plane_elements * (op.kv_heads * op.key_msb_bits + lsb_planes * op.key_lsb_bits)

    @property
    def value_bits(self) -> int:
        """DRAM bits of V: the kept rows where one query owns a value head, else each row once a value head."""
        op = self.probability_value
        owned = op.queries == 1 and op.heads == op.kv_heads
        return op.kv_heads * (op.kept if owned else op.keys) * op.head_dim * op.value_bits


@dataclass(frozen=True, slots=True)
class SingleOp:
    """An operation outside every attention group, at `index` of the trace."""

    index: int
    op: Op


def units(ops: Sequence[Op]) -> Iterator[AttentionGroup | SingleOp]:
    """The trace in program order, attention groups taken together.

    Raises
    ------
    InputError
        a group is not well formed; the message names the operation's index and what is wrong.
    """
    index = 0
    while index < len(ops):
        op = ops[index]
        if isinstance(op, QueryKey):
            group = _group(ops, index)
            yield group
            index = group.stop
        elif isinstance(op, Softmax | ColumnSum | RowPick | HeadSum | ProbabilityValue) or _is_value_topk(op):
            raise _malformed(index, op, "stands outside an attention group", "after a query_key")
        else:
            yield SingleOp(index, op)
            index += 1


def _is_value_topk(op: Op) -> bool:
    return isinstance(op, TopK) and op.scope is TopKScope.VALUE


def _malformed(index: int, op: Op, problem: str, allowed: str | None = None) -> InputError:
    return InputError(problem, field=f"op {index} ({op.kind})", allowed=allowed)


_SLOTS: dict[type[Op], str] = {
    Softmax: "softmax",
    ColumnSum: "column_sum",
    RowPick: "row_pick",
    HeadSum: "head_sum",
    TopK: "value_topk",
    ProbabilityValue: "probability_value",
}


def _group(ops: Sequence[Op], start: int) -> AttentionGroup:
    opening = ops[start]
    assert isinstance(opening, QueryKey)
    members: dict[str, Op] = {}
    index = start + 1
    while "probability_value" not in members:
        if index == len(ops):
            raise _malformed(start, opening, "no probability_value closes the attention group")
        op = ops[index]
        slot = _SLOTS.get(type(op))
        if slot is None or (isinstance(op, TopK) and not _is_value_topk(op)):
            raise _malformed(index, op, f"stands inside the attention group of op {start}", ", ".join(_SLOTS.values()))
        if slot in members:
            raise _malformed(index, op, f"comes twice in the attention group of op {start}")
        if not members and slot != "softmax":
            raise _malformed(index, op, f"comes before the softmax of the attention group of op {start}")
        members[slot] = op
        _agree(index, op, start, opening)
        index += 1
    group = AttentionGroup(start, index, opening, **members)  # type: ignore[arg-type]
    closing = group.probability_value
    kept = closing.keys if group.value_topk is None else group.value_topk.k
    if closing.kept != kept:
        raise _malformed(index - 1, closing, f"keeps {closing.kept} value rows, the group's top-k keeps {kept}")
    return group


def _agree(index: int, op: Op, start: int, opening: QueryKey) -> None:
    """Compare the counts of a member with those of the `QueryKey` that opens its group."""
    wanted: dict[str, int] = {"layer": opening.layer, "sequence": opening.sequence, "step": opening.step}
    if isinstance(op, Softmax | ColumnSum):
        wanted |= {"heads": opening.heads, "rows": opening.queries, "cols": opening.keys}
    elif isinstance(op, RowPick):
        wanted |= {"heads": opening.heads, "cols": opening.keys}
        if op.rows > opening.queries:
            raise _malformed(index, op, f"picks {op.rows} rows of {opening.queries}")
    elif isinstance(op, HeadSum):
        wanted |= {"heads": opening.heads, "rows": opening.queries}
    elif isinstance(op, TopK):
        wanted |= {"n": opening.keys, "repeats": opening.heads * opening.queries}
    elif isinstance(op, ProbabilityValue):
        wanted |= {
            "heads": opening.heads,
            "kv_heads": opening.kv_heads,
            "queries": opening.queries,
            "keys": opening.keys,
        }
    for name, value in wanted.items():
        if getattr(op, name) != value:
            raise _malformed(index, op, f"{name} is {getattr(op, name)}, the query_key at op {start} says {value}")
