"""What every rival works on: the key-value heads of a trace with the accelerator's own integers.

A head is one key-value head with the rows of all query heads that share it. Operands are rounded once, by the golden
model's `quantise_operands` in the formats of the accelerator, so that all machines start from equal numbers and differ
in what they compute of them. Softmax and weighted sum of a rival are float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, NumberFormats
from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.golden.attention import quantise_operands
from topsieve_sim.golden.numbers import symmetric_scale
from topsieve_sim.trace import AttentionGroup, Op, Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RealOperands:
    """Float operands of one attention group: query [heads, queries, d], key and value [kv_heads, keys, d], bias [keys]."""

    query: NDArray[np.float32]
    key: NDArray[np.float32]
    value: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal content."""
        total = hashlib.blake2b(digest_size=16)
        for array in (self.query, self.key, self.value, self.bias):
            total.update(repr(None if array is None else array.shape).encode())
            total.update(b"" if array is None else np.ascontiguousarray(array).data)
        return total.digest()


# Operands of a group, or None where there are none.
OperandSource = Callable[[AttentionGroup], RealOperands | None]


@dataclass(frozen=True)
class HeadOperands:
    """Numbers of one key-value head.

    query : int64 [rows, d]. key : int64 [keys, d]. value : float64 [keys, d], the rounded values in their own unit.
    scale : float64 [rows], score of one unit of the integer product, 1/sqrt(d) included. bias : float64 [keys].
    exact : float64 [rows, d], attention of the operands before any rounding.
    """

    query: NDArray[np.int64]
    key: NDArray[np.int64]
    value: Floats
    scale: Floats
    bias: Floats
    exact: Floats

    @cached_property
    def scores(self) -> Floats:
        """Scores float64 [rows, keys]; the integer products are exact, they stay far under 2^53."""
        products = self.query.astype(np.float64) @ self.key.T.astype(np.float64)
        return products * self.scale[:, None] + self.bias


@dataclass(frozen=True)
class Head:
    """One key-value head of a group.

    row_keys : int64 [rows], keys that each row sees: the first ones. new_keys : keys that came with these queries; the
    others are older and were seen by the machine before. Widths are those in DRAM. `operands` is None without data.
    """

    layer: int
    row_keys: NDArray[np.int64]
    keys: int
    new_keys: int
    head_dim: int
    query_bits: int
    key_bits: int
    value_bits: int
    operands: HeadOperands | None

    @property
    def rows(self) -> int:
        """Query rows."""
        return self.row_keys.size

    @cached_property
    def visible(self) -> NDArray[np.bool_]:
        """Bool [rows, keys]: what each row sees."""
        return np.arange(self.keys) < self.row_keys[:, None]

    @cached_property
    def scores_seen(self) -> int:
        """Scores of all rows."""
        return int(self.row_keys.sum())


def trace_operands(trace: Trace) -> OperandSource:
    """The trace's own operands."""

    def source(group: AttentionGroup) -> RealOperands | None:
        query, key, bias = (trace.operand(group.start, name) for name in ("query", "key", "bias"))
        value = trace.operand(group.stop - 1, "value")
        if query is None or key is None or value is None:
            return None
        return RealOperands(query, key, value, bias)

    return source


def drawn_operands(seed: int) -> OperandSource:
    """Independent standard normal operands; groups of equal shape share one draw."""

    drawn: dict[tuple[int, ...], RealOperands] = {}

    def source(group: AttentionGroup) -> RealOperands:
        op = group.query_key
        shape = (op.heads, op.kv_heads, op.queries, op.keys, op.head_dim)
        if shape not in drawn:
            generator = np.random.default_rng((seed, *shape))
            sizes = (op.operand_shape("query"), op.operand_shape("key"), group.probability_value.operand_shape("value"))
            drawn[shape] = RealOperands(*(generator.standard_normal(size, np.float32) for size in sizes))
        return drawn[shape]

    return source


def row_keys(op: QueryKey) -> NDArray[np.int64]:
    """Keys that each query of one head sees: all, or those up to its own position."""
    counts = np.full(op.queries, op.keys, np.int64)
    if op.causal:
        counts = np.maximum(op.keys - op.queries + 1 + np.arange(op.queries), 1)
    return counts


