"""One step of each published method against its text re-implemented with plain loops in float64."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from software.toy_encoder import SHAPE, batch, run
from topsieve.methods import build
from topsieve.methods.ltp import Ltp, calibrate
from topsieve.reduction import Context, Decision, Signal, Stage, Step, decide

Array = NDArray[np.float64]
BOUNDED = settings(max_examples=30, deadline=None)
TOKENS = st.integers(2, 17)
SEEDS = st.integers(0, 10_000)


class Sequence:
    """One sequence of random features, keys and probabilities; scores of random float64 numbers are distinct."""

    def __init__(self, tokens: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.tokens = tokens
        self.x: Array = random.standard_normal((tokens, SHAPE.width))
        self.key: Array = random.standard_normal((SHAPE.heads, tokens, SHAPE.head_dim))
        exponential = np.exp(random.standard_normal((SHAPE.heads, tokens, tokens)))
        self.probability: Array = exponential / exponential.sum(-1, keepdims=True)
        self.size: Array = random.integers(1, 5, tokens).astype(np.float64)
        self.output: Array = random.standard_normal((SHAPE.heads, tokens, SHAPE.head_dim))

    def context(self, layer: int, initial: int | None = None, state: torch.Tensor | None = None) -> Context:
        probability = torch.from_numpy(self.probability)[None]
        return Context(
            shape=SHAPE,
            layer=layer,
            valid=torch.ones(1, self.tokens, dtype=torch.bool),
            positions=torch.arange(self.tokens)[None],
            size=torch.from_numpy(self.size)[None],
            initial=torch.tensor([initial or self.tokens]),
            signals={
                Signal.ATTENTION_COLUMN_SUM: probability.sum(2),
                Signal.ATTENTION_DIAGONAL: probability.diagonal(dim1=2, dim2=3),
                Signal.ATTENTION_CLS_ROW: probability[:, :, 0],
                Signal.HEAD_ABSOLUTE_SUM: torch.from_numpy(self.output)[None].abs().sum((2, 3)),
                Signal.KEY: torch.from_numpy(self.key)[None],
            },
            state=state,
        )

    def reduced(self, decision: Decision) -> tuple[Array, Array]:
        """The features and sizes that a decision leaves."""
        return (
            decision.reduction.apply(torch.from_numpy(self.x)[None])[0].numpy(),
            decision.reduction.size[0].numpy(),
        )


def step_of(text: str, layer: int, stage: int = 0) -> tuple[Stage, Step]:
    """The step that the method `text` takes in `layer`."""
    found = build(text).stages(SHAPE)[stage]
    return found, next(step for step in found.schedule.plan(SHAPE) if step.layer == layer)


def same(left: Array, right: Array) -> None:
    assert left.shape == right.shape
    assert np.linalg.norm(left - right) <= 1e-12 * np.linalg.norm(right)


def tome(sequence: Sequence, r: int, cls: bool, paper_order: bool) -> tuple[Array, Array]:
    """Bipartite soft matching: specification `methods-more`, ToMe."""
    n = sequence.tokens
    metric = sequence.key.mean(0)
    metric = metric / np.sqrt((metric**2).sum(-1, keepdims=True))
    r = min(r, (n - cls) // 2)
    best: list[tuple[float, int, int]] = []
    for a in range(0, n, 2):
        if cls and a == 0:
            continue
        edges = [(float(metric[a] @ metric[b]), b) for b in range(1, n, 2)]
        if edges:
            edge, b = max(edges)
            best.append((edge, a, b))
    merged = {a: b for _, a, b in sorted(best, reverse=True)[:r]}
    total, size = sequence.x * sequence.size[:, None], sequence.size.copy()
    for a, b in merged.items():
        total[b] += sequence.x[a] * sequence.size[a]
        size[b] += sequence.size[a]
    left = [token for token in range(n) if token not in merged]
    if paper_order and merged:
        left = [t for t in left if t % 2 == 0] + [t for t in left if t % 2 == 1]
    return (total / size[:, None])[left], size[left]


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("order", ["ascending", "paper"])
@given(tokens=TOKENS, seed=SEEDS, r=st.integers(1, 12))
@BOUNDED
def test_tome(cls: bool, order: str, tokens: int, seed: int, r: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"tome:r={r},protect_cls={cls},order={order}", layer=1)
    x, size = sequence.reduced(decide(stage, step, sequence.context(1)))
    expected_x, expected_size = tome(sequence, r, cls, order == "paper")
    same(x, expected_x)
    same(size, expected_size)


@pytest.mark.parametrize(("inflect", "expected"), [(0, [6, 6, 6, 6]), (-1, [12, 8, 4, 0]), (1, [0, 4, 8, 12])])
def test_tome_inflection(inflect: float, expected: list[int]) -> None:
    """int(low + i (high - low) / (L - 1)) of four layers, low = int(6 (1 - inflect))."""
    (stage,) = build(f"tome:r=6,inflect={inflect}").stages(SHAPE)
    assert [step.budget.remove for step in stage.schedule.plan(SHAPE)] == expected


@pytest.mark.parametrize("fuse", [True, False])
@given(tokens=TOKENS, seed=SEEDS, rate=st.sampled_from([0.1, 0.5, 0.7, 0.9]))
@BOUNDED
def test_evit(fuse: bool, tokens: int, seed: int, rate: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"evit:keep_rate={rate},fuse_token={fuse}", layer=2)
    x, size = sequence.reduced(decide(stage, step, sequence.context(2)))

    weight = sequence.probability[:, 0].mean(0)
    k = math.ceil(rate * (tokens - 1))
    by_score = sorted(range(1, tokens), key=lambda j: -weight[j])
    kept, rest = [0, *sorted(by_score[:k])], by_score[k:]
    expected, sizes = [sequence.x[j] for j in kept], [sequence.size[j] for j in kept]
    if fuse and rest:
        expected.append(sum(weight[j] * sequence.x[j] for j in rest))
        sizes.append(sum(sequence.size[j] for j in rest))
    same(x, np.array(expected))
    same(size, np.array(sizes))


def test_evit_acts_at_quarters_of_the_depth() -> None:
    for layers, expected in ((12, [3, 6, 9]), (24, [6, 12, 18]), (6, [1, 3, 4]), (1, [0])):
        shape = dataclasses.replace(SHAPE, layers=layers)
        (stage,) = build("evit").stages(shape)
        assert [step.layer for step in stage.schedule.plan(shape)] == expected


@given(tokens=TOKENS, seed=SEEDS, count=st.integers(1, 17))
@BOUNDED
def test_powerbert(tokens: int, seed: int, count: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"powerbert:counts={count}", layer=0)
    x, _ = sequence.reduced(decide(stage, step, sequence.context(0)))

    mean = sequence.probability.mean(0)
    significance = [sum(mean[i][j] for i in range(tokens)) - mean[j][j] for j in range(tokens)]
    best = sorted(range(1, tokens), key=lambda j: -significance[j])[: count - 1]
    same(x, sequence.x[[0, *sorted(best)]])


@given(tokens=TOKENS, more=st.integers(0, 20), seed=SEEDS, final=st.floats(0.01, 0.3))
@BOUNDED
def test_ltp(tokens: int, more: int, seed: int, final: float) -> None:
    """`more` tokens were removed before: their rows count as zeros in the mean."""
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"ltp:final_token_threshold={final!r}", layer=3)
    decision = decide(stage, step, sequence.context(3, initial=tokens + more))
    x, _ = sequence.reduced(decision)

    score = [
        sum(sequence.probability[h][i][j] for h in range(SHAPE.heads) for i in range(tokens))
        / (SHAPE.heads * (tokens + more))
        for j in range(tokens)
    ]
    threshold = max(1e-5, final * 3 / SHAPE.layers)
    expected = [j for j in range(tokens) if score[j] >= threshold] or [int(np.argmax(score))]
    same(x, sequence.x[expected])


@given(seed=SEEDS, keep=st.floats(0.1, 0.9))
@BOUNDED
def test_ltp_calibration_comes_closest(seed: int, keep: float) -> None:
    """On scores that do not depend on what is dropped, the share found is the sample's closest to the one asked for."""
    scores = np.sort(np.random.default_rng(seed).uniform(0.001, 0.9, 50))

    def share_left(method: Ltp) -> float:
        return float((scores >= method.final_token_threshold).mean())

    found = share_left(calibrate(share_left, keep, trials=40))
    # Shares that a threshold can leave are multiples of 1 / 50.
    assert abs(found - keep) <= 0.5 / 50 + 1e-12


