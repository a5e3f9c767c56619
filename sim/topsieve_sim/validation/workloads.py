"""Workloads that are rebuilt from what the paper and its traces state, where no file of them ships.

Every trace here is without operands: shapes, counts and widths only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import (
    UNQUANTISED_BITS,
    ColumnSum,
    FeedForward,
    HeadSum,
    Op,
    ProbabilityValue,
    Projection,
    QueryKey,
    Softmax,
    TopK,
    TopKScope,
)

HEAD_DIM = 64
PROMPT_TOKENS = 992
GENERATED_TOKENS = 32
LONGEST = PROMPT_TOKENS + GENERATED_TOKENS


@dataclass(frozen=True)
class Encoder:
    """Layers and heads of a model whose heads are 64 wide."""

    layers: int
    heads: int


BERT_BASE, BERT_LARGE = Encoder(12, 12), Encoder(24, 16)
GPT2_MEDIUM = Encoder(24, 16)

# Average tokens of each task's development set. The paper uses such averages and prints none of them; these are from
# memory (specification `accelerator`, section 4), SQuAD as the middle of 170 to 180.
BERT_TASK_TOKENS: dict[str, int] = {
    "cola": 11,
    "sst-2": 25,
    "qqp": 30,
    "sts-b": 31,
    "mnli-m": 39,
    "mnli-mm": 39,
    "qnli": 50,
    "mrpc": 53,
    "rte": 69,
    "squad-v1": 175,
    "squad-v2": 175,
}


@dataclass(frozen=True)
class DecodeSchedule:
    """Generation of 32 tokens after a prompt of 992, layer by layer.

    keys : live tokens of each layer from the second token on; None keeps all. The first token sees all 993 everywhere.
    kept_percent : share of the values that local selection keeps, rounded down; 100 selects nothing. Where all keys are
        live the share is taken of the longest sentence, 1024 tokens.
    heads : of each layer.
    key_bits, value_bits : in DRAM.
    """

    keys: tuple[int | None, ...]
    kept_percent: int
    heads: tuple[int, ...]
    key_bits: int
    value_bits: int


def _steps(*runs: tuple[int, int | None]) -> tuple[int | None, ...]:
    return tuple(value for count, value in runs for _ in range(count))


# The authors' medium-wikitext2 schedule: 1.0 / 0.9 / 0.8 / 0.6 / 0.3 of 1024 tokens; 16, 13 and 10 heads; 30 % of the
# values; K in 12 and V in 8 bits (specification `accelerator`, section 1.6).
MEDIUM_WIKITEXT2 = DecodeSchedule(
    keys=_steps((2, None), (1, 921), (2, 819), (6, 614), (13, 307)),
    kept_percent=30,
    heads=(16,) * 16 + (13,) * 6 + (10,) * 2,
    key_bits=12,
    value_bits=8,
)
MEDIUM_DENSE = DecodeSchedule((None,) * 24, 100, (16,) * 24, UNQUANTISED_BITS, UNQUANTISED_BITS)


def all_heads(schedule: DecodeSchedule) -> DecodeSchedule:
    """The schedule without head pruning."""
    return replace(schedule, heads=(max(schedule.heads),) * len(schedule.heads))


def scaled_to_flops(schedule: DecodeSchedule, flops: float) -> DecodeSchedule:
    """The schedule with its pruned layers' key counts scaled by one factor, so that the trace executes `flops`.

    The factor is the largest multiple of 1/1000 under which the trace executes no more than `flops`.
    """
    low, high = 1, 2000
    while low < high:
        middle = (low + high + 1) // 2
        if decode_flops(_scaled(schedule, middle)) <= flops:
            low = middle
        else:
            high = middle - 1
    return _scaled(schedule, low)


def _scaled(schedule: DecodeSchedule, thousandths: int) -> DecodeSchedule:
    keys = tuple(
        None if count is None else min(max(count * thousandths // 1000, 1), PROMPT_TOKENS) for count in schedule.keys
    )
    return replace(schedule, keys=keys)


def decode_flops(schedule: DecodeSchedule) -> int:
    """FLOPs of QK and PV of the schedule."""
    return sum(
        2 * HEAD_DIM * (keys + kept) * heads
        for step in range(GENERATED_TOKENS)
        for heads, (keys, kept) in zip(schedule.heads, _counts(schedule, step), strict=True)
    )


def _counts(schedule: DecodeSchedule, step: int) -> list[tuple[int, int]]:
    """(keys, kept values) of each layer for one generated token."""
    sentence = PROMPT_TOKENS + 1 + step
    share = schedule.kept_percent
    result = []
    for wanted in schedule.keys:
        keys = sentence if wanted is None or step == 0 else wanted
        whole = LONGEST if keys == sentence else keys
        result.append((keys, keys if share == 100 else whole * share // 100))
    return result


def decode_trace(schedule: DecodeSchedule, name: str) -> Trace:
    """The schedule as a trace: one attention group a layer and token, and the cascade's selections between layers.

    A token selection stands behind a layer whose successor sees fewer keys, a head selection where it has fewer heads.
    Importance is accumulated up to the last layer that a selection follows.
    """
    ops: list[Op] = []
    for step in range(GENERATED_TOKENS):
        ops += _token_ops(schedule, step)
    return Trace(
        tuple(ops),
        model=name,
        method="schedule",
        layers=len(schedule.keys),
        heads=max(schedule.heads),
        notes=("built from the published per-layer counts; scores are not part of them",),
    )


def _token_ops(schedule: DecodeSchedule, step: int) -> Iterator[Op]:
    counts = _counts(schedule, step)
    layers = len(counts)
    token_cuts = {layer for layer in range(layers - 1) if counts[layer + 1][0] < counts[layer][0]}
    head_cuts = {layer for layer in range(layers - 1) if schedule.heads[layer + 1] < schedule.heads[layer]}
    for layer, (keys, kept) in enumerate(counts):
        heads = schedule.heads[layer]
        yield from attention_ops(
            layer,
            heads,
            queries=1,
            keys=keys,
            kept=kept,
            step=step,
            key_bits=schedule.key_bits,
            value_bits=schedule.value_bits,
            token_importance=layer <= max(token_cuts, default=-1),
            head_importance=layer <= max(head_cuts, default=-1),
        )
        if layer in token_cuts:
            yield TopK(layer=layer, step=step, n=keys, k=counts[layer + 1][0], scope=TopKScope.TOKEN)
        if layer in head_cuts:
            yield TopK(layer=layer, step=step, n=heads, k=schedule.heads[layer + 1], scope=TopKScope.HEAD)


def attention_ops(
    layer: int,
    heads: int,
    *,
    queries: int,
    keys: int,
    kept: int,
    key_bits: int,
    value_bits: int,
    step: int = 0,
    token_importance: bool = False,
    head_importance: bool = False,
) -> Iterator[Op]:
    """One attention group of heads that share no keys."""
    yield QueryKey(
        layer=layer,
        step=step,
        heads=heads,
        kv_heads=heads,
        queries=queries,
        keys=keys,
        head_dim=HEAD_DIM,
        key_msb_bits=key_bits,
    )
    yield Softmax(layer=layer, step=step, heads=heads, rows=queries, cols=keys)
    if token_importance:
        yield ColumnSum(layer=layer, step=step, heads=heads, rows=queries, cols=keys)
    if kept < keys:
        yield TopK(layer=layer, step=step, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries)
    if head_importance:
        yield HeadSum(layer=layer, step=step, heads=heads, rows=queries, head_dim=HEAD_DIM)
    yield ProbabilityValue(
        layer=layer,
        step=step,
        heads=heads,
        kv_heads=heads,
        queries=queries,
        keys=keys,
        kept=kept,
        head_dim=HEAD_DIM,
        value_bits=value_bits,
    )


def bert_trace(model: Encoder, tokens: int) -> Trace:
    """All layers of an encoder over `tokens` tokens, nothing pruned, K and V in 12 bits at once.

    BERT is quantised statically (SpAtten, section III-D); no keep ratio of any BERT task is published.
    """
    ops: list[Op] = []
    for layer in range(model.layers):
        ops += attention_ops(layer, model.heads, queries=tokens, keys=tokens, kept=tokens, key_bits=12, value_bits=12)
    return Trace(tuple(ops), model=f"bert-{tokens}", method="dense", layers=model.layers, heads=model.heads)


def linear_trace(model: Encoder, tokens: int) -> Trace:
    """Projections and feed-forward layers of `tokens` tokens that are generated one after the other."""
    width = model.heads * HEAD_DIM
    ops: list[Op] = []
    for step in range(tokens):
        for layer in range(model.layers):
            ops += (
                Projection(layer=layer, step=step, tokens=1, inputs=width, outputs=3 * width, role="qkv"),
                Projection(layer=layer, step=step, tokens=1, inputs=width, outputs=width, role="o"),
                FeedForward(layer=layer, step=step, tokens=1, width=width, hidden=4 * width),
            )
    return Trace(tuple(ops), model="linear", method="dense", layers=model.layers, heads=model.heads)


def at_widths(trace: Trace, key_bits: int, value_bits: int) -> Trace:
    """The same operations with K in one plane of `key_bits` and V in `value_bits`: static quantisation."""
    ops: Sequence[Op] = [
        replace(op, key_msb_bits=key_bits, key_lsb_bits=0, threshold=0.0, lsb_rows=0)
        if isinstance(op, QueryKey)
        else replace(op, value_bits=value_bits)
        if isinstance(op, ProbabilityValue)
        else op
        for op in trace.ops
    ]
    return replace(trace, ops=tuple(ops))
