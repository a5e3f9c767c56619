"""Selectors and scorers on their own: budgets, protection, and the hardware work they name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from software.toy_encoder import SHAPE
from topsieve.reduction import Budget, Context, Signal
from topsieve.reduction.reducers import Drop, FuseRest, MergeTo
from topsieve.reduction.scorers import (
    ClassAttention,
    CumulativeAttention,
    HeadMagnitude,
    MeanAttention,
    RandomScore,
    Significance,
)
from topsieve.reduction.selectors import AboveThreshold, Bipartite, Stride, TopScores
from topsieve_sim.trace import TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Gather, Merge, Norm, Similarity, Threshold, TopK

BOUNDED = settings(max_examples=40, deadline=None)


def context(lengths: list[int], signals: dict[Signal, torch.Tensor] | None = None, width: int | None = None) -> Context:
    width = width or max(lengths)
    valid = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    positions = torch.arange(width).expand(valid.shape).masked_fill(~valid, -1)
    return Context(SHAPE, 1, valid, positions, valid.double(), torch.tensor(lengths), signals or {})


@given(
    scores=st.lists(st.lists(st.integers(0, 3), min_size=8, max_size=8), min_size=1, max_size=3),
    data=st.data(),
)
@BOUNDED
def test_protected_tokens_stay_inside_the_budget(scores: list[list[int]], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 8), min_size=len(scores), max_size=len(scores)))
    first, last, count = (data.draw(st.integers(0, bound)) for bound in (2, 2, 8))
    budget = Budget(count=count, protect_first=first, protect_last=last)
    selection = TopScores().select(torch.tensor(scores).double(), budget, context(lengths, width=8))
    for row, length in enumerate(lengths):
        ends = set(range(min(first, length))) | set(range(max(length - last, 0), length))
        free = sorted((-scores[row][i], i) for i in range(length) if i not in ends)
        expected = ends | {i for _, i in free[: max(0, max(count, 1) - len(ends))]}
        assert selection.keep[row, selection.valid[row]].tolist() == sorted(expected)


@given(
    scores=st.lists(st.integers(0, 9), min_size=1, max_size=10), threshold=st.integers(0, 10), minimum=st.integers(0, 4)
)
@BOUNDED
def test_a_threshold_keeps_what_reaches_it_and_at_least_the_minimum(
    scores: list[int], threshold: int, minimum: int
) -> None:
    budget = Budget(threshold=threshold, minimum=minimum)
    selection = AboveThreshold().select(torch.tensor([scores]).double(), budget, context([len(scores)]))
    above = {i for i, score in enumerate(scores) if score >= threshold}
    best = [i for _, i in sorted((-score, i) for i, score in enumerate(scores))][:minimum]
    assert selection.keep[0].tolist() == sorted(above | set(best))


def test_a_threshold_selector_refuses_a_count() -> None:
    with pytest.raises(ValueError, match="threshold"):
        AboveThreshold().select(torch.zeros(1, 2), Budget(count=1), context([2]))


def test_equal_edges_go_to_the_lowest_index() -> None:
    """All keys alike: the first even tokens behind CLS merge, each into the first odd token."""
    signals = {Signal.KEY: torch.ones(1, SHAPE.heads, 8, SHAPE.head_dim, dtype=torch.float64)}
    seen = context([8], signals)
    selection = Bipartite().select(torch.zeros(1, 8), Budget(remove=2, protect_first=1), seen)
    assert selection.keep.tolist() == [[0, 1, 3, 5, 6, 7]]
    assert selection.assign is not None
    assert selection.assign.tolist() == [[-1, -1, 1, -1, 1, -1, -1, -1]]


def test_two_protected_tokens_neither_merge_nor_are_merged_into() -> None:
    """CLS and the distillation token: the second is odd, and out of reach however similar."""
    key = torch.zeros(1, 1, 5, 2, dtype=torch.float64)
    key[0, 0] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    selection = Bipartite().select(
        torch.zeros(1, 5), Budget(remove=2, protect_first=2), context([5], {Signal.KEY: key})
    )
    assert selection.assign is not None
    assert selection.assign.tolist() == [[-1, -1, 2, -1, -1]]


def test_a_zero_key_is_similar_to_nothing() -> None:
    key = torch.zeros(1, 1, 4, 2, dtype=torch.float64)
    selection = Bipartite().select(torch.zeros(1, 4), Budget(remove=1), context([4], {Signal.KEY: key}))
    assert not selection.scores.isnan().any()
    assert selection.keep.tolist() == [[1, 2, 3]]


@given(n=st.integers(1, 40), k=st.integers(1, 40))
@BOUNDED
def test_strides_differ_by_at_most_one(n: int, k: int) -> None:
    keep = Stride().select(torch.zeros(1, n), Budget(count=k), context([n])).keep[0]
    assert len(keep) == min(n, k)
    assert int(keep[0]) == 0
    gaps = torch.cat([keep, torch.tensor([n])]).diff()
    assert int(gaps.max() - gaps.min()) <= 1


@given(seed=st.integers(0, 1000))
@BOUNDED
def test_scores_follow_their_tokens(seed: int) -> None:
    """Permuting what the scorers see permutes what they say; none of them looks at the index."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(6, generator=generator)
    per_token = {
        signal: torch.rand(2, SHAPE.heads, 6, generator=generator, dtype=torch.float64)
        for signal in (Signal.ATTENTION_COLUMN_SUM, Signal.ATTENTION_DIAGONAL, Signal.ATTENTION_CLS_ROW)
    }
    for scorer in (
        CumulativeAttention(),
        MeanAttention(),
        MeanAttention(relative=True),
        Significance(),
        ClassAttention(),
    ):
        assert scorer.needs <= set(per_token)
        plain = scorer.score(context([6, 6], per_token))
        moved = scorer.score(context([6, 6], {signal: value[:, :, order] for signal, value in per_token.items()}))
        assert moved.equal(plain[:, order])
    magnitude = {Signal.HEAD_ABSOLUTE_SUM: torch.rand(2, 6, generator=generator)}
    assert HeadMagnitude().score(context([6, 6], magnitude)).equal(magnitude[Signal.HEAD_ABSOLUTE_SUM])