def test_ltp_calibration_on_an_encoder() -> None:
    hidden, valid = batch([40] * 8, seed=3)

    def share_left(method: Ltp) -> float:
        return float(run(method, hidden, valid).valid.sum()) / hidden[..., 0].numel()

    shares = [share_left(Ltp(final_token_threshold=value)) for value in np.geomspace(1e-5, 1, 60)]
    for keep in (0.8, 0.5, 0.3):
        miss = abs(share_left(calibrate(share_left, keep)) - keep)
        assert miss <= min(abs(share - keep) for share in shares)


@given(tokens=TOKENS, seed=SEEDS, keep=st.sampled_from([0.2, 0.5, 0.8]))
@BOUNDED
def test_spatten_tokens(tokens: int, seed: int, keep: float) -> None:
    """Two layers of the cascade: importance of layer 1 comes along to layer 2."""
    text = f"spatten:keep={keep},unpruned=0"
    stage, first = step_of(text, layer=1)
    _, second = step_of(text, layer=2)
    before = Sequence(tokens, seed)
    one = decide(stage, first, before.context(1)).reduction
    survivors = int(one.tokens_out[0])
    after = Sequence(survivors, seed + 1)
    state = one.gather(one.scores)
    x, _ = after.reduced(decide(stage, second, after.context(2, initial=tokens, state=state)))

    importance = dict.fromkeys(range(tokens), 0.0)
    for head in range(SHAPE.heads):
        for row in range(tokens):
            for j in range(tokens):
                importance[j] += before.probability[head][row][j]
    k = max(1, math.floor(round(tokens * (1 - (1 - keep) * 2 / 4), 9)))
    alive = sorted(sorted(range(tokens), key=lambda j: -importance[j])[:k])
    assert one.keep[0].tolist() == alive
    for slot, j in enumerate(alive):
        importance[j] += sum(after.probability[h][row][slot] for h in range(SHAPE.heads) for row in range(survivors))
    k = min(k, max(1, math.floor(round(tokens * (1 - (1 - keep) * 3 / 4), 9))))
    left = sorted(sorted(range(survivors), key=lambda slot: -importance[alive[slot]])[:k])
    same(x, after.x[left])


