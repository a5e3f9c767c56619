"""The 30 benchmarks of the paper, with what is assumed where it states nothing.

Published: models, tasks, the GPT-2 schedules of WikiText-2, averages over benchmarks, and Figure 14. Assumed:

* BERT: tokens of each task (`workloads.BERT_TASK_TOKENS`); K and V in 8 bits, the MSB plane of the common 8 + 4 plan, as
  BERT is quantised statically (SpAtten, section III-D); and one schedule for all tasks, `encoder_keeps`. Its ratios are
  read as ratios of operations, because the abstract's 2.1 times fewer operations are 1.9 x 1.1. A token that is pruned from
  an encoder is pruned as query and as key: work goes with the square of the tokens.
* GPT-2 on WikiText-103, Penn Treebank and One-Billion-Word: WikiText-2's schedule with every pruned layer's keys scaled by
  one factor, so that the bytes of K and V relative to WikiText-2's are the energy relative to WikiText-2's in Figure 14 (a
  GPU does equal work on all four sets, and DRAM is 70 % of the power). Energy sets the bytes; time is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import ColumnSum, Op, ProbabilityValue, QueryKey, Softmax, TopK, TopKScope
from topsieve_sim.validation.workloads import PROMPT_TOKENS, Encoder, attention_ops

# SpAtten, section V-B: tokens and local values over all 30 benchmarks and over the 8 of GPT-2; heads.
ALL_TOKEN_RATIO, GPT2_TOKEN_RATIO, HEAD_RATIO = 1.9, 3.8, 1.1
# What that leaves for the 22 of BERT, the averages read as geometric means.
BERT_TOKEN_RATIO = math.exp((30 * math.log(ALL_TOKEN_RATIO) - 8 * math.log(GPT2_TOKEN_RATIO)) / 22)
# Leading share of the layers that is not pruned (SpAtten, section V-A).
TOKENS_FROM, HEADS_FROM = 0.15, 0.30
BERT_BITS = 8

# Figure 14, over TITAN Xp: energy saved on each set of GPT-2.
ENERGY_SAVED = {
    "small": {"wikitext2": 1315, "wikitext103": 1668, "ptb": 2052, "1bw": 3131},
    "medium": {"wikitext2": 1742, "wikitext103": 1813, "ptb": 2806, "1bw": 4558},
}
# The factor on the keys, in thousandths: the largest whose bytes do not exceed the share that Figure 14's energy gives.
KEY_THOUSANDTHS = {
    "small": {"wikitext103": 762, "ptb": 596, "1bw": 343},
    "medium": {"wikitext103": 951, "ptb": 514, "1bw": 208},
}


def encoder_keeps(layers: int, ratio: float, from_share: float, power: int) -> tuple[float, ...]:
    """Share of the tokens (or heads) that each layer sees.

    The first `from_share` of the layers sees all; behind it the share falls linearly (SpAtten, section V-A), so that the
    work of all layers, which goes with the share to the `power`, is 1 / `ratio` of the dense one.
    """
    whole = round(layers * from_share)
    places = range(1, layers - whole + 1)
    low, high = 0.0, 1 / len(places)  # the fall a layer; work falls with it
    for _ in range(60):
        step = (low + high) / 2
        work = whole + math.fsum((1 - step * place) ** power for place in places)
        low, high = (step, high) if work > layers / ratio else (low, step)
    return (1.0,) * whole + tuple(1 - low * place for place in places)


def pruned_bert_trace(model: Encoder, tokens: int) -> Trace:
    """An encoder over `tokens` tokens with cascade token and head pruning; counts are rounded down, never to 0."""
    token_counts = _counts(tokens, encoder_keeps(model.layers, BERT_TOKEN_RATIO, TOKENS_FROM, 2))
    head_counts = _counts(model.heads, encoder_keeps(model.layers, HEAD_RATIO, HEADS_FROM, 1))
    ops: list[Op] = []
    for layer, (live, heads) in enumerate(zip(token_counts, head_counts, strict=True)):
        last = layer + 1 == model.layers
        ops += attention_ops(
            layer,
            heads,
            queries=live,
            keys=live,
            kept=live,
            key_bits=BERT_BITS,
            value_bits=BERT_BITS,
            token_importance=not last,
            head_importance=not last,
        )
        if not last:
            ops += _cascade(layer, live, token_counts[layer + 1], TopKScope.TOKEN)
            ops += _cascade(layer, heads, head_counts[layer + 1], TopKScope.HEAD)
    return Trace(tuple(ops), model=f"bert-{tokens}", method="assumed", layers=model.layers, heads=model.heads)


def _counts(whole: int, keeps: tuple[float, ...]) -> list[int]:
    # The small share keeps a product that is whole but for rounding from falling to the next integer.
    return [max(1, int(whole * keep + 1e-9)) for keep in keeps]


def _cascade(layer: int, before: int, after: int, scope: TopKScope) -> Iterator[Op]:
    if after < before:
        yield TopK(layer=layer, n=before, k=after, scope=scope)


def with_scaled_keys(trace: Trace, thousandths: int) -> Trace:
    """The trace with every pruned layer's keys times `thousandths` / 1000, rounded down; kept values in proportion.

    Layers that see all tokens, and heads, stay as they are.
    """

    def scaled(count: int) -> int:
        return count if count > PROMPT_TOKENS else max(1, count * thousandths // 1000)

    def share(part: int, whole: int) -> int:
        return max(1, scaled(whole) * part // whole)

    def changed(op: Op) -> Op:
        match op:
            case QueryKey(keys=keys):
                return replace(op, keys=scaled(keys))
            case Softmax(cols=keys) | ColumnSum(cols=keys):
                return replace(op, cols=scaled(keys))
            case ProbabilityValue(keys=keys, kept=kept):
                return replace(op, keys=scaled(keys), kept=share(kept, keys))
            case TopK(scope=TopKScope.VALUE, n=keys, k=kept):
                return replace(op, n=scaled(keys), k=share(kept, keys))
            case TopK(scope=TopKScope.TOKEN, n=keys, k=kept):
                return replace(op, n=scaled(keys), k=scaled(kept))
        return op

    return replace(trace, ops=tuple(changed(op) for op in trace.ops))