def test_random_scores_belong_to_positions() -> None:
    """A token keeps its number when the tokens before it are gone."""
    whole = context([6])
    part = Context(
        SHAPE, 1, whole.valid[:, 3:], whole.positions[:, 3:], whole.size[:, 3:], whole.initial, {}, seed=whole.seed
    )
    assert RandomScore(4).score(part).equal(RandomScore(4).score(whole)[:, 3:])


def test_work_of_the_selectors() -> None:
    cls = Budget(ratio=0.5, protect_first=1)
    assert TopScores().work(SHAPE, 2, 36, 31) == (TopK(layer=2, n=36, k=31, scope=TopKScope.TOKEN),)
    assert TopScores().work(SHAPE, 2, 36, 31, cls) == (TopK(layer=2, n=35, k=30, scope=TopKScope.TOKEN),)
    assert TopScores(TopKScope.HEAD).work(SHAPE, 2, 12, 9) == (TopK(layer=2, n=12, k=9, scope=TopKScope.HEAD),)
    assert TopScores().work(SHAPE, 2, 36, 36) == ()
    assert AboveThreshold().work(SHAPE, 2, 36, 36) == (Threshold(layer=2, n=36, kept=36),)
    assert Stride().work(SHAPE, 2, 36, 20) == ()
    assert Bipartite().work(SHAPE, 2, 36, 36) == ()
    # ToMe on 197 tokens with r = 16: 99 even and 98 odd tokens, CLS not among the candidates.
    assert Bipartite().work(SHAPE, 2, 197, 181, cls) == (
        Norm(layer=2, rows=197, width=SHAPE.head_dim),
        Similarity(layer=2, rows_a=99, rows_b=98, width=SHAPE.head_dim),
        ArgmaxRow(layer=2, rows=99, cols=98),
        TopK(layer=2, n=98, k=16, scope=TopKScope.EDGE),
    )


def test_work_of_the_reducers() -> None:
    gather = Gather(layer=2, rows=20, width=SHAPE.width, bits=16)
    assert Drop().work(SHAPE, 2, 36, 20) == (gather,)
    assert Drop("head").work(SHAPE, 2, 12, 9) == ()
    assert MergeTo().work(SHAPE, 2, 36, 20) == (gather, Merge(layer=2, sources=16, targets=16, width=SHAPE.width))
    fused = Merge(layer=2, sources=16, targets=1, width=SHAPE.width, divide=False)
    assert FuseRest().work(SHAPE, 2, 36, 20) == (gather, fused)
    for reducer in (Drop(), MergeTo(), FuseRest()):
        assert reducer.work(SHAPE, 2, 36, 36) == ()


def test_a_similarity_counts_the_flops_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    key = torch.randn(1, SHAPE.heads, 37, SHAPE.head_dim)
    budget = Budget(remove=5, protect_first=1)
    with FlopCounterMode(display=False) as counter:
        Bipartite().select(torch.zeros(1, 37), budget, context([37], {Signal.KEY: key}))
    assert sum(op.flops for op in Bipartite().work(SHAPE, 1, 37, 32, budget)) == counter.get_total_flops()