@given(tokens=TOKENS, seed=SEEDS)
@BOUNDED
def test_spatten_heads(tokens: int, seed: int) -> None:
    """Of three heads, shares 5/6 and 2/3 of an even ramp to 2/3 leave two."""
    stage, step = step_of("spatten:keep=1.0,head_keep=0.67,head_unpruned=0", layer=2)
    sequence = Sequence(tokens, seed)
    earlier = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64) * tokens
    context = Context(
        shape=SHAPE,
        layer=2,
        valid=torch.ones(1, SHAPE.heads, dtype=torch.bool),
        positions=torch.arange(SHAPE.heads)[None],
        size=torch.ones(1, SHAPE.heads, dtype=torch.float64),
        initial=torch.tensor([SHAPE.heads]),
        signals=sequence.context(2).signals,
        state=earlier,
    )
    decision = decide(stage, step, context)
    importance = [
        float(earlier[0, h]) + sum(abs(e) for row in sequence.output[h] for e in row) for h in range(SHAPE.heads)
    ]
    assert decision.reduction.axis == "head"
    assert decision.reduction.keep[0].tolist() == sorted(sorted(range(SHAPE.heads), key=lambda h: -importance[h])[:2])


def test_spatten_attention_policy() -> None:
    progressive = build("spatten:value_keep=0.3,quantisation=6+4,lsb_threshold=0.05").attention(SHAPE, 0)
    assert progressive.value_keep == 0.3
    assert progressive.bits is not None
    assert (progressive.bits.key_msb_bits, progressive.bits.key_lsb_bits, progressive.bits.threshold) == (6, 4, 0.05)
    static = build("spatten:quantisation=12").attention(SHAPE, 0).bits
    assert static is not None
    assert (static.key_msb_bits, static.key_lsb_bits, static.threshold) == (12, 0, 0.0)
    assert build("spatten").attention(SHAPE, 0).bits is None


@given(tokens=TOKENS, seed=SEEDS, keep=st.sampled_from([0.2, 0.5, 0.8]))
@BOUNDED
def test_uniform_and_pooling(tokens: int, seed: int, keep: float) -> None:
    """Runs of neighbours: uniform keeps the first of each, pooling their size-weighted average."""
    sequence = Sequence(tokens, seed)
    share = 1 - (1 - keep) * 3 / 3
    for name, least in (("uniform", 1), ("pooling", 2)):
        stage, step = step_of(f"{name}:keep={keep}", layer=3)
        x, _ = sequence.reduced(decide(stage, step, sequence.context(3)))
        k = max(min(least, tokens), math.floor(round(tokens * share, 9))) - 1
        runs: list[list[int]] = [[] for _ in range(k)]
        if k:
            for token in range(1, tokens):
                runs[(token - 1) * k // (tokens - 1)].append(token)
        if name == "uniform":
            expected = sequence.x[[0, *(run[0] for run in runs)]]
        else:
            means = [np.average(sequence.x[run], axis=0, weights=sequence.size[run]) for run in runs]
            expected = np.array([sequence.x[0], *means])
        same(x, expected)


def test_random_is_another_choice_for_another_seed_layer_and_nothing_else() -> None:
    sequence = Sequence(200, seed=0)

    def kept(text: str, layer: int) -> list[int]:
        stage, step = step_of(text, layer)
        kept: list[int] = decide(stage, step, sequence.context(layer)).reduction.keep[0].tolist()
        return kept

    base = kept("random:keep=0.5", 3)
    assert base == kept("random:keep=0.5", 3)
    assert base != kept("random:keep=0.5,seed=1", 3)
    stage, _ = step_of("random", 3)
    scores = [stage.scorer.score(sequence.context(layer))[0] for layer in (2, 3)]
    assert scores[0].tolist() != scores[1].tolist()
    # 100 of 200 uniform numbers under 1/2, within five standard deviations.
    assert abs(int((scores[0] < 0.5).sum()) - 100) < 5 * math.sqrt(200 / 4)
    assert float(scores[0].min()) >= 0
    assert float(scores[0].max()) < 1