def exact_attention(operands: RealOperands, seen: NDArray[np.int64]) -> Floats:
    """Attention in float64 of the operands as they are: [heads, queries, d]; row q sees the first `seen[q]` keys."""
    query, key, value = (np.asarray(x, np.float64) for x in (operands.query, operands.key, operands.value))
    shared = query.shape[0] // key.shape[0]
    key, value = np.repeat(key, shared, axis=0), np.repeat(value, shared, axis=0)
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[2])
    if operands.bias is not None:
        scores = scores + np.asarray(operands.bias, np.float64)
    scores = np.where(np.arange(key.shape[1]) < seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ value)


def group_heads(group: AttentionGroup, config: AcceleratorConfig, operands: RealOperands | None) -> list[Head]:
    """The key-value heads of one attention group, in order."""
    op, closing = group.query_key, group.probability_value
    shared = op.heads // op.kv_heads
    seen = row_keys(op)
    numbers: list[HeadOperands | None] = [None] * op.kv_heads
    if operands is not None:
        numbers = list(_numbers(operands, seen, config.formats))
    return [
        Head(
            layer=op.layer,
            row_keys=np.tile(seen, shared),
            keys=op.keys,
            new_keys=min(op.keys, op.queries),
            head_dim=op.head_dim,
            query_bits=op.query_bits,
            key_bits=op.key_msb_bits + op.key_lsb_bits,
            value_bits=closing.value_bits,
            operands=number,
        )
        for number in numbers
    ]


def _numbers(operands: RealOperands, seen: NDArray[np.int64], formats: NumberFormats) -> list[HeadOperands]:
    integers = quantise_operands(operands.query, operands.key, operands.value, formats)
    heads, _, head_dim = integers.query.shape
    kv_heads, keys, _ = integers.key.shape
    shared = heads // kv_heads
    query_step = symmetric_scale(operands.query, formats.query_bits, (1, 2)).reshape(-1)
    key_step = symmetric_scale(operands.key, formats.key_bits, (1, 2)).reshape(-1)
    steps = query_step * np.repeat(key_step, shared) / np.sqrt(head_dim)
    exact = exact_attention(operands, seen)
    bias = np.zeros(keys) if operands.bias is None else np.asarray(operands.bias, np.float64)
    result = []
    for head in range(kv_heads):
        mine = slice(head * shared, (head + 1) * shared)
        result.append(
            HeadOperands(
                query=integers.query[mine].reshape(-1, head_dim),
                key=integers.key[head],
                value=integers.value[head] * integers.value_scale[head],
                scale=np.repeat(steps[mine], seen.size),
                bias=bias,
                exact=exact[mine].reshape(-1, head_dim),
            )
        )
    return result


def work_heads(work: AttentionWork, config: AcceleratorConfig, operands: list[RealOperands | None]) -> list[Head]:
    """The key-value heads of a descriptor; `operands` holds one entry a group."""
    return [
        head
        for group, numbers in zip(work.groups, operands, strict=True)
        for head in group_heads(group, config, numbers)
    ]


def narrowed(trace: Trace, formats: NumberFormats) -> Trace:
    """The trace with no operand wider in DRAM than the datapath of `formats`, so that all machines move equal widths."""
    ops = tuple(_narrow(op, formats) for op in trace.ops)
    return trace if ops == trace.ops else replace(trace, ops=ops)


def _narrow(op: Op, formats: NumberFormats) -> Op:
    if isinstance(op, QueryKey):
        query_bits = min(op.query_bits, formats.query_bits)
        if op.key_msb_bits + op.key_lsb_bits <= formats.key_bits:
            return replace(op, query_bits=query_bits)
        lsb_bits = min(op.key_lsb_bits, formats.key_lsb_bits)
        msb_bits = formats.key_bits - lsb_bits
        return replace(op, query_bits=query_bits, key_msb_bits=msb_bits, key_lsb_bits=lsb_bits)
    if isinstance(op, ProbabilityValue):
        return replace(op, value_bits=min(op.value_bits, formats.value_bits))
    return op
