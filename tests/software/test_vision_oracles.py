"""One step of each method for images against its text re-implemented with plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import topsieve
from software.toy_encoder import SHAPE, batch, run
from software.vision_models import images, tiny_vit
from topsieve.methods import build
from topsieve.reduction import Context, Decision, Signal, Site, Stage, Step, decide
from topsieve.reduction.roles import ModelShape, Tower

Array = NDArray[np.float64]
BOUNDED = settings(max_examples=20, deadline=None)
TOKENS = st.integers(2, 17)
SEEDS = st.integers(0, 10_000)
KEEPS = st.sampled_from([0.2, 0.5, 0.8])


class Sequence:
    """One sequence of random features, operands and probabilities; scores of random float64 numbers are distinct."""

    def __init__(self, tokens: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.tokens = tokens
        self.x: Array = random.standard_normal((tokens, SHAPE.width))
        heads = (SHAPE.heads, tokens, SHAPE.head_dim)
        self.query, self.key, self.value = (random.standard_normal(heads) for _ in range(3))
        exponential = np.exp(random.standard_normal((SHAPE.heads, tokens, tokens)))
        self.probability: Array = exponential / exponential.sum(-1, keepdims=True)
        self.next_query, self.next_key = (random.standard_normal(heads) for _ in range(2))

    def context(
        self,
        layer: int,
        initial: int | None = None,
        state: torch.Tensor | None = None,
        segment: list[bool] | None = None,
        shape: ModelShape = SHAPE,
    ) -> Context:
        def one(array: Array) -> torch.Tensor:
            return torch.from_numpy(array)[None]

        probability = one(self.probability)
        visual = self.tokens if segment is None else sum(segment)
        return Context(
            shape=shape,
            layer=layer,
            valid=torch.ones(1, self.tokens, dtype=torch.bool),
            positions=torch.arange(self.tokens)[None],
            size=torch.ones(1, self.tokens, dtype=torch.float64),
            initial=torch.tensor([initial or visual]),
            signals={
                Signal.ATTENTION_COLUMN_SUM: probability.sum(2),
                Signal.ATTENTION_CLS_ROW: probability[:, :, 0],
                Signal.ATTENTION_LAST_ROW: probability[:, :, -1],
                Signal.QUERY: one(self.query),
                Signal.KEY: one(self.key),
                Signal.VALUE: one(self.value),
                Signal.HIDDEN: one(self.x),
                Signal.FEATURES: one(self.x),
                Signal.FINAL_HIDDEN: one(self.x),
                Signal.NEXT_QUERY: one(self.next_query),
                Signal.NEXT_KEY: one(self.next_key),
                Signal.NEXT_ROTATED_QUERY: one(self.next_query),
                Signal.NEXT_ROTATED_KEY: one(self.next_key),
            },
            state=state,
            segment=None if segment is None else torch.tensor(segment)[None],
        )

    def reduced(self, decision: Decision) -> Array:
        return decision.reduction.apply(torch.from_numpy(self.x)[None])[0].numpy()


def step_of(text: str, layer: int | None = None, stage: int = 0, shape: ModelShape = SHAPE) -> tuple[Stage, Step]:
    """The step that the method `text` takes in `layer`; its only one where none is given."""
    found = build(text).stages(shape)[stage]
    steps = [step for step in found.schedule.plan(shape) if layer in (None, step.layer)]
    assert len(steps) == 1
    return found, steps[0]


def same(left: Array, right: Array) -> None:
    """Equal to a few thousand roundings of float64."""
    assert left.shape == right.shape
    assert np.linalg.norm(left - right) <= 1e-12 * np.linalg.norm(right)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def best(scores: dict[int, float], count: int) -> list[int]:
    """The `count` largest, of equal ones the lowest index, ascending."""
    return sorted(sorted(scores, key=lambda j: (-scores[j], j))[:count])


@given(tokens=TOKENS, seed=SEEDS, samples=st.integers(1, 17))
@BOUNDED
def test_ats(tokens: int, seed: int, samples: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"ats:n_tokens={samples + 1},least=1", layer=2)
    decision = decide(stage, step, sequence.context(2))

    kept = set(range(1, tokens))
    if samples < tokens - 1:
        score = {}
        for j in range(1, tokens):
            attention = sum(sequence.probability[h][0][j] for h in range(SHAPE.heads))
            length = math.sqrt(sum(v * v for h in range(SHAPE.heads) for v in sequence.value[h][j]))
            score[j] = attention * length
        order = sorted(score, key=lambda j: score[j])
        total = sum(score.values())
        cumulative = list(np.cumsum([score[j] / total for j in order]))
        low, high = cumulative[0], cumulative[-1]
        cumulative = [(c - low) / (high - low) for c in cumulative]
        first = min(c for c in cumulative if c > 0)
        kept = set()
        for t in range(samples):
            y = first + t * (1 - first) / max(samples - 1, 1)
            gaps = [abs(c - y) for c in cumulative]
            kept.add(order[gaps.index(min(gaps))])
    assert decision.reduction.keep[0].tolist() == sorted({0} | kept)


def test_ats_acts_from_a_quarter_of_the_depth_on_and_never_asks_for_less_than_eight() -> None:
    shape = ModelShape("vit-b", "vit", 12, 12, 12, 64, 768, 3072)
    (stage,) = build("ats:n_tokens=197").stages(shape)
    steps = stage.schedule.plan(shape)
    assert [step.layer for step in steps] == list(range(3, 12))
    assert steps[0].budget.keep_count(300, 300) == 197
    (stage,) = build("ats:keep=0.1").stages(shape)
    assert stage.schedule.plan(shape)[0].budget.keep_count(50, 50) == 8


@pytest.mark.parametrize("seed", range(4))
def test_avit_output_is_the_sum_over_depth(seed: int) -> None:
    """Against the published bookkeeping: cumulative score, remainder and mask of every token of a toy of four layers."""
    model, margin, scale, center = tiny_vit("eager"), 0.01, 1.0, 1.0 + seed / 2
    pixels = images(2, seed)
    with torch.no_grad(), topsieve.reduce(model, f"a-vit:gate_scale={scale},gate_center={center}") as reduced:
        got = model(pixel_values=pixels).last_hidden_state
    counts = [layer.attention_tokens.tolist() for layer in reduced.record.layers]

    with torch.no_grad():
        x = model.embeddings(pixels)
        cumulative, remainder = torch.zeros(x.shape[:2]), torch.ones(x.shape[:2])
        out, alive = torch.zeros_like(x), torch.ones(x.shape[:2], dtype=torch.bool)
        for index, layer in enumerate(model.layers):
            assert counts[index] == alive.sum(-1).tolist()
            mask = torch.zeros(x.shape[:2]).masked_fill(~alive, torch.finfo(torch.float32).min)[:, None, None]
            x = layer(x, mask.expand(-1, -1, x.shape[1], -1))
            halt = torch.sigmoid(scale * x[..., 0] - center)
            if index == len(model.layers) - 1:
                halt = torch.ones_like(halt)
            cumulative = cumulative + halt * alive
            reached = alive & (cumulative > 1 - margin)
            going = alive & ~reached
            out = out + x * (remainder * reached + halt * going).unsqueeze(-1)
            remainder = remainder - halt * going
            alive = alive & (cumulative < 1 - margin)
            if index < len(model.layers) - 1:
                assert alive.any(-1).all(), "the drawn gates leave a token in every image"
        wanted = model.layernorm(out)
    assert counts[-1] != counts[0]
    # Float32 rounding of another summation order, through four layers.
    assert (got - wanted).norm() < 1e-5 * wanted.norm()


def split(tokens: int, text: int) -> list[bool]:
    """Two tokens of text, the image, `text` tokens of text."""
    return [False] * 2 + [True] * tokens + [False] * text


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_fastv(tokens: int, seed: int, keep: float) -> None:
    segment = split(tokens, 3)
    sequence = Sequence(len(segment), seed)
    shape = ModelShape("l", "llama", 4, 3, 3, 4, 12, 16, tower=Tower.LANGUAGE)
    stage, step = step_of(f"fastv:keep={keep}", shape=shape)
    assert (step.site, step.layer) == (Site.LAYER, 1)
    decision = decide(stage, step, sequence.context(1, segment=segment))
    score = {j: float(sequence.probability[:, -1, j].mean()) for j in range(len(segment)) if segment[j]}
    kept = best(score, max(1, round(tokens * keep)))
    assert decision.reduction.keep[0].tolist() == sorted([j for j in range(len(segment)) if not segment[j]] + kept)


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_fastervlm(tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"fastervlm:keep={keep}")
    assert (step.site, step.layer) == (Site.PROJECTED, SHAPE.layers - 1)
    score = {j: float(sequence.probability[:, 0, j].mean()) for j in range(1, tokens)}
    kept = best(score, math.floor(round((tokens - 1) * keep, 9)))
    assert decide(stage, step, sequence.context(3)).reduction.keep[0].tolist() == [0, *kept]


@given(tokens=st.integers(3, 20), seed=SEEDS, dominant=st.integers(1, 9), contextual=st.integers(1, 6))
@BOUNDED
def test_visionzip(tokens: int, seed: int, dominant: int, contextual: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"visionzip:dominant={dominant},contextual={contextual}")
    assert step.site is Site.OUTPUT
    decision = decide(stage, step, sequence.context(3))
    score = {j: float(sequence.probability[:, 0, j].sum()) for j in range(1, tokens)}
    if dominant + contextual >= tokens:
        # The budget takes contextual tokens out of what there is.
        contextual = min(contextual, tokens - 1)
        dominant = tokens - contextual
    top = [0, *best(score, dominant - 1)]
    rest = [j for j in range(tokens) if j not in top]
    step_size = max(1, len(rest) // contextual)
    targets = [rest[i] for i in range(0, len(rest), step_size)][:contextual]
    metric = sequence.key.mean(0)
    rows = {j: sequence.x[j].copy() for j in [*top, *targets]}
    members: dict[int, list[int]] = {target: [] for target in targets}
    for j in rest:
        if j not in targets:
            likeness = [cosine(metric[j], metric[target]) for target in targets]
            members[targets[likeness.index(max(likeness))]].append(j)
    for target, group in members.items():
        if group:
            rows[target] += sum(sequence.x[j] for j in group) / len(group)
    same(sequence.reduced(decision), np.array([rows[j] for j in sorted(rows)]))
    sizes = [1 + len(members.get(j, [])) for j in sorted(rows)]
    assert decision.reduction.size[0].tolist() == sizes


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_divprune(tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"divprune:keep={keep}")
    ids = range(1, tokens)
    count = round((tokens - 1) * keep)
    picked: list[int] = []
    distance = {(i, j): 1 - cosine(sequence.x[i], sequence.x[j]) for i in ids for j in ids}
    while len(picked) < count:
        if not picked:
            merit = {j: min([distance[i, j] for i in ids if i != j], default=0.0) for j in ids}
        else:
            merit = {j: min(distance[i, j] for i in picked) for j in ids if j not in picked}
        picked.append(max(merit, key=lambda j: (merit[j], -j)))
    assert decide(stage, step, sequence.context(3)).reduction.keep[0].tolist() == sorted([0, *picked])


def test_toy_runs_what_the_oracles_check() -> None:
    """The steps that the oracles look at are those that the toy takes."""
    hidden, valid = batch([12], seed=5)
    for name in ("ats", "fastv", "fastervlm", "visionzip", "divprune"):
        assert run(build(name, keep=0.5), hidden, valid).decisions
